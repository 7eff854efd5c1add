package docker

import (
	"net/http"
	"strings"

	"github.com/moby/moby/api/types/jsonstream"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	images "wherry.dev/wherry/internal/image"
)

// artifactRoutes are about artifacts, what refers to images, and copies between registries.
type artifactRoutes struct {
	artifacts images.Artifacts
	manifests images.Manifests
}

func (a *artifactRoutes) add(add adder) {
	add("GET /wherry/artifacts", a.list)
	add("POST /wherry/artifacts", a.make)
	add("DELETE /wherry/artifacts", a.remove)
	add("GET /wherry/artifacts/inspect", a.inspect)
	add("GET /wherry/artifacts/files", a.files)
	add("POST /wherry/artifacts/push", a.push)
	add("POST /wherry/artifacts/pull", a.pull)
	add("POST /wherry/attach", a.attach)
	add("GET /wherry/referrers", a.referrers)
	add("POST /wherry/copy", a.copy)
	add("POST /wherry/copy/in", a.copyIn)
	add("GET /wherry/copy/out", a.copyOut)
}

func (a *artifactRoutes) list(w http.ResponseWriter, r *http.Request) error {
	list, err := a.artifacts.List(r.Context())
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, list)
}

// addOptions reads ?name=, ?type= and any number of ?annotation=key=value.
func addOptions(q query) (images.AddOptions, error) {
	o := images.AddOptions{Name: q.Get("name"), Type: q.Get("type"), Annotations: map[string]string{}}
	for _, text := range q.Values["annotation"] {
		key, value, ok := strings.Cut(text, "=")
		if !ok || key == "" {
			return o, invalid("annotation %q: write key=value", text)
		}
		o.Annotations[key] = value
	}
	return o, nil
}

func (a *artifactRoutes) make(w http.ResponseWriter, r *http.Request) error {
	o, err := addOptions(queryOf(r))
	if err != nil {
		return err
	}
	d, err := a.artifacts.Add(r.Context(), r.Body, o)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, d)
}

func (a *artifactRoutes) remove(w http.ResponseWriter, r *http.Request) error {
	if err := a.artifacts.Remove(r.Context(), queryOf(r).Get("name")); err != nil {
		return err
	}
	return noContent(w)
}

func (a *artifactRoutes) inspect(w http.ResponseWriter, r *http.Request) error {
	out, err := a.artifacts.Inspect(r.Context(), queryOf(r).Get("name"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, out)
}

// tarOut streams a tar; an error after its beginning cuts the connection.
func tarOut(w http.ResponseWriter, write func(bulk) error) error {
	out := &lateHeader{w: w, contentType: "application/x-tar"}
	err := write(bulk{out})
	if err != nil && out.began {
		panic(http.ErrAbortHandler)
	}
	return err
}

func (a *artifactRoutes) files(w http.ResponseWriter, r *http.Request) error {
	return tarOut(w, func(out bulk) error { return a.artifacts.Extract(r.Context(), queryOf(r).Get("name"), out) })
}

func (a *artifactRoutes) push(w http.ResponseWriter, r *http.Request) error {
	p, err := place(r, "name")
	if err != nil {
		return err
	}
	m := &messages{w: w}
	return m.end(a.artifacts.Push(r.Context(), p, images.TransferOptions{Progress: m.progress}))
}

func (a *artifactRoutes) pull(w http.ResponseWriter, r *http.Request) error {
	p, err := place(r, "name")
	if err != nil {
		return err
	}
	m := &messages{w: w}
	_, err = a.artifacts.Pull(r.Context(), p, images.TransferOptions{Progress: m.progress})
	return m.end(err)
}

func (a *artifactRoutes) attach(w http.ResponseWriter, r *http.Request) error {
	q := queryOf(r)
	p, err := place(r, "image")
	if err != nil {
		return err
	}
	platform, err := q.platform()
	if err != nil {
		return err
	}
	o, err := addOptions(q)
	if err != nil {
		return err
	}
	d, err := a.manifests.Attach(r.Context(), p, images.AttachOptions{AddOptions: o, Platform: platform}, r.Body)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, d)
}

func (a *artifactRoutes) referrers(w http.ResponseWriter, r *http.Request) error {
	q := queryOf(r)
	p, err := place(r, "name")
	if err != nil {
		return err
	}
	platform, err := q.platform()
	if err != nil {
		return err
	}
	subject, list, err := a.manifests.Referrers(r.Context(), p, platform, q.Get("type"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, struct {
		Subject   ocispec.Descriptor
		Referrers []ocispec.Descriptor
	}{subject, orEmpty(list)})
}

// destinationAuth is the header with the login for the registry that something is copied to.
const destinationAuth = "X-Wherry-Destination-Auth"

func copyOptions(r *http.Request) (images.CopyOptions, error) {
	q := queryOf(r)
	o := images.CopyOptions{All: q.yes("all"), Referrers: q.yes("referrers")}
	var err error
	if o.From, err = place(r, "from"); err != nil {
		return o, err
	}
	o.To.Name, o.To.Insecure = q.Get("to"), q.yes("toInsecure")
	if o.To.Auth, err = parseAuth(r.Header.Get(destinationAuth)); err != nil {
		return o, err
	}
	o.Platform, err = q.platform()
	return o, err
}

func (a *artifactRoutes) copy(w http.ResponseWriter, r *http.Request) error {
	o, err := copyOptions(r)
	if err != nil {
		return err
	}
	m := &messages{w: w}
	o.Progress = m.progress
	d, err := a.manifests.Copy(r.Context(), o)
	return m.copied(d, err)
}

func (m *messages) copied(d ocispec.Descriptor, err error) error {
	if err == nil {
		m.write(streamMessage{Message: jsonstream.Message{Status: "Digest: " + d.Digest.String()}})
	}
	return m.end(err)
}

func (a *artifactRoutes) copyIn(w http.ResponseWriter, r *http.Request) error {
	o, err := copyOptions(r)
	if err != nil {
		return err
	}
	m := &messages{w: w}
	o.Progress = m.progress
	d, err := a.manifests.CopyIn(r.Context(), r.Body, o)
	return m.copied(d, err)
}

func (a *artifactRoutes) copyOut(w http.ResponseWriter, r *http.Request) error {
	o, err := copyOptions(r)
	if err != nil {
		return err
	}
	return tarOut(w, func(out bulk) error { return a.manifests.CopyOut(r.Context(), o, out) })
}
