package registry

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/pkg/labels"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Target is a repository that content is brought into piece by piece. Safe for many goroutines.
type Target struct {
	c       *Client
	tracker docker.StatusTracker
}

// Target writes into the client's repository.
func (c *Client) Target() *Target { return &Target{c, docker.NewInMemoryTracker()} }

// Has says whether the repository has a manifest or index.
func (t *Target) Has(ctx context.Context, d digest.Digest) (bool, error) {
	_, _, err := t.c.resolver(nil).Resolve(ctx, t.c.Ref.Name()+"@"+d.String())
	if errdefs.IsNotFound(err) {
		return false, nil
	}
	return err == nil, err
}

// Manifest puts a manifest or index under a tag, or under its digest where tag is "". What it refers to has to be there.
func (t *Target) Manifest(ctx context.Context, d ocispec.Descriptor, b []byte, tag string) error {
	name := t.c.Ref.Name() + "@" + d.Digest.String()
	if tag != "" {
		name = t.c.Ref.Name() + ":" + tag + "@" + d.Digest.String()
	}
	return t.push(ctx, name, d, func() (io.Reader, error) { return bytes.NewReader(b), nil })
}

// Blob brings a piece of content into the repository. It is opened only when the repository has it not, nor can have it lent from one of
// the same registry. existed: it was not sent.
func (t *Target) Blob(ctx context.Context, d ocispec.Descriptor, lender string, open func() (io.Reader, error)) (existed bool, err error) {
	if lender != "" {
		d.Annotations = map[string]string{labels.LabelDistributionSource + "." + hostname(t.c.Ref.Domain): lender}
	}
	existed = true
	err = t.push(ctx, t.c.Ref.Name()+"@"+d.Digest.String(), d, func() (io.Reader, error) {
		existed = false
		return open()
	})
	return existed, err
}

func (t *Target) push(ctx context.Context, name string, d ocispec.Descriptor, open func() (io.Reader, error)) error {
	return t.c.pool.Retry(ctx, nil, func() error {
		pusher, err := t.c.resolver(t.tracker).Pusher(ctx, name)
		if err != nil {
			return err
		}
		w, err := pusher.Push(ctx, d)
		if errdefs.IsAlreadyExists(err) {
			return nil
		}
		if err != nil {
			return err
		}
		defer w.Close()
		r, err := open()
		if err != nil {
			return err
		}
		if err := content.Copy(ctx, w, r, d.Size, d.Digest); err != nil && !errdefs.IsAlreadyExists(err) {
			return err
		}
		return nil
	})
}

// referrersPage asks for a page of the list of referrers. errdefs.ErrNotFound: the registry does not have this API.
func (c *Client) referrersPage(ctx context.Context, subject digest.Digest, query url.Values) (*http.Response, error) {
	return c.get(ctx, "/"+c.Ref.Path+"/referrers/"+subject.String(), query, "repository:"+c.Ref.Path+":pull")
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
