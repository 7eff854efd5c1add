package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/registry"
)

const (
	// maxFound is the most that an answer to a search may have, in bytes.
	maxFound = 8 << 20
	// catalogPages bounds how much of a catalog is looked through, at catalogPage repositories a page.
	catalogPages, catalogPage = 50, 1000
)

// Search asks the registry for repositories by a word. Docker Hub and those that have its old search answer with descriptions; of others the
// catalog is looked through, which most public ones do not show.
// https://github.com/distribution/distribution/blob/main/docs/content/spec/api.md#catalog
func (c *Client) Search(ctx context.Context, term string, limit int) ([]registry.SearchResult, error) {
	e, err := c.itself()
	if err != nil {
		return nil, err
	}
	found, err := e.search(ctx, c.Ref.Domain, term, limit)
	if errdefs.IsNotFound(err) || errdefs.IsFailedPrecondition(err) {
		found, err = e.searchCatalog(ctx, term, limit)
	}
	if c.Ref.Domain != "docker.io" {
		for i := range found {
			found[i].Name = c.Ref.Domain + "/" + strings.TrimPrefix(found[i].Name, c.Ref.Domain+"/")
		}
	}
	return found, err
}

func (e *endpoint) search(ctx context.Context, domain, term string, limit int) ([]registry.SearchResult, error) {
	u := url.URL{Scheme: e.base.Scheme, Host: e.base.Host, Path: "/v1/search"}
	if domain == "docker.io" && u.Host == registryHost(domain) {
		u.Host = "index.docker.io"
	}
	u.RawQuery = url.Values{"q": {term}, "n": {strconv.Itoa(limit)}}.Encode()
	var list registry.SearchResults
	if _, err := e.fetchJSON(ctx, &u, &list); err != nil {
		return nil, err
	}
	return list.Results[:min(limit, len(list.Results))], nil
}

func (e *endpoint) searchCatalog(ctx context.Context, term string, limit int) ([]registry.SearchResult, error) {
	u := e.base
	u.Path = path.Join(u.Path, "_catalog")
	u.RawQuery = url.Values{"n": {strconv.Itoa(catalogPage)}}.Encode()
	var found []registry.SearchResult
	for range catalogPages {
		var page struct{ Repositories []string }
		next, err := e.fetchJSON(ctx, &u, &page)
		if err != nil {
			return nil, err
		}
		for _, name := range page.Repositories {
			if strings.Contains(name, term) && len(found) < limit {
				found = append(found, registry.SearchResult{Name: name})
			}
		}
		if next == nil || len(found) == limit {
			break
		}
		u.RawQuery = next.Encode()
	}
	return found, nil
}

// fetchJSON asks for JSON, and gives the query of the next page of a list; nil: there is none.
func (e *endpoint) fetchJSON(ctx context.Context, u *url.URL, into any) (next url.Values, err error) {
	resp, err := e.ask(ctx, request{method: http.MethodGet, url: u, header: http.Header{}, scope: "registry:catalog:*"}, http.StatusOK)
	if err != nil {
		return nil, err
	}
	defer drain(resp)
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxFound+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read what was found: %w", err)
	case len(body) > maxFound:
		return nil, fmt.Errorf("what was found has more than %d bytes: search for a longer word: %w", maxFound, errdefs.ErrInvalidArgument)
	}
	if err := json.Unmarshal(body, into); err != nil {
		return nil, fmt.Errorf("read what was found: %w: %w", err, errdefs.ErrUnavailable)
	}
	return nextPage(resp, false)
}
