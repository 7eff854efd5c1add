package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	registrytypes "github.com/moby/moby/api/types/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"wherry.dev/wherry/internal/ref"
	"wherry.dev/wherry/internal/registry"
)

// damagedDir keeps what was damaged, for whoever wants to look at it.
const damagedDir = "damaged"

// refetch brings a damaged blob from one of the repositories whose images have it.
//
// What nobody has any more: a layer is set aside, so that a pull brings it anew; the image runs on from what is unpacked. A manifest or config
// stays: with it would go what it keeps from being collected, and it is held against its digest whenever it is read.
func (c *check) refetch(ctx context.Context, d ocispec.Descriptor) error {
	failed := errors.New("no image says which registry it came from")
	for i, name := range slices.Compact(slices.Sorted(slices.Values(c.repositories[d.Digest]))) {
		r, err := ref.Parse(name)
		if err == nil {
			err = c.fetchFrom(ctx, r, d)
		}
		if err == nil {
			return nil
		}
		err = registry.Explain("fetch from "+r.FamiliarName(), r.Domain, err)
		if i == 0 {
			failed = err
		} else {
			failed = errors.Join(failed, err)
		}
	}
	if images.IsLayerType(d.MediaType) && c.s.here(ctx, d) {
		if err := c.setAside(d); err != nil {
			return err
		}
		c.s.forgetLayers()
		if err := c.s.discard(ctx, d.Digest); err != nil {
			return err
		}
	}
	return fmt.Errorf("%w; pull or load the image again", failed)
}

func (c *check) fetchFrom(ctx context.Context, r ref.Reference, d ocispec.Descriptor) error {
	var auth *registrytypes.AuthConfig
	if c.o.Auth != nil {
		auth = c.o.Auth(r.Domain)
	}
	fetcher, err := c.s.registries.Client(ctx, r, auth).Fetcher(ctx)
	if err != nil {
		return err
	}
	if c.s.here(ctx, d) {
		return c.replace(ctx, fetcher, d)
	}
	p := &pull{s: c.s, ref: r, fetcher: fetcher}
	if err := p.blob(ctx, d); err != nil {
		return err
	}
	c.holdBlob(ctx, d.Digest)
	return c.keepLayers(ctx, d)
}

// replace puts what the registry has in the place of a blob's file, once it has been verified: data → sync → rename. The database's record of
// the blob stays, with all that it keeps.
func (c *check) replace(ctx context.Context, from *registry.Fetcher, d ocispec.Descriptor) error {
	d.URLs, d.Data = nil, nil
	for {
		err := c.replaceFrom(ctx, from, d)
		if !registry.IsOther(err) || !from.Distrust(d.Digest) {
			return err
		}
	}
}

func (c *check) replaceFrom(ctx context.Context, from *registry.Fetcher, d ocispec.Descriptor) error {
	r, err := from.Open(ctx, d, 0)
	if err != nil {
		return err
	}
	defer r.Close()
	scratch := filepath.Join(c.s.root, scratchDir)
	if err := os.MkdirAll(scratch, 0o700); err != nil {
		return err
	}
	path := filepath.Join(scratch, "blob")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer os.Remove(path)
	sum := d.Digest.Verifier()
	n, err := io.Copy(io.MultiWriter(f, sum), io.LimitReader(r, d.Size+1))
	if err == nil && (n != d.Size || !sum.Verified()) {
		err = fmt.Errorf("the registry sends other content than the digest and size say: %w", errdefs.ErrFailedPrecondition)
	}
	if err = errors.Join(err, f.Chmod(0o444), f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := c.setAside(d); err != nil {
		return err
	}
	to := c.file(d.Digest)
	if err := os.Rename(path, to); err != nil {
		return fmt.Errorf("put the blob in its place: %w", err)
	}
	return syncFS(filepath.Dir(to))
}

func (c *check) file(d digest.Digest) string {
	return filepath.Join(c.s.root, "content", "blobs", d.Algorithm().String(), d.Encoded())
}

// keepLayers has a config that is here anew keep the image's layers, as it did before.
func (c *check) keepLayers(ctx context.Context, d ocispec.Descriptor) error {
	for _, m := range c.manifests() {
		doc, err := c.s.manifest(ctx, m)
		if err != nil || doc.Config.Digest != d.Digest {
			continue
		}
		_, diffs, err := c.s.checkImage(ctx, m)
		if err != nil {
			continue
		}
		chain := chainID(diffs)
		if _, err := c.s.snaps.Stat(ctx, chain); err == nil {
			return c.s.pin(ctx, d.Digest, digest.Digest(chain))
		}
	}
	return nil
}

// setAside gives a blob's file a name in <root>/damaged beside its own.
func (c *check) setAside(d ocispec.Descriptor) error {
	dir := filepath.Join(c.s.root, damagedDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	err := os.Link(c.file(d.Digest), filepath.Join(dir, d.Digest.Algorithm().String()+"-"+d.Digest.Encoded()))
	if err != nil && !os.IsExist(err) && !os.IsNotExist(err) {
		return fmt.Errorf("set the damaged blob aside: %w", err)
	}
	return nil
}
