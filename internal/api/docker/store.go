package docker

import (
	"cmp"
	"net/http"
	"strings"

	containers "wherry.dev/wherry/internal/container"
	images "wherry.dev/wherry/internal/image"
	"wherry.dev/wherry/internal/settings"
)

// storeRoutes are about what the image store keeps: Docker's API has none for that.
type storeRoutes struct {
	images     *images.Service
	containers *containers.Service
	cleaner    *images.Cleaner
}

func (s *storeRoutes) add(add adder) {
	add("POST /wherry/clean-up", s.cleanUp)
	add("POST /wherry/store/compact", s.compact)
	add("GET /wherry/pins", s.pins)
	add("POST /wherry/pins", s.pin)
	add("DELETE /wherry/pins", s.pin)
	add("GET /wherry/layers", s.layers)
	add("POST /wherry/store/check", s.checkStore)
}

func (s *storeRoutes) cleanUp(w http.ResponseWriter, r *http.Request) error {
	q := queryOf(r)
	o := images.CleanUpOptions{DryRun: q.yes("dry-run")}
	if to := q.Get("to"); to != "" {
		o.To = new(settings.Amount)
		if err := o.To.UnmarshalText([]byte(to)); err != nil {
			return invalid("to: %v", err)
		}
	}
	report, err := s.cleaner.CleanUp(r.Context(), o)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, report)
}

// compact drops the blobs of layers that registries have and that are unpacked.
func (s *storeRoutes) compact(w http.ResponseWriter, r *http.Request) error {
	done, err := images.Compact(r.Context(), s.images)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, done)
}

func (s *storeRoutes) pins(w http.ResponseWriter, _ *http.Request) error {
	return writeJSON(w, http.StatusOK, images.Pins(s.images))
}

func (s *storeRoutes) pin(w http.ResponseWriter, r *http.Request) error {
	if err := images.Pin(r.Context(), s.images, queryOf(r).Get("name"), r.Method == http.MethodPost); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// layers answers GET /wherry/layers: every layer that is unpacked, with who has it.
func (s *storeRoutes) layers(w http.ResponseWriter, r *http.Request) error {
	tree, err := images.Tree(r.Context(), s.images)
	if err != nil {
		return err
	}
	list, err := s.containers.List(r.Context(), containers.ListOptions{All: true})
	if err != nil {
		return err
	}
	names := map[string]string{}
	for _, c := range list {
		if len(c.Names) > 0 {
			names[c.ID] = strings.TrimPrefix(c.Names[0], "/")
		}
	}
	for _, l := range tree {
		for _, i := range l.Images {
			for n, id := range i.Containers {
				i.Containers[n] = cmp.Or(names[id], id)
			}
		}
	}
	return writeJSON(w, http.StatusOK, tree)
}
