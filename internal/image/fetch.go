package image

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"wherry.dev/wherry/internal/registry"
)

// blob fetches one piece of content, verified by size and digest; a broken connection is taken up where it stopped. Of all pulls that
// want it, one fetches it. Addresses of the image's making ("urls") are never asked.
func (p *pull) blob(ctx context.Context, d ocispec.Descriptor) error {
	return p.blobInto(ctx, p.s.content, d)
}

// blobInto does so by a writer of into's, which is the content store or stands before it.
func (p *pull) blobInto(ctx context.Context, into content.Ingester, d ocispec.Descriptor) error {
	if err := d.Digest.Validate(); err != nil {
		return fmt.Errorf("digest %q: %w: %w", d.Digest, err, errdefs.ErrInvalidArgument)
	}
	d.URLs, d.Data = nil, nil
	unlock, err := p.s.transfers.lock(ctx, d.Digest.String())
	if err != nil {
		return err
	}
	defer unlock()
	if err := p.mend(ctx, d); err != nil {
		return err
	}
	if d.Size == 0 {
		return p.nothing(ctx, into, d)
	}
	return p.s.registries.Retry(ctx, func(wait time.Duration, err error) { p.o.say(short(d), "Retrying in %s: %s", wait, err) }, func() error {
		_, begun := p.s.content.Status(ctx, remotes.MakeRefKey(ctx, d))
		err := p.fetch(ctx, into, d)
		// What was here from before may have come to harm on this disk, or a mirror has sent something else.
		for registry.IsOther(err) && (begun == nil || p.fetcher.Distrust(d.Digest)) {
			begun = err
			err = p.fetch(ctx, into, d)
		}
		return err
	})
}

// nothing brings content of no bytes, for which no registry has to be asked: there is one for each kind of digest.
func (p *pull) nothing(ctx context.Context, into content.Ingester, d ocispec.Descriptor) error {
	if d.Digest.Algorithm().FromBytes(nil) != d.Digest {
		return fmt.Errorf("%s is said to have 0 bytes, and is the digest of others: %w", d.Digest, errdefs.ErrInvalidArgument)
	}
	return content.WriteBlob(ctx, into, remotes.MakeRefKey(ctx, d), bytes.NewReader(nil), d)
}

func (p *pull) fetch(ctx context.Context, into content.Ingester, d ocispec.Descriptor) error {
	err := remotes.Fetch(ctx, into, p.fetcher, d)
	if err == nil || errdefs.IsAlreadyExists(err) {
		return p.s.labelChildren(ctx, d)
	}
	if registry.IsOther(err) {
		// The bytes are not what the digest says: those that are here are no ground to go on from.
		_ = p.s.content.Abort(context.WithoutCancel(ctx), remotes.MakeRefKey(ctx, d))
		return fmt.Errorf("the registry sends other content than the digest and size say: %w", err)
	}
	return err
}

// mend drops what is here but damaged, so that it is fetched anew: files that a crash or a failing disk has cut short, and small ones with
// other content.
func (p *pull) mend(ctx context.Context, d ocispec.Descriptor) error {
	if _, err := p.s.content.Info(ctx, d.Digest); err != nil {
		return nil
	}
	info, err := p.s.backend.Info(ctx, d.Digest)
	if err == nil && info.Size == d.Size && (d.Size > maxJSON || p.s.verify(ctx, d) == nil) {
		return nil
	}
	if err == nil && info.Size != d.Size && p.s.verify(ctx, ocispec.Descriptor{Digest: d.Digest, Size: info.Size}) == nil {
		return fmt.Errorf("%s has %d bytes, the manifest says %d: %w", d.Digest, info.Size, d.Size, errdefs.ErrInvalidArgument)
	}
	p.s.forgetLayers()
	return p.s.discard(ctx, d.Digest)
}
