package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"wherry.dev/wherry/internal/ref"
	"wherry.dev/wherry/internal/registry"
)

// copying brings manifests and what is below them into a repository. What is not here comes from a registry, and only what the other has
// not, nor can have lent from a neighbour.
type copying struct {
	s    *Service
	o    *TransferOptions
	to   *registry.Target
	dest ref.Reference
	from func(context.Context, ocispec.Descriptor) (*pull, error) // where a manifest that is not here, or its parts, come from

	mu   sync.Mutex // guards what follows
	seen map[digest.Digest]bool
}

// tree copies what is below a manifest or index, and then itself: a registry takes none whose parts it has not.
func (c *copying) tree(ctx context.Context, d ocispec.Descriptor, tag string, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("index %s is nested too deep: %w", d.Digest, errdefs.ErrInvalidArgument)
	}
	if tag == "" {
		if !c.first(d.Digest) {
			return nil
		}
		if there, err := c.to.Has(ctx, d.Digest); err != nil || there {
			return err
		}
	}
	from, err := c.from(ctx, d)
	if err != nil {
		return err
	}
	if err := from.manifestHere(ctx, d); err != nil {
		return err
	}
	b, err := c.s.small(ctx, d)
	if err != nil {
		return err
	}
	children, err := c.s.children(ctx, d)
	if err != nil {
		return err
	}
	g, beside := errgroup.WithContext(ctx)
	g.SetLimit(5)
	for _, child := range children {
		switch {
		case isManifest(child):
			err = c.tree(ctx, child, "", depth+1)
		case images.IsNonDistributable(child.MediaType):
		case c.first(child.Digest):
			g.Go(func() error { return c.blob(beside, from, child) })
		}
		if err != nil {
			return err
		}
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return c.to.Manifest(ctx, d, b, tag)
}

// first says whether a part has not been seen to yet.
func (c *copying) first(d digest.Digest) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	seen := c.seen[d]
	c.seen[d] = true
	return !seen
}

func (c *copying) blob(ctx context.Context, from *pull, d ocispec.Descriptor) error {
	lender := ""
	if from.fetcher != nil && from.ref.Domain == c.dest.Domain && from.ref.Path != c.dest.Path {
		lender = from.ref.Path
	}
	// What the other side has already is not even fetched.
	var opened content.ReaderAt
	existed, err := c.to.Blob(ctx, d, lender, func() (io.Reader, error) {
		if err := from.here(ctx, d); err != nil {
			return nil, err
		}
		r, err := c.s.content.ReaderAt(ctx, d)
		if err != nil {
			return nil, err
		}
		if opened != nil { // tried before
			err = opened.Close()
		}
		opened = r
		return io.NewSectionReader(r, 0, r.Size()), err
	})
	if opened != nil {
		err = errors.Join(err, opened.Close())
	}
	switch {
	case err != nil:
		return err
	case existed:
		c.o.say(short(d), "Already exists")
	default:
		c.o.say(short(d), "Copied")
	}
	return nil
}

// manifestHere sees to it that a manifest or index is in the store.
func (p *pull) manifestHere(ctx context.Context, d ocispec.Descriptor) error {
	if d.Size > maxJSON {
		return fmt.Errorf("manifest %s has %d bytes, 8 MiB are the most: %w", d.Digest, d.Size, errdefs.ErrInvalidArgument)
	}
	return p.here(ctx, d)
}

// here fetches content that is not in the store.
func (p *pull) here(ctx context.Context, d ocispec.Descriptor) error {
	if p.fetcher != nil {
		return p.blob(ctx, d)
	}
	if !p.s.here(ctx, d) {
		return fmt.Errorf("%s is not here, and it is not known where it comes from: pull it first: %w", d.Digest, errdefs.ErrNotFound)
	}
	return nil
}
