package docker

import (
	"context"
	"encoding/json"
	"net/http"
	"sync"
	"time"

	registrytypes "github.com/moby/moby/api/types/registry"

	containers "wherry.dev/wherry/internal/container"
	images "wherry.dev/wherry/internal/image"
)

// checkLine is a line of the answer to POST /wherry/store/check: one of its fields.
type checkLine struct {
	Progress *checkProgress      `json:",omitempty"`
	Damage   *images.Damage      `json:",omitempty"`
	Report   *images.CheckReport `json:",omitempty"` // the last line
	Error    string              `json:",omitempty"` // instead of it
}

// checkProgress says what is looked at; a Total of 0 is not known.
type checkProgress struct {
	What        string
	Done, Total int64
}

// checkStore reads the whole store, and mends what it can where that is asked for.
func (s *storeRoutes) checkStore(w http.ResponseWriter, r *http.Request) error {
	q := queryOf(r)
	auths, err := parseAuths(r.Header.Get("X-Registry-Config"))
	if err != nil {
		return err
	}
	begin(w, "application/x-ndjson")
	var mu sync.Mutex
	e := json.NewEncoder(flusher{w})
	say := func(l checkLine) {
		mu.Lock()
		defer mu.Unlock()
		_ = e.Encode(l) // the client has gone: the context ends
	}
	var last time.Time
	report, err := images.Check(r.Context(), s.images, images.CheckOptions{
		Repair: q.yes("repair"), Quick: q.yes("quick"), Containers: s.lowerOf,
		Auth: func(host string) *registrytypes.AuthConfig {
			if a, ok := auths[host]; ok {
				return &a
			}
			return nil
		},
		Progress: func(what string, done, total int64) {
			if time.Since(last) > 200*time.Millisecond {
				last = time.Now()
				say(checkLine{Progress: &checkProgress{what, done, total}})
			}
		},
		Damage: func(d images.Damage) { say(checkLine{Damage: &d}) },
	})
	if err != nil {
		say(checkLine{Error: err.Error()})
		return nil
	}
	say(checkLine{Report: &report})
	return nil
}

// lowerOf are the layers that each container stands on.
func (s *storeRoutes) lowerOf(ctx context.Context) (map[string][]string, error) {
	list, err := s.containers.List(ctx, containers.ListOptions{All: true})
	if err != nil {
		return nil, err
	}
	out := map[string][]string{}
	for _, c := range list {
		v, err := s.containers.View(ctx, c.ID)
		if err != nil {
			continue // it has just been removed
		}
		if v.Init != nil {
			v.Init.Close()
		}
		out[v.Name] = v.Rootfs.Lower
	}
	return out, nil
}
