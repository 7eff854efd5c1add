package docker

import (
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/api/types/registry"

	images "wherry.dev/wherry/internal/image"
)

// transferRoutes move images between the engine, registries and archives.
type transferRoutes struct{ s *images.Service }

func (t *transferRoutes) add(add adder) {
	add("POST /images/create", t.create)
	add("POST /images/load", t.load)
	add("POST /auth", t.login)
	add("GET /distribution/{rest...}", func(w http.ResponseWriter, r *http.Request) error {
		return byVerb(w, r, map[string]func(http.ResponseWriter, *http.Request, string) error{"json": t.distribution})
	})
	add("POST /images/{rest...}", func(w http.ResponseWriter, r *http.Request) error {
		return byVerb(w, r, map[string]func(http.ResponseWriter, *http.Request, string) error{"push": t.push, "tag": t.tag})
	})
}

// progress is the service's progress as lines of a message stream.
func (m *messages) progress(p images.Progress) {
	msg := streamMessage{Message: jsonstream.Message{ID: p.ID, Status: p.Status, Aux: rawJSON(p.Aux)}}
	if p.Total > 0 || p.Current > 0 {
		msg.Progress = &jsonstream.Progress{Current: p.Current, Total: p.Total}
	}
	if strings.HasPrefix(p.Status, "Loaded image") { // tools look for these words in the field stream
		msg.Stream, msg.Status = strings.TrimRight(p.Status, "\n")+"\n", ""
	}
	m.write(msg)
}

// joinReference puts the query's tag (or digest) behind a name, in the place of one that the name has: clients say it there too.
func joinReference(name, tag string) string {
	if tag == "" {
		return name
	}
	if strings.Contains(tag, ":") {
		name, _, _ = strings.Cut(name, "@")
		return name + "@" + tag
	}
	if named(name) && !strings.Contains(name, "@") {
		name = name[:strings.LastIndexByte(name, ':')]
	}
	return name + ":" + tag
}

// named says whether a reference has a tag or digest of its own.
func named(ref string) bool {
	return strings.Contains(ref, "@") || strings.Contains(ref[strings.LastIndexByte(ref, '/')+1:], ":")
}

// create pulls (fromImage) or imports (fromSrc).
func (t *transferRoutes) create(w http.ResponseWriter, r *http.Request) error {
	q := queryOf(r)
	platform, err := q.platform()
	if err != nil {
		return err
	}
	name, tag := q.Get("fromImage"), q.Get("tag")
	if name == "" {
		return t.importImage(w, r, images.ImportOptions{
			Ref: joinReference(q.Get("repo"), tag), Message: q.Get("message"), Changes: q.Values["changes"], Platform: platform,
		})
	}
	auth, err := registryAuth(r)
	if err != nil {
		return err
	}
	m := &messages{w: w}
	ref := joinReference(name, tag)
	o := images.TransferOptions{Platform: platform, AllTags: !named(ref), Auth: auth, Progress: m.progress, AllPlatforms: q.yes("allPlatforms")}
	if q.Has("platforms") { // Wherry's own
		if o.Platforms, err = q.platforms(); err != nil {
			return err
		}
	}
	return m.end(t.s.Pull(r.Context(), ref, o))
}

func (t *transferRoutes) importImage(w http.ResponseWriter, r *http.Request, o images.ImportOptions) error {
	source := queryOf(r).Get("fromSrc")
	var body io.Reader = r.Body
	switch {
	case source == "":
		return invalid("neither fromImage nor fromSrc is given: nothing to create an image from")
	case source != "-":
		fetched, err := fetch(r, source)
		if err != nil {
			return err
		}
		defer fetched.Close()
		body = fetched
	}
	if o.Ref == ":" || strings.HasPrefix(o.Ref, ":") {
		o.Ref = ""
	}
	m := &messages{w: w}
	id, err := t.s.Import(r.Context(), body, o)
	if err == nil {
		m.write(streamMessage{Message: jsonstream.Message{Status: id.String()}})
	}
	return m.end(err)
}

// fetch opens what `docker import URL` names.
func fetch(r *http.Request, source string) (io.ReadCloser, error) {
	if !strings.Contains(source, "://") {
		source = "http://" + source
	}
	u, err := url.Parse(source)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" {
		return nil, invalid("import from %s: give an http or https address, or the archive itself", source)
	}
	req, err := http.NewRequestWithContext(r.Context(), http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, invalid("import from %s: %v", source, err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, classed(errdefs.ErrUnavailable, "import from %s: %v", source, err)
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		if resp.StatusCode == http.StatusNotFound {
			return nil, classed(errdefs.ErrNotFound, "import from %s: the server has no such file", source)
		}
		return nil, invalid("import from %s: the server says %s", source, resp.Status)
	}
	return resp.Body, nil
}

func (t *transferRoutes) load(w http.ResponseWriter, r *http.Request) error {
	q := queryOf(r)
	list, err := q.platforms()
	if err != nil {
		return err
	}
	m := &messages{w: w}
	o := images.TransferOptions{Progress: m.progress, Platforms: list}
	if q.yes("quiet") {
		o.Progress = func(p images.Progress) {
			if strings.HasPrefix(p.Status, "Loaded image") {
				m.progress(p)
			}
		}
	}
	err = t.s.Load(r.Context(), r.Body, o)
	if err != nil {
		m.begin() // an archive that is none is told of in the stream too: docker-py looks for it there
	}
	return m.end(err)
}

func (t *transferRoutes) push(w http.ResponseWriter, r *http.Request, name string) error {
	q := queryOf(r)
	platform, err := q.platform()
	if err != nil {
		return err
	}
	auth, err := registryAuth(r)
	if err != nil {
		return err
	}
	m := &messages{w: w}
	ref := joinReference(name, q.Get("tag"))
	return m.end(t.s.Push(r.Context(), ref, images.TransferOptions{
		Platform: platform, AllTags: !named(ref), Auth: auth, Progress: m.progress,
	}))
}

func (t *transferRoutes) tag(w http.ResponseWriter, r *http.Request, name string) error {
	q := queryOf(r)
	if q.Get("repo") == "" {
		return invalid("tag %s: query parameter repo is missing", name)
	}
	if err := t.s.Tag(r.Context(), name, joinReference(q.Get("repo"), q.Get("tag"))); err != nil {
		return err
	}
	w.WriteHeader(http.StatusCreated)
	return nil
}

func (t *transferRoutes) login(w http.ResponseWriter, r *http.Request) error {
	var a registry.AuthConfig
	if err := decodeBody(w, r, &a); err != nil {
		return err
	}
	out, err := t.s.Login(r.Context(), a)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, out)
}

func (t *transferRoutes) distribution(w http.ResponseWriter, r *http.Request, name string) error {
	auth, err := registryAuth(r)
	if err != nil {
		return err
	}
	out, err := t.s.Distribution(r.Context(), name, auth)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, out)
}
