package registry

import (
	"context"
	"fmt"
	"io"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Tagged is the same repository's client, for another tag.
func (c *Client) Tagged(tag string) *Client {
	other := *c
	other.Ref.Tag, other.Ref.Digest = tag, ""
	return &other
}

// Referrers lists what the registry says to be about d: signatures, attestations. A registry that knows none, or keeps no such lists, has none.
func (f *Fetcher) Referrers(ctx context.Context, d digest.Digest) ([]ocispec.Descriptor, error) {
	list, err := f.c.Referrers(ctx, d, "")
	if errdefs.IsNotFound(err) {
		return nil, nil
	}
	return list, err
}

// Small reads a piece of content of at most limit bytes, and holds it against its digest.
func (f *Fetcher) Small(ctx context.Context, d ocispec.Descriptor, limit int64) ([]byte, error) {
	if err := d.Digest.Validate(); err != nil {
		return nil, fmt.Errorf("digest %q: %w: %w", d.Digest, err, errdefs.ErrInvalidArgument)
	}
	if d.Size > limit {
		return nil, fmt.Errorf("%s has %d bytes, %d are the most: %w", d.Digest, d.Size, limit, errdefs.ErrInvalidArgument)
	}
	for {
		b, err := f.small(ctx, d)
		if IsOther(err) && f.Distrust(d.Digest) {
			continue // somebody else is left
		}
		if errdefs.IsFailedPrecondition(err) {
			err = fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
		}
		return b, err
	}
}

func (f *Fetcher) small(ctx context.Context, d ocispec.Descriptor) ([]byte, error) {
	r, err := f.Fetch(ctx, d)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err == nil && d.Digest.Algorithm().FromBytes(b) != d.Digest {
		return nil, fmt.Errorf("%s: the registry sends other content than the digest says: %w", d.Digest, errdefs.ErrFailedPrecondition)
	}
	return b, err
}
