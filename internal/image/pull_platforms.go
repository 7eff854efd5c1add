package image

import (
	"context"
	"fmt"
	"slices"

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
// else it names, so that it can be pushed and saved as it is. Before anything but manifests comes, the policy has let all of it pass.
func (p *pull) wanted(ctx context.Context, target ocispec.Descriptor) error {
	list, others, err := p.platforms(ctx, target)
	if err != nil {
		return err
	}
	all := make([]pull, len(list))
	manifests := make([]ocispec.Descriptor, len(list))
	for i := range list {
		all[i] = *p
		all[i].o.Platform = list[i]
		if manifests[i], err = all[i].manifest(ctx, target, 0); err != nil {
			return err
		}
	}
	if err := p.admit(ctx, target, slices.Concat(manifests, meant(others))...); err != nil {
		return err
	}
	for _, d := range others {
		if err := p.tree(ctx, d); err != nil {
			return err
		}
	}
	for i := range all {
		if err := all[i].run(ctx, manifests[i]); err != nil {
			return err
		}
	}
	switch {
	case len(all) == 0:
		p.o.say("", "It has nothing for %s: it cannot run here", platforms.Format(platforms.DefaultSpec()))
	case images.IsIndexType(target.MediaType) && !p.o.AllPlatforms:
		return p.attestations(ctx, target)
	}
	return nil
}

// platforms are those that are to be unpacked, one nil for the host's, and with AllPlatforms the entries of an index that are not: what cannot
// run here is unpacked when somebody asks for it, since some of its layers may not be distributed (old ones of Windows).
func (p *pull) platforms(ctx context.Context, target ocispec.Descriptor) (list []*ocispec.Platform, others []ocispec.Descriptor, err error) {
	for i := range p.o.Platforms {
		list = append(list, &p.o.Platforms[i])
	}
	if !p.o.AllPlatforms || !images.IsIndexType(target.MediaType) {
		if len(list) == 0 {
			list = append(list, p.o.Platform)
		}
		return list, nil, nil
	}
	if err := p.blob(ctx, target); err != nil {
		return nil, nil, err
	}
	children, err := p.s.index(ctx, target)
	for _, c := range children {
		if c.Platform != nil && !attests(c) && matcher(nil).Match(*c.Platform) {
			list = append(list, c.Platform)
		} else {
			others = append(others, c)
		}
	}
	return list, others, err
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
