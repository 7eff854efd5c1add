package docker

import (
	"net/http"
	"strconv"

	"github.com/moby/moby/api/types/registry"

	images "wherry.dev/wherry/internal/image"
)

// search answers with what a registry finds; filters choose among that.
func (i *imageRoutes) search(w http.ResponseWriter, r *http.Request) error {
	q := queryOf(r)
	filters, err := q.filters()
	if err != nil {
		return err
	}
	keep, err := searchFilter(filters)
	if err != nil {
		return err
	}
	limit, err := q.number("limit", 25)
	if err != nil {
		return err
	}
	if limit < 1 || limit > 100 {
		return invalid("limit %d is outside the range of [1, 100]", limit)
	}
	auth, err := registryAuth(r)
	if err != nil {
		return err
	}
	found, err := images.Search(r.Context(), i.s, q.Get("term"), limit, auth)
	if err != nil {
		return err
	}
	out := []registry.SearchResult{}
	for _, f := range found {
		if keep(f) {
			out = append(out, f)
		}
	}
	return writeJSON(w, http.StatusOK, out)
}

// searchFilter reads is-official, is-automated (which nothing is any more) and stars.
func searchFilter(filters map[string]map[string]bool) (func(registry.SearchResult) bool, error) {
	stars := 0
	want := map[string]*bool{"is-official": nil, "is-automated": nil}
	for name, values := range filters {
		for v := range values {
			switch name {
			case "is-official", "is-automated":
				yes, err := strconv.ParseBool(v)
				if err != nil || len(values) > 1 {
					return nil, invalid("invalid filter '%s=%s': true or false is known", name, v)
				}
				want[name] = &yes
			case "stars":
				n, err := strconv.Atoi(v)
				if err != nil {
					return nil, invalid("invalid filter 'stars=%s': a number is known", v)
				}
				stars = max(stars, n)
			default:
				return nil, invalid("invalid filter '%s': is-automated, is-official and stars are known", name)
			}
		}
	}
	return func(r registry.SearchResult) bool {
		official, automated := want["is-official"], want["is-automated"]
		return r.StarCount >= stars && (official == nil || *official == r.IsOfficial) && (automated == nil || !*automated)
	}, nil
}

// attestations are of one platform's image.
func (i *imageRoutes) attestations(w http.ResponseWriter, r *http.Request, name string) error {
	q := queryOf(r)
	platforms, err := q.platforms()
	if err != nil {
		return err
	}
	o := images.AttestationOptions{Types: q.Values["type"], Statements: q.yes("statement")}
	switch len(platforms) {
	case 0:
	case 1:
		o.Platform = &platforms[0]
	default:
		return invalid("only one platform value is currently supported: %d were given", len(platforms))
	}
	list, err := images.Attestations(r.Context(), i.s, name, o)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, list)
}
