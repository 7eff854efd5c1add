package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	// maxReferrers of one manifest are read; more is a registry that has no end.
	maxReferrers = 10_000

	// maxReferrersPage is the most that a page of them, or the index in their place, may have; and what is kept of all pages.
	maxReferrersPage = 8 << 20
)

// errNoReferrers says that a registry does not have the referrers API.
var errNoReferrers = fmt.Errorf("the registry has no referrers API: %w", errdefs.ErrNotFound)

// Referrers lists the manifests that have subject as their subject, of one artifact type or of all (""). Where the registry does not have
// the referrers API it reads the tag that clients keep in its place.
// https://github.com/opencontainers/distribution-spec/blob/main/spec.md#listing-referrers
func (c *Client) Referrers(ctx context.Context, subject digest.Digest, artifactType string) ([]ocispec.Descriptor, error) {
	if err := subject.Validate(); err != nil {
		return nil, fmt.Errorf("digest %q: %w: %w", clip(subject.String()), err, errdefs.ErrInvalidArgument)
	}
	endpoints, err := c.able(docker.HostCapabilityReferrers)
	if err != nil {
		return nil, err
	}
	list, err := first(endpoints, func(e *endpoint) ([]ocispec.Descriptor, error) { return e.referrers(ctx, subject, artifactType) })
	if errors.Is(err, errNoReferrers) {
		list, err = c.taggedReferrers(ctx, subject)
	}
	var out []ocispec.Descriptor
	for _, d := range list {
		if artifactType == "" || d.ArtifactType == artifactType { // registries need not filter
			out = append(out, d)
		}
	}
	return out, err
}

// referrers reads the pages of one host's list.
func (e *endpoint) referrers(ctx context.Context, subject digest.Digest, artifactType string) ([]ocispec.Descriptor, error) {
	query := url.Values{}
	if artifactType != "" {
		query.Set("artifactType", artifactType)
	}
	var all []ocispec.Descriptor
	kept := 0
	for range maxPages {
		resp, err := e.referrersPage(ctx, subject, query)
		if err != nil {
			return nil, err
		}
		page, next, err := readReferrers(resp)
		if err != nil {
			return nil, err
		}
		for _, d := range page {
			kept += weight(d)
		}
		if all = append(all, page...); len(all) > maxReferrers || kept > maxReferrersPage {
			break
		}
		if next == nil {
			return all, nil
		}
		query = next
	}
	return nil, fmt.Errorf("%s has more than %d referrers, or too much is said of them: %w", subject, maxReferrers, errdefs.ErrInvalidArgument)
}

// weight is about what a descriptor takes in memory.
func weight(d ocispec.Descriptor) int {
	n := 256 + len(d.MediaType) + len(d.ArtifactType)
	for key, value := range d.Annotations {
		n += 32 + len(key) + len(value)
	}
	return n
}

// referrersPage asks for a page of the list of referrers.
func (e *endpoint) referrersPage(ctx context.Context, subject digest.Digest, query url.Values) (*http.Response, error) {
	r := e.at(http.MethodGet, "referrers", subject.String())
	e.query(&r, query)
	resp, err := e.ask(ctx, r, http.StatusOK)
	if statusOf(err) == http.StatusNotFound {
		return nil, errNoReferrers
	}
	return resp, err
}

// readReferrers gives a page and the query of the next one, which has to be the same registry's.
func readReferrers(resp *http.Response) ([]ocispec.Descriptor, url.Values, error) {
	defer resp.Body.Close()
	if t, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type")); err != nil || t != ocispec.MediaTypeImageIndex {
		return nil, nil, errNoReferrers // some answer with a page for people
	}
	list, seen, err := readReferrersIndex(resp.Body)
	if err != nil {
		return nil, nil, fmt.Errorf("read the list of referrers: %w", err)
	}
	next, err := nextPage(resp, seen == 0)
	if err != nil {
		return nil, nil, err
	}
	return list, next, nil
}

// readReferrersIndex reads an index of a stranger's, whose entries are to be manifests: those that are, and how many there were.
func readReferrersIndex(r io.Reader) (list []ocispec.Descriptor, seen int, err error) {
	_, err = readIndex(r, func(entry json.RawMessage) error {
		if seen++; seen > maxReferrers {
			return fmt.Errorf("it has more than %d entries: %w", maxReferrers, errdefs.ErrInvalidArgument)
		}
		var d ocispec.Descriptor
		if err := json.Unmarshal(entry, &d); err != nil {
			return fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
		}
		if d.Digest.Validate() == nil && isManifest(d.MediaType) && d.Size > 0 && d.Size <= MaxManifest {
			list = append(list, ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size, ArtifactType: d.ArtifactType, Annotations: d.Annotations})
		}
		return nil
	})
	if err != nil {
		return nil, 0, err
	}
	return list, seen, nil
}

// readIndex gives the entries of an index one after the other, so that a small text is not a large list, and what else it says.
func readIndex(r io.Reader, each func(json.RawMessage) error) (map[string]json.RawMessage, error) {
	limited := &io.LimitedReader{R: r, N: maxReferrersPage + 1}
	d := json.NewDecoder(limited)
	rest := map[string]json.RawMessage{}
	err := expect(d, '{')
	for err == nil && d.More() {
		err = readMember(d, rest, each)
	}
	if err == nil {
		err = expect(d, '}')
	}
	if limited.N <= 0 {
		return nil, fmt.Errorf("it has more than %d MiB: %w", maxReferrersPage>>20, errdefs.ErrInvalidArgument)
	}
	return rest, err
}

func readMember(d *json.Decoder, rest map[string]json.RawMessage, each func(json.RawMessage) error) error {
	t, err := d.Token()
	if err != nil {
		return badJSON(err)
	}
	key, _ := t.(string)
	if key != "manifests" {
		if len(rest) >= 100 {
			return fmt.Errorf("it has more than 100 parts: %w", errdefs.ErrInvalidArgument)
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return badJSON(err)
		}
		rest[key] = value
		return nil
	}
	if t, err = d.Token(); t == nil && err == nil {
		return nil
	}
	if t != json.Delim('[') {
		return badJSON(err)
	}
	for d.More() {
		var entry json.RawMessage
		if err := d.Decode(&entry); err != nil {
			return badJSON(err)
		}
		if err := each(entry); err != nil {
			return err
		}
	}
	return expect(d, ']')
}

func expect(d *json.Decoder, want json.Delim) error {
	t, err := d.Token()
	if err == nil && t == want {
		return nil
	}
	return badJSON(err)
}

// badJSON classes what is wrong with a text: a connection that breaks in its middle is another thing.
func badJSON(err error) error {
	var syntax *json.SyntaxError
	switch {
	case err == nil:
		return fmt.Errorf("it is no index: %w", errdefs.ErrInvalidArgument)
	case errors.As(err, &syntax), errors.Is(err, io.EOF):
		return fmt.Errorf("it is no index: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	return err
}

// referrersTag is the tag that stands in the place of the referrers API.
// https://github.com/opencontainers/distribution-spec/blob/main/spec.md#referrers-tag-schema
func referrersTag(subject digest.Digest) string {
	return strings.ReplaceAll(subject.String(), ":", "-")
}

func (c *Client) taggedReferrers(ctx context.Context, subject digest.Digest) ([]ocispec.Descriptor, error) {
	tagged := c.Tagged(referrersTag(subject))
	d, err := tagged.Resolve(ctx)
	if errdefs.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if d.MediaType != ocispec.MediaTypeImageIndex {
		return nil, nil // somebody's tag of that name
	}
	f, err := tagged.Fetcher(ctx)
	if err != nil {
		return nil, err
	}
	r, err := f.Fetch(ctx, d)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	list, _, err := readReferrersIndex(r)
	if err != nil {
		return nil, fmt.Errorf("read the list of referrers: %w", err)
	}
	return list, nil
}
