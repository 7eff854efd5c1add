package docker

import (
	"net/http"
	"strings"

	"github.com/containerd/errdefs"

	containers "wherry.dev/wherry/internal/container"
	images "wherry.dev/wherry/internal/image"
)

// imageRoutes show, name and remove images. Names hold slashes, so what can be done with one stands at the end of the path, behind it.
type imageRoutes struct {
	s          *images.Service
	containers *containers.Service
}

func (i *imageRoutes) add(add adder) {
	add("GET /images/json", i.list)
	add("GET /wherry/meaning", i.meaning)
	add("GET /wherry/images/files", i.compareFiles)
	add("GET /wherry/policy", i.policy)
	add("GET /wherry/policy/check", i.policyCheck)
	add("GET /images/search", i.search)
	add("POST /images/prune", i.prune)
	add("DELETE /images/{name...}", i.remove)
	verbs := map[string]func(http.ResponseWriter, *http.Request, string) error{
		"json": i.inspect, "history": i.history, "get": i.save, "attestations": i.attestations,
	}
	add("GET /images/get", func(w http.ResponseWriter, r *http.Request) error { return i.save(w, r, "") })
	add("GET /images/{rest...}", func(w http.ResponseWriter, r *http.Request) error { return byVerb(w, r, verbs) })
}

// byVerb parts "registry/name/verb" and calls the verb's function.
func byVerb(w http.ResponseWriter, r *http.Request, verbs map[string]func(http.ResponseWriter, *http.Request, string) error) error {
	rest := r.PathValue("rest")
	at := strings.LastIndexByte(rest, '/')
	if at <= 0 || verbs[rest[at+1:]] == nil {
		return classed(errdefs.ErrNotFound, "page not found")
	}
	return verbs[rest[at+1:]](w, r, rest[:at])
}

func (i *imageRoutes) list(w http.ResponseWriter, r *http.Request) error {
	q := queryOf(r)
	filters, err := q.filters()
	if err != nil {
		return err
	}
	v := clientVersion(r.Context())
	if v >= 1054 && q.yes("identity") && !q.yes("manifests") {
		return invalid("identity requires manifests=1: identities are those of an image's manifests")
	}
	if old := q.Get("filter"); old != "" && v < 1041 { // a reference
		filters["reference"] = map[string]bool{old: true}
	}
	list, err := i.s.List(r.Context(), images.ListOptions{
		All: q.yes("all"), SharedSize: q.yes("shared-size") && v >= 1042, Filters: filters,
		Manifests: q.yes("manifests") && v >= 1047, Identity: q.yes("identity") && v >= 1054,
	})
	if err != nil {
		return err
	}
	return writeList(w, shapeImages(v, list))
}

func (i *imageRoutes) prune(w http.ResponseWriter, r *http.Request) error {
	filters, err := queryOf(r).filters()
	if err != nil {
		return err
	}
	report, err := images.PruneNames(r.Context(), i.s, filters, func(id string) string {
		about, err := i.containers.Inspect(r.Context(), id)
		if err != nil || about.Config == nil {
			return ""
		}
		return about.Config.Image
	})
	if err != nil {
		return err
	}
	report.ImagesDeleted = orEmpty(report.ImagesDeleted)
	return writeJSON(w, http.StatusOK, report)
}

func (i *imageRoutes) remove(w http.ResponseWriter, r *http.Request) error {
	q := queryOf(r)
	name := strings.TrimSpace(r.PathValue("name"))
	if name == "" {
		return invalid("image name cannot be blank")
	}
	platforms, err := q.platforms()
	if err != nil {
		return err
	}
	list, err := i.s.Remove(r.Context(), name, images.RemoveOptions{Force: q.yes("force"), NoPrune: q.yes("noprune"), Platforms: platforms, Running: func(id string) bool {
		v, err := i.containers.View(r.Context(), id)
		if v.Init != nil {
			v.Init.Close()
		}
		return err != nil || v.Running // one that cannot be looked at may run
	}})
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, orEmpty(list))
}

func (i *imageRoutes) inspect(w http.ResponseWriter, r *http.Request, name string) error {
	q := queryOf(r)
	platform, err := q.platform()
	if err != nil {
		return err
	}
	out, err := i.s.Inspect(r.Context(), name, platform)
	if err != nil {
		return err
	}
	shaped, err := shapeImage(clientVersion(r.Context()), out, q.yes("manifests"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, shaped)
}

func (i *imageRoutes) history(w http.ResponseWriter, r *http.Request, name string) error {
	platform, err := queryOf(r).platform()
	if err != nil {
		return err
	}
	list, err := i.s.History(r.Context(), name, platform)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, orEmpty(list))
}

func (i *imageRoutes) save(w http.ResponseWriter, r *http.Request, name string) error {
	q := queryOf(r)
	platforms, err := q.platforms()
	if err != nil {
		return err
	}
	var names []string
	if name != "" {
		names = []string{name}
	}
	for _, n := range q.Values["names"] {
		if n != "" {
			names = append(names, n)
		}
	}
	if len(names) == 0 {
		return invalid("no image is named: give ?names=")
	}
	out := &lateHeader{w: w, contentType: "application/x-tar"}
	err = i.s.Save(r.Context(), names, images.SaveOptions{Platforms: platforms, Format: q.Get("format")}, bulk{out})
	if err != nil && out.began {
		panic(http.ErrAbortHandler)
	}
	return err
}
