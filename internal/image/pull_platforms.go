package image

import (
	"context"
	"fmt"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// maxAttested is how much of attestations comes with an image that nobody asked to have whole.
const maxAttested = 16 << 20

// wanted fetches the platforms that are asked for, and what is attested of them. AllPlatforms are all that the index names, and whatever
// else it names, so that it can be pushed and saved as it is.
func (p *pull) wanted(ctx context.Context, target ocispec.Descriptor) error {
	list := p.o.Platforms
	if p.o.AllPlatforms && images.IsIndexType(target.MediaType) {
		here, err := p.others(ctx, target)
		if err != nil {
			return err
		}
		if list = append(list, here...); len(list) == 0 {
			p.o.say("", "It has nothing for %s: it cannot run here", platforms.Format(platforms.DefaultSpec()))
			return nil
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

// others fetches all that an index names but the platforms that can run here, which it returns. What cannot is unpacked when somebody asks
// for it: some of its layers may not be distributed, and are not here (old ones of Windows).
func (p *pull) others(ctx context.Context, target ocispec.Descriptor) (here []ocispec.Platform, err error) {
	if err := p.blob(ctx, target); err != nil {
		return nil, err
	}
	children, err := p.s.index(ctx, target)
	if err != nil {
		return nil, err
	}
	for _, c := range children {
		switch {
		case c.Platform == nil || attests(c):
		case matcher(nil).Match(*c.Platform):
			here = append(here, *c.Platform)
			continue
		default:
			if err := p.small(ctx, c); err != nil {
				return nil, err
			}
			if err := p.admit(ctx, target, c); err != nil {
				return nil, err
			}
		}
		if err := p.tree(ctx, c); err != nil {
			return nil, err
		}
	}
	return here, nil
}

// tree fetches all that is below a descriptor, and unpacks nothing.
func (p *pull) tree(ctx context.Context, d ocispec.Descriptor) error {
	var manifests []ocispec.Descriptor
	err := p.s.walk(ctx, d, func(d ocispec.Descriptor) error {
		switch {
		case isManifest(d):
			manifests = append(manifests, d)
			return p.small(ctx, d)
		case images.IsConfigType(d.MediaType):
			return p.blob(ctx, d)
		}
		return nil
	})
	if err != nil {
		return err
	}
	parts := map[digest.Digest]ocispec.Descriptor{}
	for _, m := range manifests {
		children, err := p.s.children(ctx, m)
		if err != nil {
			return err
		}
		unpacked := p.s.unpackedOnly(ctx, m)
		for _, c := range children {
			if !isManifest(c) && !images.IsNonDistributable(c.MediaType) && !unpacked[c.Digest] {
				parts[c.Digest] = c
			}
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(mostDownloads)
	for _, c := range parts {
		g.Go(func() error { return p.part(ctx, c) })
	}
	return g.Wait()
}

// small fetches a manifest or an index.
func (p *pull) small(ctx context.Context, d ocispec.Descriptor) error {
	if d.Size > maxJSON {
		return fmt.Errorf("manifest %s has %d bytes, 8 MiB are the most: %w", d.Digest, d.Size, errdefs.ErrInvalidArgument)
	}
	return p.blob(ctx, d)
}

// part fetches what is no manifest, and tells of layers.
func (p *pull) part(ctx context.Context, d ocispec.Descriptor) error {
	if !images.IsLayerType(d.MediaType) {
		return p.blob(ctx, d)
	}
	if p.s.here(ctx, d) {
		p.o.say(short(d), "Already exists")
		return p.blob(ctx, d)
	}
	one := &arrival{store: p.s.blobs, layer: d, changed: make(chan struct{})}
	defer one.close()
	p.o.say(short(d), "Pulling fs layer")
	stop := p.report(ctx, one)
	err := p.blobInto(ctx, one, d)
	stop()
	if err == nil {
		p.o.say(short(d), "Download complete")
	}
	return err
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
