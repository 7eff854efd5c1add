package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Target is a repository that content is brought into from readers. Safe for many goroutines.
type Target struct{ c *Client }

// Target writes into the client's repository.
func (c *Client) Target() *Target { return &Target{c} }

// Has says whether the repository has a manifest or index.
func (t *Target) Has(ctx context.Context, d digest.Digest) (bool, error) {
	p, err := t.c.Pusher(ctx)
	if err != nil {
		return false, err
	}
	return p.Has(ctx, d)
}

// Manifest puts a manifest or index under a tag, or under its digest where tag is "". What it refers to has to be there.
func (t *Target) Manifest(ctx context.Context, d ocispec.Descriptor, b []byte, tag string) error {
	p, err := t.c.Pusher(ctx)
	if err != nil {
		return err
	}
	return p.Manifest(ctx, d, b, tag)
}

// Blob brings a piece of content into the repository. It is opened only when the repository has it not, nor can have it lent from one of
// the same registry; and again when it has to be read anew. existed: it was not sent.
func (t *Target) Blob(ctx context.Context, d ocispec.Descriptor, lender string, open func() (io.Reader, error)) (existed bool, err error) {
	p, err := t.c.Pusher(ctx)
	if err != nil {
		return false, err
	}
	u := Upload{Descriptor: d, Content: &reopened{open: open}}
	if lender != "" {
		u.From = func() []string { return []string{lender} }
	}
	how, err := p.Blob(ctx, u)
	return how.Existed || how.Mounted != "", err
}

// reopened reads forward, and opens its content again to go back. For one reader at a time.
type reopened struct {
	open func() (io.Reader, error)

	mu sync.Mutex // guards what follows
	r  io.Reader  // nil: not open
	at int64
}

func (r *reopened) ReadAt(p []byte, at int64) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.r == nil || at < r.at {
		opened, err := r.open()
		if err != nil {
			return 0, err
		}
		r.r, r.at = opened, 0
	}
	if _, err := io.CopyN(io.Discard, r.r, at-r.at); err != nil {
		return 0, err
	}
	n, err := io.ReadFull(r.r, p)
	r.at = at + int64(n)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = io.EOF
	}
	return n, err
}

// referrersPage asks for a page of the list of referrers. errdefs.ErrNotFound: the registry does not have this API.
func (c *Client) referrersPage(ctx context.Context, subject digest.Digest, query url.Values) (*http.Response, error) {
	endpoints, err := c.able(docker.HostCapabilityReferrers)
	if err != nil {
		return nil, err
	}
	return first(endpoints, func(e *endpoint) (*http.Response, error) {
		r := e.at(http.MethodGet, "referrers", subject.String())
		q := r.url.Query()
		maps.Copy(q, query)
		r.url.RawQuery = q.Encode()
		return e.ask(ctx, r, http.StatusOK)
	})
}

// tagged reads the manifest or index under a tag.
func (c *Client) tagged(ctx context.Context, tag string) (ocispec.Descriptor, io.ReadCloser, error) {
	other := *c
	other.Ref.Tag, other.Ref.Digest = tag, ""
	d, err := other.Resolve(ctx)
	if err != nil {
		return d, nil, err
	}
	if strings.TrimSpace(d.MediaType) == "" {
		return d, nil, fmt.Errorf("tag %s: the registry says no type: %w", tag, errdefs.ErrInvalidArgument)
	}
	f, err := other.Fetcher(ctx)
	if err != nil {
		return d, nil, err
	}
	r, err := f.Fetch(ctx, d)
	return d, r, err
}
