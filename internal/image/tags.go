package image

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/registry"

	"wherry.dev/wherry/internal/ref"
)

// maxTags of one repository are pulled with --all-tags; more is a mistake.
const maxTags = 10_000

// tags lists a repository's tags.
func (s *Service) tags(ctx context.Context, r ref.Reference, a *registry.AuthConfig) ([]string, error) {
	guard := &originGuard{origin: registryHost(r.Domain), next: transport()}
	list, err := s.hosts(ctx, r.Domain, guard)
	if err != nil {
		return nil, err
	}
	client := *list[0].Client
	client.Timeout = 60 * time.Second
	pages := tagPages{
		client: &client, scope: "repository:" + r.Path + ":pull",
		authorizer: docker.NewDockerAuthorizer(docker.WithAuthClient(&client), docker.WithAuthCreds(credentialsOf(a))),
	}
	var tags []string
	next := &url.URL{Scheme: list[0].Scheme, Host: list[0].Host, Path: "/v2/" + r.Path + "/tags/list"}
	for next != nil {
		var page []string
		if page, next, err = pages.get(ctx, next); err != nil {
			return nil, err
		}
		if tags = append(tags, page...); len(tags) > maxTags {
			return nil, fmt.Errorf("the repository has more than %d tags: pull those that you need by name: %w", maxTags, errdefs.ErrInvalidArgument)
		}
	}
	return tags, nil
}

// tagPages reads a list that a registry may hand out in parts (distribution specification, "Listing Tags").
type tagPages struct {
	client     *http.Client
	authorizer docker.Authorizer
	scope      string
	refused    []*http.Response // what the authorizer learns from
}

func (p *tagPages) get(ctx context.Context, address *url.URL) (tags []string, next *url.URL, err error) {
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, address.String(), nil)
		if err != nil {
			return nil, nil, err
		}
		_ = p.authorizer.Authorize(docker.WithScope(ctx, p.scope), req) // without, the registry says what it wants
		resp, err := p.client.Do(req)
		if err != nil {
			return nil, nil, err
		}
		if resp.StatusCode == http.StatusOK {
			return readTags(resp, address)
		}
		resp.Body.Close()
		p.refused = append(p.refused, resp)
		switch {
		case resp.StatusCode == http.StatusNotFound:
			return nil, nil, errdefs.ErrNotFound
		case resp.StatusCode != http.StatusUnauthorized:
			return nil, nil, fmt.Errorf("the registry answers %s", resp.Status)
		case len(p.refused) > 1 || p.authorizer.AddResponses(ctx, p.refused) != nil:
			return nil, nil, errdefs.ErrUnauthenticated
		}
	}
}

// readTags gives a page's tags and the address of the next page, which has to be the same registry's.
func readTags(resp *http.Response, address *url.URL) ([]string, *url.URL, error) {
	defer resp.Body.Close()
	var list struct{ Tags []string }
	if err := json.NewDecoder(io.LimitReader(resp.Body, 16<<20)).Decode(&list); err != nil {
		return nil, nil, fmt.Errorf("read the list of tags: %w", err)
	}
	link, rel, _ := strings.Cut(resp.Header.Get("Link"), ";")
	if len(list.Tags) == 0 || !strings.Contains(rel, "next") {
		return list.Tags, nil, nil
	}
	next, err := address.Parse(strings.Trim(link, " <>"))
	if err != nil || next.Host != address.Host || next.Scheme != address.Scheme {
		return nil, nil, fmt.Errorf("the registry names %s as the next page of its tags: refused", link)
	}
	return list.Tags, next, nil
}
