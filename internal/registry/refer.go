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

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	// maxReferrers of one manifest are read; more is a registry that has no end.
	maxReferrers = 10_000

	// maxReferrersPage is the most that a page of them, or the index in their place, may have.
	maxReferrersPage = 8 << 20
)

// errNoReferrers says that a registry does not have the referrers API.
var errNoReferrers = errors.New("the registry has no referrers API")

// Referrers lists the manifests that have subject as their subject, of one artifact type or of all (""). Where the registry does not have
// the referrers API it reads the tag that clients keep in its place.
// https://github.com/opencontainers/distribution-spec/blob/main/spec.md#listing-referrers
func (c *Client) Referrers(ctx context.Context, subject digest.Digest, artifactType string) ([]ocispec.Descriptor, error) {
	list, err := c.referrers(ctx, subject, artifactType)
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

func (c *Client) referrers(ctx context.Context, subject digest.Digest, artifactType string) ([]ocispec.Descriptor, error) {
	if err := subject.Validate(); err != nil {
		return nil, fmt.Errorf("digest %q: %w: %w", subject, err, errdefs.ErrInvalidArgument)
	}
	query := url.Values{}
	if artifactType != "" {
		query.Set("artifactType", artifactType)
	}
	var all []ocispec.Descriptor
	for pages := 0; pages < maxReferrers && len(all) <= maxReferrers; pages++ {
		resp, err := c.referrersPage(ctx, subject, query)
		if errdefs.IsNotFound(err) {
			return nil, errNoReferrers
		}
		if err != nil {
			return nil, err
		}
		page, next, err := readReferrers(resp)
		if err != nil {
			return nil, err
		}
		all = append(all, page...)
		if next == nil {
			return all, nil
		}
		query = next
	}
	return nil, fmt.Errorf("%s has more than %d referrers: %w", subject, maxReferrers, errdefs.ErrInvalidArgument)
}

// readReferrers gives a page and the query of the next one, which has to be the same registry's.
func readReferrers(resp *http.Response) ([]ocispec.Descriptor, url.Values, error) {
	defer resp.Body.Close()
	if t, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type")); err != nil || t != ocispec.MediaTypeImageIndex {
		return nil, nil, errNoReferrers // some answer with a page for people
	}
	list, err := readReferrersIndex(resp.Body)
	if err != nil {
		return nil, nil, fmt.Errorf("read the list of referrers: %w", err)
	}
	link := nextLink(resp.Header.Get("Link"))
	if link == "" || len(list) == 0 {
		return list, nil, nil
	}
	here := resp.Request.URL
	next, err := here.Parse(link)
	if err != nil || next.Host != here.Host || next.Path != here.Path || next.RawQuery == here.RawQuery {
		return nil, nil, fmt.Errorf("the registry names %q as the next page of referrers: refused: %w", clip(link), errdefs.ErrInvalidArgument)
	}
	return list, next.Query(), nil
}

// readReferrersIndex reads an index of a stranger's, whose entries are to be manifests.
func readReferrersIndex(r io.Reader) ([]ocispec.Descriptor, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxReferrersPage+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxReferrersPage {
		return nil, fmt.Errorf("it has more than %d MiB: %w", maxReferrersPage>>20, errdefs.ErrInvalidArgument)
	}
	var x ocispec.Index
	if err := json.Unmarshal(b, &x); err != nil {
		return nil, fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	var out []ocispec.Descriptor
	for _, d := range x.Manifests {
		if d.Digest.Validate() == nil && (images.IsManifestType(d.MediaType) || images.IsIndexType(d.MediaType)) && d.Size > 0 && d.Size <= maxReferrersPage {
			d.URLs, d.Data = nil, nil
			out = append(out, d)
		}
	}
	return out, nil
}

// referrersTag is the tag that stands in the place of the referrers API.
// https://github.com/opencontainers/distribution-spec/blob/main/spec.md#referrers-tag-schema
func referrersTag(subject digest.Digest) string {
	return strings.ReplaceAll(subject.String(), ":", "-")
}

func (c *Client) taggedReferrers(ctx context.Context, subject digest.Digest) ([]ocispec.Descriptor, error) {
	d, r, err := c.tagged(ctx, referrersTag(subject))
	if errdefs.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if d.MediaType != ocispec.MediaTypeImageIndex {
		return nil, nil // somebody's tag of that name
	}
	list, err := readReferrersIndex(r)
	if err != nil {
		return nil, fmt.Errorf("read the list of referrers: %w", err)
	}
	return list, nil
}

// Refer makes a manifest that is in the repository known as a referrer of subject, where the registry does not do so by itself: it is
// added to the tag in the place of the referrers API. d names the manifest with its artifact type and annotations.
func (t *Target) Refer(ctx context.Context, subject digest.Digest, d ocispec.Descriptor) error {
	_, err := t.c.referrers(ctx, subject, "")
	if !errors.Is(err, errNoReferrers) {
		return err
	}
	list, err := t.c.taggedReferrers(ctx, subject)
	if err != nil {
		return err
	}
	for _, old := range list {
		if old.Digest == d.Digest {
			return nil
		}
	}
	x := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: append(list, d)}
	b, err := json.Marshal(x)
	if err != nil {
		return err
	}
	index := ocispec.Descriptor{MediaType: x.MediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}
	return t.Manifest(ctx, index, b, referrersTag(subject))
}
