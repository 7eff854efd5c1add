package image

import (
	"context"
	"fmt"
	"strings"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"
	registrytypes "github.com/moby/moby/api/types/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"wherry.dev/wherry/internal/ref"
	"wherry.dev/wherry/internal/registry"
)

// Push sends an image to its registry; what the registry has already is not sent again.
func (s *Service) Push(ctx context.Context, name string, o TransferOptions) error {
	r, err := ref.Parse(name)
	if err != nil {
		return err
	}
	ctx, done, err := s.lease(ctx)
	if err != nil {
		return err
	}
	defer done()
	all := []string{r.String()}
	if o.AllTags {
		if all, err = tagsOf(ctx, s.images, r); err != nil {
			return err
		}
	}
	var list []images.Image
	for _, name := range all {
		img, err := takeHold(ctx, s, func(ctx context.Context) (images.Image, error) { return s.images.Get(ctx, name) })
		switch {
		case err == nil:
			list = append(list, img)
		case !errdefs.IsNotFound(err):
			return err
		}
	}
	if len(list) == 0 {
		return fmt.Errorf("An image does not exist locally with the tag: %s: %w", r.FamiliarName(), errdefs.ErrNotFound) //nolint:staticcheck // Docker's words
	}
	for _, img := range list {
		if err := s.pushOne(ctx, img, o); err != nil {
			return err
		}
	}
	compactAfter(ctx, s, o)
	return nil
}

// tagsOf are a repository's names that are here.
func tagsOf(ctx context.Context, names images.Store, r ref.Reference) (out []string, err error) {
	list, err := names.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	for _, img := range list {
		if strings.HasPrefix(img.Name, r.Name()+":") {
			out = append(out, img.Name)
		}
	}
	return out, nil
}

// pushOne sends one that the operation holds.
func (s *Service) pushOne(ctx context.Context, img images.Image, o TransferOptions) error {
	r, err := ref.Parse(img.Name)
	if err != nil {
		return err
	}
	target, err := s.pushTarget(ctx, img, o.Platform)
	if err != nil {
		return err
	}
	o.say("", "The push refers to repository [%s]", r.Name())
	if err := send(ctx, s, r, target, &o); err != nil {
		return registry.Explain("push "+r.Familiar(), r.Domain, err)
	}
	o.say("", "%s: digest: %s size: %d", r.Tag, target.Digest, target.Size)
	if o.Progress != nil {
		o.Progress(Progress{Aux: map[string]any{"Tag": r.Tag, "Digest": target.Digest, "Size": target.Size}})
	}
	tell(ctx, s, target, happening{events.ActionPush, r.Familiar(), r.FamiliarName()})
	if target.Digest != img.Target.Digest {
		return nil // one platform of several: the tag means another thing there
	}
	return s.mark(ctx, img, labelPushed)
}

// pushTarget is the whole image where all of it is here, else the one platform's manifest that is.
func (s *store) pushTarget(ctx context.Context, img images.Image, platform *ocispec.Platform) (ocispec.Descriptor, error) {
	if platform == nil && s.complete(ctx, img.Target) {
		return img.Target, nil
	}
	d, err := s.manifestFor(ctx, img.Target, matcher(platform))
	if errdefs.IsNotFound(err) && platform == nil {
		if list, listErr := s.manifests(ctx, img.Target); listErr == nil && len(list) == 1 {
			d, err = list[0], nil // of another platform, but what there is
		}
	}
	if err != nil {
		return d, fmt.Errorf("push %s: no platform of it is here as a whole: %w", familiar(img.Name), err)
	}
	d.Platform = nil
	return d, nil
}

// Login tries credentials at their registry and returns an identity token if it gave one.
func (s *Service) Login(ctx context.Context, a registrytypes.AuthConfig) (registrytypes.AuthResponse, error) {
	return s.registries.Login(ctx, a)
}

// Distribution describes a remote reference (GET /distribution/{name}/json).
func (s *Service) Distribution(ctx context.Context, name string, a *registrytypes.AuthConfig) (registrytypes.DistributionInspect, error) {
	r, err := ref.Parse(name)
	if err != nil {
		return registrytypes.DistributionInspect{}, err
	}
	ctx, done, err := s.lease(ctx)
	if err != nil {
		return registrytypes.DistributionInspect{}, err
	}
	defer done()
	client := s.registries.Client(ctx, r, a)
	target, err := client.Resolve(ctx)
	if err != nil {
		return registrytypes.DistributionInspect{}, registry.Explain("inspect "+r.Familiar(), r.Domain, err)
	}
	fetcher, err := client.Fetcher(ctx)
	if err != nil {
		return registrytypes.DistributionInspect{}, registry.Explain("inspect "+r.Familiar(), r.Domain, err)
	}
	p := &pull{s: s, ref: r, fetcher: fetcher}
	out := registrytypes.DistributionInspect{Descriptor: target}
	if err := p.blob(ctx, target); err != nil {
		return out, registry.Explain("inspect "+r.Familiar(), r.Domain, err)
	}
	if images.IsIndexType(target.MediaType) {
		children, err := images.Children(ctx, s.content, target)
		for _, c := range children {
			if c.Platform != nil {
				out.Platforms = append(out.Platforms, *c.Platform)
			}
		}
		return out, err
	}
	m, err := images.Manifest(ctx, s.content, target, nil)
	if err != nil {
		return out, err
	}
	if err := p.blob(ctx, m.Config); err != nil {
		return out, registry.Explain("inspect "+r.Familiar(), r.Domain, err)
	}
	platform, err := images.ConfigPlatform(ctx, s.content, m.Config)
	out.Platforms = []ocispec.Platform{platform}
	return out, err
}
