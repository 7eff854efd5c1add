package docker

import (
	"net/http"

	"github.com/moby/moby/api/types/jsonstream"

	images "wherry.dev/wherry/internal/image"
)

// listRoutes are about lists of manifests, and manifests as registries have them. Docker's client does these things by itself, so that its
// API has no routes for them.
type listRoutes struct {
	lists     images.Lists
	manifests images.Manifests
}

func (l *listRoutes) add(add adder) {
	add("GET /wherry/manifests", l.inspect)
	add("POST /wherry/lists", l.create)
	add("DELETE /wherry/lists", l.remove)
	add("POST /wherry/lists/add", l.addTo)
	add("POST /wherry/lists/annotate", l.annotate)
	add("POST /wherry/lists/drop", l.drop)
	add("POST /wherry/lists/push", l.push)
}

// place is a repository that a request names by a parameter, with the login that came for it.
func place(r *http.Request, name string) (images.Place, error) {
	q := queryOf(r)
	auth, err := registryAuth(r)
	return images.Place{Name: q.Get(name), Auth: auth, Insecure: q.yes("insecure")}, err
}

// listed reads what is to stand in a list from a request's body and query.
func listed(w http.ResponseWriter, r *http.Request) (images.Listed, error) {
	var q images.Listed
	if err := decodeBody(w, r, &q); err != nil {
		return q, err
	}
	if q.Image == "" {
		return q, invalid("no image is named")
	}
	p, err := place(r, "")
	q.Auth, q.Insecure = p.Auth, p.Insecure
	return q, err
}

func (l *listRoutes) inspect(w http.ResponseWriter, r *http.Request) error {
	p, err := place(r, "name")
	if err != nil {
		return err
	}
	out, err := l.manifests.Inspect(r.Context(), images.Listed{Image: p.Name, Auth: p.Auth, Insecure: p.Insecure}, queryOf(r).yes("children"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, out)
}

func (l *listRoutes) create(w http.ResponseWriter, r *http.Request) error {
	q := queryOf(r)
	if err := l.lists.Create(r.Context(), q.Get("name"), q.yes("amend")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusCreated)
	return nil
}

func (l *listRoutes) remove(w http.ResponseWriter, r *http.Request) error {
	if err := l.lists.Delete(r.Context(), queryOf(r).Get("name")); err != nil {
		return err
	}
	return noContent(w)
}

func (l *listRoutes) addTo(w http.ResponseWriter, r *http.Request) error {
	q, err := listed(w, r)
	if err != nil {
		return err
	}
	digests, err := l.lists.Add(r.Context(), queryOf(r).Get("name"), q)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, map[string]any{"Digests": digests})
}

func (l *listRoutes) annotate(w http.ResponseWriter, r *http.Request) error {
	q, err := listed(w, r)
	if err != nil {
		return err
	}
	if err := l.lists.Annotate(r.Context(), queryOf(r).Get("name"), q); err != nil {
		return err
	}
	return noContent(w)
}

func (l *listRoutes) drop(w http.ResponseWriter, r *http.Request) error {
	q, err := listed(w, r)
	if err != nil {
		return err
	}
	if err := l.lists.Remove(r.Context(), queryOf(r).Get("name"), q); err != nil {
		return err
	}
	return noContent(w)
}

func (l *listRoutes) push(w http.ResponseWriter, r *http.Request) error {
	to, err := place(r, "to")
	if err != nil {
		return err
	}
	m := &messages{w: w}
	digest, err := l.lists.Push(r.Context(), queryOf(r).Get("name"), to, images.TransferOptions{Progress: m.progress})
	if err == nil {
		m.write(streamMessage{Message: jsonstream.Message{Stream: digest.String() + "\n"}})
	}
	return m.end(err)
}
