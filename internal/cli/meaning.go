package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"wherry.dev/wherry/internal/client"
)

// meaning is what the engine says that a reference means.
type meaning struct {
	Digest    digest.Digest
	Platforms map[string]digest.Digest
	Pulled    *time.Time // nil: it came from elsewhere than its registry
	Pushed    *time.Time
}

// place is where a reference is looked up.
type place struct {
	registry  bool // there; false: in the engine's store
	platforms bool // with the manifests of platforms
}

// means asks what a reference means.
func means(ctx context.Context, app *App, name string, at place) (m meaning, err error) {
	c, err := app.Client()
	if err != nil {
		return m, err
	}
	r := client.Request{Path: "/wherry/meaning", Query: url.Values{"reference": {name}}}
	if at.registry {
		r.Query.Set("registry", "1")
		r.Header = authHeader(app, splitName(name).registry)
	}
	if at.platforms {
		r.Query.Set("platforms", "1")
	}
	res, err := c.Stream(ctx, r)
	if err != nil {
		return m, err
	}
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(&m); err != nil {
		return m, fmt.Errorf("read what %s means: %w", name, err)
	}
	return m, nil
}

// found is a meaning, or why there is none.
type found struct {
	meaning
	err error
}

// meansAll looks up several references, four at a time.
func meansAll(ctx context.Context, app *App, names []string, at place) map[string]found {
	out := make(map[string]found, len(names))
	if _, err := app.Client(); err != nil { // made once, before several want it
		for _, name := range names {
			out[name] = found{err: err}
		}
		return out
	}
	var mu sync.Mutex // guards out
	var all sync.WaitGroup
	turn := make(chan struct{}, 4)
	for _, name := range names {
		turn <- struct{}{}
		all.Go(func() {
			defer func() { <-turn }()
			m, err := means(ctx, app, name, at)
			mu.Lock()
			defer mu.Unlock()
			out[name] = found{m, err}
		})
	}
	all.Wait()
	return out
}

// taggedName is a reference in full, with the tag that is implied; a digest is left out.
func taggedName(name string) string {
	n := splitName(name)
	n.tag, n.digest = cmp.Or(n.tag, "latest"), ""
	return n.String()
}

// pinnedName is a reference as it was written, with a tag and the digest that it shall mean.
func pinnedName(name string, d digest.Digest) string {
	return repository(name) + ":" + cmp.Or(splitName(name).tag, "latest") + "@" + d.String()
}

// shortDigest is as much of a digest as tells it from others on one screen.
func shortDigest(d digest.Digest) string {
	algorithm, hex, ok := strings.Cut(d.String(), ":")
	if !ok || len(hex) < 12 {
		return d.String()
	}
	return algorithm + ":" + hex[:12]
}
