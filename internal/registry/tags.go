package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strings"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"
)

// maxTags of one repository are pulled with --all-tags; more is a mistake.
const maxTags = 10_000

// maxPages is how many parts a list of them may have.
const maxPages = 1000

// Tags lists a repository's tags, which a registry may hand out in parts.
// https://github.com/opencontainers/distribution-spec/blob/main/spec.md#listing-tags
func (c *Client) Tags(ctx context.Context) ([]string, error) {
	endpoints, err := c.able(docker.HostCapabilityResolve)
	if err != nil {
		return nil, err
	}
	return first(endpoints, func(e *endpoint) ([]string, error) { return e.tags(ctx) })
}

func (e *endpoint) tags(ctx context.Context) ([]string, error) {
	var tags []string
	r := e.at(http.MethodGet, "tags", "list")
	for pages := 0; ; pages++ {
		resp, err := e.ask(ctx, r, http.StatusOK)
		if err != nil {
			return nil, err
		}
		page, query, err := readTags(resp)
		if err != nil {
			return nil, err
		}
		if tags = append(tags, page...); len(tags) > maxTags || pages > maxPages {
			return nil, fmt.Errorf("the repository has more than %d tags: pull those that you need by name: %w", maxTags, errdefs.ErrInvalidArgument)
		}
		if query == nil {
			return tags, nil
		}
		e.query(&r, query)
	}
}

// query puts the query of a next page on a request; a mirror goes on to be told whose repository it is.
func (e *endpoint) query(r *request, q url.Values) {
	q = maps.Clone(q)
	if e.ns != "" {
		if q == nil {
			q = url.Values{}
		}
		q.Set("ns", e.ns)
	}
	r.url.RawQuery = q.Encode()
}

const (
	// maxTagPage is the most that a part may have.
	maxTagPage = 2 << 20

	// maxTag is the longest that a tag may be. https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pulling-manifests
	maxTag = 128
)

// readTags gives a page's tags and the query of the next page, which has to be the same registry's.
func readTags(resp *http.Response) ([]string, url.Values, error) {
	defer drain(resp)
	var list struct {
		Tags []string `json:"tags"`
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxTagPage+1))
	if err == nil && len(body) > maxTagPage {
		err = fmt.Errorf("it has more than %d bytes: %w", maxTagPage, errdefs.ErrInvalidArgument)
	}
	if err == nil {
		err = json.Unmarshal(body, &list)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("read the list of tags: %w", err)
	}
	next, err := nextPage(resp, len(list.Tags) == 0)
	if err != nil {
		return nil, nil, err
	}
	for _, tag := range list.Tags {
		if len(tag) > maxTag {
			return nil, nil, fmt.Errorf("the registry names %q as a tag: %w", clip(tag), errdefs.ErrInvalidArgument)
		}
	}
	return list.Tags, next, nil
}

// nextPage gives the query of a list's next page, nil for none. It has to be of the same list; an empty page that names itself is the last.
func nextPage(resp *http.Response, empty bool) (url.Values, error) {
	link := nextLink(resp.Header.Get("Link"))
	if link == "" {
		return nil, nil
	}
	here := resp.Request.URL
	next, err := here.Parse(link)
	if err == nil && empty && sameQuery(next, here) {
		return nil, nil
	}
	if err != nil || next.Host != here.Host || next.Path != here.Path || sameQuery(next, here) {
		return nil, fmt.Errorf("the registry names %q as the next page of its list: refused: %w", clip(link), errdefs.ErrInvalidArgument)
	}
	return next.Query(), nil
}

// sameQuery compares what two addresses ask for; ns is the client's.
func sameQuery(a, b *url.URL) bool {
	p, q := a.Query(), b.Query()
	p.Del("ns")
	q.Del("ns")
	return p.Encode() == q.Encode()
}

// nextLink finds the target of rel="next" in a Link header. https://www.rfc-editor.org/rfc/rfc8288#section-3
func nextLink(s string) string {
	for {
		_, rest, ok := strings.Cut(s, "<")
		if !ok {
			return ""
		}
		target, params, ok := strings.Cut(rest, ">")
		if !ok {
			return ""
		}
		if i := strings.IndexByte(params, '<'); i >= 0 {
			params, s = params[:i], params[i:]
		} else {
			s = ""
		}
		for param := range strings.FieldsFuncSeq(params, func(r rune) bool { return r == ';' || r == ',' }) {
			key, value, _ := strings.Cut(strings.TrimSpace(param), "=")
			if strings.EqualFold(strings.TrimSpace(key), "rel") && strings.EqualFold(strings.Trim(strings.TrimSpace(value), `"`), "next") {
				return target
			}
		}
	}
}
