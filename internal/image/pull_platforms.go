package image

import (
	"context"
	"fmt"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// maxAttested is how much of attestations comes with an image that nobody asked to have whole.
const maxAttested = 16 << 20

// wanted fetches the platforms that are asked for, and what is attested of them. AllPlatforms are all that the index names, and whatever
// else it names, so that it can be pushed and saved as it is.
func (p *pull) wanted(ctx context.Context, target ocispec.Descriptor) error {
	list := p.o.Platforms
	if p.o.AllPlatforms && images.IsIndexType(target.MediaType) {
		if err := p.blob(ctx, target); err != nil {
			return err
		}
		children, err := p.s.index(ctx, target)
		if err != nil {
			return err
		}
		for _, c := range children {
			if c.Platform != nil && !attests(c) {
				list = append(list, *c.Platform)
				continue
			}
			if err := p.tree(ctx, c); err != nil {
				return err
			}
		}
	}
	if len(list) == 0 {
		if err := p.run(ctx, target); err != nil {
			return err
		}
	}
	for i := range list {
		one := *p
		one.o.Platform = &list[i]
		if err := one.run(ctx, target); err != nil {
			return err
		}
	}
	if images.IsIndexType(target.MediaType) && !p.o.AllPlatforms {
		return p.attestations(ctx, target)
	}
	return nil
}

// tree fetches all that is below a descriptor, and unpacks nothing.
func (p *pull) tree(ctx context.Context, d ocispec.Descriptor) error {
	return p.s.walk(ctx, d, func(d ocispec.Descriptor) error {
		switch {
		case images.IsNonDistributable(d.MediaType):
			return nil
		case isManifest(d) && d.Size > maxJSON:
			return fmt.Errorf("manifest %s has %d bytes, 8 MiB are the most: %w", d.Digest, d.Size, errdefs.ErrInvalidArgument)
		}
		return p.blob(ctx, d)
	})
}

// attestations fetches what an index attests of the platforms that are here, where it is small: without it a copy would be less than the
// original. A registry that has it not, or an odd one, does not spoil the image.
func (p *pull) attestations(ctx context.Context, target ocispec.Descriptor) error {
	children, err := p.s.index(ctx, target)
	if err != nil {
		return err
	}
	here := map[digest.Digest]bool{}
	for _, c := range children {
		here[c.Digest] = !attests(c) && p.s.complete(ctx, c)
	}
	for _, c := range children {
		if !attests(c) || !here[attested(c)] || c.Size > maxJSON || !images.IsManifestType(c.MediaType) {
			continue
		}
		if err := p.attestation(ctx, c); err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			p.o.say(short(c), "The attestation of %.19s does not come with it: %v", attested(c), err)
		}
	}
	return nil
}

func (p *pull) attestation(ctx context.Context, d ocispec.Descriptor) error {
	if err := p.blob(ctx, d); err != nil {
		return err
	}
	m, err := p.s.manifest(ctx, d)
	if err != nil {
		return err
	}
	size := m.Config.Size
	for _, l := range m.Layers {
		size += l.Size
	}
	if size > maxAttested {
		return fmt.Errorf("it has %d bytes", size)
	}
	return p.tree(ctx, d)
}
