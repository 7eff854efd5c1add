package docker

import (
	"context"
	"net/http"

	"wherry.dev/wherry/internal/compare"
	images "wherry.dev/wherry/internal/image"
)

// fileChange is a line of the answer to GET /wherry/images/files. The last one may have an error, and nothing else.
type fileChange struct {
	Kind   compare.Kind `json:",omitempty"`
	Path   string       `json:",omitempty"`
	Before int64
	After  int64
	Error  string `json:",omitempty"`
}

// compareFiles answers GET /wherry/images/files?before=…&after=…[&registry=1][&platform=…]: which files differ between two images, of which
// the second is the registry's where that is asked for.
func (i *imageRoutes) compareFiles(w http.ResponseWriter, r *http.Request) error {
	q := queryOf(r)
	auth, err := registryAuth(r)
	if err != nil {
		return err
	}
	platform, err := q.platform()
	if err != nil {
		return err
	}
	o := images.StackOptions{Platform: platform}
	before, err := images.StackOf(r.Context(), i.s, q.Get("before"), o)
	if err != nil {
		return err
	}
	defer before.Close()
	o.Registry, o.Auth = q.yes("registry"), auth
	after, err := images.StackOf(r.Context(), i.s, q.Get("after"), o)
	if err != nil {
		return err
	}
	defer after.Close()
	before.Borrow(after)
	return streamChanges(r.Context(), w, before, after)
}

func streamChanges(ctx context.Context, w http.ResponseWriter, before, after *images.Stack) error {
	began := false
	of := func(s *images.Stack) compare.Image {
		return compare.Image{Diffs: s.Diffs, Lower: s.Lower, Open: s.Open}
	}
	err := compare.Compare(ctx, of(before), of(after), func(c compare.Change) error {
		if !began {
			began = true
			begin(w, "application/json")
		}
		return encode(w, fileChange{Kind: c.Kind, Path: c.Path, Before: c.Before, After: c.After})
	})
	if err != nil && began {
		return encode(w, fileChange{Error: message(err)})
	}
	if err == nil && !began {
		begin(w, "application/json")
	}
	return err
}
