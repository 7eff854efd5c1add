package image

import (
	"context"
	"fmt"
	"io"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	registrytypes "github.com/moby/moby/api/types/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"wherry.dev/wherry/internal/ref"
	"wherry.dev/wherry/internal/registry"
)

// Stack is the layers of an image as streams. What is here is read here, the rest comes from the registry and is not kept.
type Stack struct {
	ID    digest.Digest   // of what the name means
	Diffs []digest.Digest // diff IDs, the lowest first
	Lower []string        // directories of the layers, topmost first; nil for an image at its registry

	layers  []ocispec.Descriptor
	s       *Service
	fetcher *registry.Fetcher
	done    func()
}

// StackOptions of StackOf.
type StackOptions struct {
	Registry bool // the image that the name means there; false: here
	Platform *ocispec.Platform
	Auth     *registrytypes.AuthConfig
}

// StackOf finds an image's layers. Close the stack after use: until then nothing of it is collected.
func StackOf(ctx context.Context, s *Service, name string, o StackOptions) (_ *Stack, err error) {
	ctx, done, err := s.lease(ctx)
	if err != nil {
		return nil, err
	}
	k := &Stack{s: s, done: done}
	defer func() {
		if err != nil {
			done()
		}
	}()
	if o.Registry {
		return k, k.fromRegistry(ctx, name, o)
	}
	img, err := s.Resolve(ctx, name, o.Platform)
	if err != nil {
		return nil, err
	}
	k.ID, k.Lower = img.ID, img.Lower
	for _, chain := range chains(img.Config.RootFS.DiffIDs) {
		if err := s.hold(ctx, chain); err != nil {
			return nil, err
		}
	}
	return k, k.describe(ctx, img.Manifest)
}

// chains are the chain IDs of a list of layers.
func chains(diffs []digest.Digest) []string {
	out := make([]string, 0, len(diffs))
	for i := range diffs {
		out = append(out, chainID(diffs[:i+1]))
	}
	return out
}

func (k *Stack) fromRegistry(ctx context.Context, name string, o StackOptions) error {
	r, err := ref.Parse(name)
	if err != nil {
		return err
	}
	explain := func(err error) error { return registry.Explain("look up "+r.Familiar(), r.Domain, err) }
	c := k.s.registries.Client(ctx, r, o.Auth)
	target, err := c.Resolve(ctx)
	if err != nil {
		return explain(err)
	}
	k.ID = target.Digest
	if k.fetcher, err = c.Fetcher(ctx); err != nil {
		return explain(err)
	}
	p := &pull{s: k.s, ref: r, fetcher: k.fetcher, o: TransferOptions{Platform: o.Platform}}
	manifest, err := p.manifest(ctx, target, 0)
	if err != nil {
		return explain(err)
	}
	m, err := k.s.manifest(ctx, manifest)
	if err != nil {
		return err
	}
	if !images.IsConfigType(m.Config.MediaType) {
		return fmt.Errorf("%s is of type %q, not a container image: %w", manifest.Digest, m.Config.MediaType, errdefs.ErrInvalidArgument)
	}
	if err := p.blob(ctx, m.Config); err != nil {
		return explain(err)
	}
	return k.describe(ctx, manifest)
}

// describe reads the list of layers.
func (k *Stack) describe(ctx context.Context, manifest ocispec.Descriptor) error {
	m, err := k.s.manifest(ctx, manifest)
	if err != nil {
		return err
	}
	if k.Diffs, err = images.RootFS(ctx, k.s.content, m.Config); err != nil {
		return fmt.Errorf("read the layers of %s: %w", manifest.Digest, err)
	}
	if len(k.Diffs) != len(m.Layers) {
		return fmt.Errorf("image %s has %d layers, its config names %d: %w", manifest.Digest, len(m.Layers), len(k.Diffs), errdefs.ErrInvalidArgument)
	}
	k.layers = m.Layers
	return nil
}

// Open reads a layer as it is stored, from where it is. Whoever reads it holds its content against Diffs.
func (k *Stack) Open(ctx context.Context, i int) (io.ReadCloser, error) {
	ctx = in(ctx)
	l := k.layers[i]
	if err := checkLayer(ctx, l); err != nil {
		return nil, err
	}
	if at, err := k.s.content.ReaderAt(ctx, l); err == nil {
		return struct {
			io.Reader
			io.Closer
		}{content.NewReader(at), at}, nil
	}
	if k.fetcher == nil {
		return nil, fmt.Errorf("layer %s of %s is not kept as it came: %w", l.Digest, k.ID, errdefs.ErrNotFound)
	}
	return k.fetcher.Fetch(ctx, l)
}

// Borrow lets the stack read what is not kept here where another image of the same repository comes from.
func (k *Stack) Borrow(other *Stack) {
	if k.fetcher == nil {
		k.fetcher = other.fetcher
	}
}

// Close lets go of the image.
func (k *Stack) Close() { k.done() }
