package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/containerd/errdefs"
)

// maxTags of one repository are pulled with --all-tags; more is a mistake.
const maxTags = 10_000

// Tags lists a repository's tags, which a registry may hand out in parts.
// https://github.com/opencontainers/distribution-spec/blob/main/spec.md#listing-tags
func (c *Client) Tags(ctx context.Context) ([]string, error) {
	path := "/" + c.Ref.Path + "/tags/list"
	var tags []string
	query := url.Values{}
	for query != nil {
		resp, err := c.get(ctx, path, query, "repository:"+c.Ref.Path+":pull")
		if err != nil {
			return nil, err
		}
		var page []string
		if page, query, err = readTags(resp); err != nil {
			return nil, err
		}
		if tags = append(tags, page...); len(tags) > maxTags {
			return nil, fmt.Errorf("the repository has more than %d tags: pull those that you need by name: %w", maxTags, errdefs.ErrInvalidArgument)
		}
	}
	return tags, nil
}

// readTags gives a page's tags and the query of the next page, which has to be the same registry's.
func readTags(resp *http.Response) ([]string, url.Values, error) {
	defer resp.Body.Close()
	var list struct {
		Tags []string `json:"tags"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 16<<20)).Decode(&list); err != nil {
		return nil, nil, fmt.Errorf("read the list of tags: %w", err)
	}
	link, rel, _ := strings.Cut(resp.Header.Get("Link"), ";")
	if len(list.Tags) == 0 || !strings.Contains(rel, "next") {
		return list.Tags, nil, nil
	}
	here := resp.Request.URL
	next, err := here.Parse(strings.Trim(link, " <>"))
	if err != nil || next.Host != here.Host || next.Path != here.Path {
		return nil, nil, fmt.Errorf("the registry names %s as the next page of its tags: refused: %w", link, errdefs.ErrInvalidArgument)
	}
	return list.Tags, next.Query(), nil
}
