package image

import (
	"context"
	"fmt"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	registrytypes "github.com/moby/moby/api/types/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"wherry.dev/wherry/internal/ref"
	"wherry.dev/wherry/internal/registry"
)

// Labels of names that are known at their registry, with the time of the last pull or push.
const (
	labelPulled = "dev.wherry.pulled"
	labelPushed = "dev.wherry.pushed"
	labelNamed  = "dev.wherry.named" // when it got what it names, where a note has been made of it since: a note changes the store's own time
)

// Meaning is what a reference means, here or at its registry.
type Meaning struct {
	Reference string        // in full
	Digest    digest.Digest // of an index or a manifest
	MediaType string
	Platforms map[string]digest.Digest `json:",omitempty"` // the manifests, by os/architecture[/variant]; only where they were asked for
	Pulled    *time.Time               `json:",omitempty"` // when it came from its registry; nil for what was made or loaded here
	Pushed    *time.Time               `json:",omitempty"` // when it went there; nil where it never did
}

// MeaningOptions of MeaningOf.
type MeaningOptions struct {
	Registry  bool // what it means there; false: here
	Platforms bool // with the manifest of each platform
	Auth      *registrytypes.AuthConfig
}

// MeaningOf asks what a reference means. The registry is asked for a digest only, unless platforms are wanted.
func MeaningOf(ctx context.Context, s *Service, name string, o MeaningOptions) (Meaning, error) {
	r, err := ref.Parse(name)
	if err != nil {
		return Meaning{}, err
	}
	if o.Registry {
		return s.meaningThere(ctx, r, o)
	}
	ctx = in(ctx)
	img, err := s.lookup(ctx, name)
	if err != nil {
		return Meaning{}, err
	}
	out := Meaning{Reference: r.String(), Digest: img.Target.Digest, MediaType: img.Target.MediaType}
	for label, into := range map[string]**time.Time{labelPulled: &out.Pulled, labelPushed: &out.Pushed} {
		if at, err := time.Parse(time.RFC3339, img.Labels[label]); err == nil {
			*into = &at
		}
	}
	if o.Platforms {
		out.Platforms, err = s.platformsOf(ctx, img.Target)
	}
	return out, err
}

func (s *Service) meaningThere(ctx context.Context, r ref.Reference, o MeaningOptions) (Meaning, error) {
	ctx, done, err := s.lease(ctx)
	if err != nil {
		return Meaning{}, err
	}
	defer done()
	explain := func(err error) error { return registry.Explain("look up "+r.Familiar(), r.Domain, err) }
	c := s.registries.Client(ctx, r, o.Auth)
	target, err := c.Resolve(ctx)
	if err != nil {
		return Meaning{}, explain(err)
	}
	out := Meaning{Reference: r.String(), Digest: target.Digest, MediaType: target.MediaType}
	if !o.Platforms {
		return out, nil
	}
	if target.Size > maxJSON {
		return out, fmt.Errorf("manifest %s has %d bytes, 8 MiB are the most: %w", target.Digest, target.Size, errdefs.ErrInvalidArgument)
	}
	fetcher, err := c.Fetcher(ctx)
	if err != nil {
		return out, explain(err)
	}
	p := &pull{s: s, ref: r, fetcher: fetcher}
	if err := p.blob(ctx, target); err != nil {
		return out, explain(err)
	}
	if images.IsManifestType(target.MediaType) { // its platform stands in the config
		m, err := s.manifest(ctx, target)
		if err != nil {
			return out, err
		}
		if images.IsConfigType(m.Config.MediaType) {
			if err := p.blob(ctx, m.Config); err != nil {
				return out, explain(err)
			}
		}
	}
	out.Platforms, err = s.platformsOf(ctx, target)
	return out, err
}

// platformsOf lists the manifests of a target by platform; those of an index need not be here.
func (s *blobs) platformsOf(ctx context.Context, target ocispec.Descriptor) (map[string]digest.Digest, error) {
	list := []ocispec.Descriptor{target}
	var err error
	switch {
	case images.IsIndexType(target.MediaType):
		list, err = s.index(ctx, target)
	case images.IsManifestType(target.MediaType):
		list, err = s.withPlatform(ctx, target)
	}
	if err != nil {
		return nil, err
	}
	out := map[string]digest.Digest{}
	for _, d := range list {
		if d.Platform == nil || d.Annotations["vnd.docker.reference.type"] != "" || !images.IsManifestType(d.MediaType) {
			continue
		}
		key := platforms.FormatAll(platforms.Normalize(*d.Platform))
		if _, twice := out[key]; !twice {
			out[key] = d.Digest
		}
	}
	return out, nil
}

func now() string { return time.Now().UTC().Format(time.RFC3339) }

// mark notes that a name is known at its registry. One that was removed meanwhile, or means another image, is not.
func (s *store) mark(ctx context.Context, img images.Image, label string) error {
	s.naming.Lock()
	defer s.naming.Unlock()
	is, err := s.images.Get(ctx, img.Name)
	if errdefs.IsNotFound(err) || err == nil && is.Target.Digest != img.Target.Digest {
		return nil
	}
	if err != nil {
		return fmt.Errorf("note where %s is known: %w", img.Name, err)
	}
	return noteKnown(ctx, s.images, is, label)
}

// noteKnown is for a caller that holds naming.
func noteKnown(ctx context.Context, names images.Store, img images.Image, label string) error {
	img.Labels = map[string]string{label: now(), labelNamed: named(img).UTC().Format(time.RFC3339Nano)}
	if _, err := names.Update(ctx, img, "labels."+label, "labels."+labelNamed); err != nil {
		return fmt.Errorf("note where %s is known: %w", img.Name, err)
	}
	return nil
}

// named is when a name got what it means.
func named(img images.Image) time.Time {
	if at, err := time.Parse(time.RFC3339Nano, img.Labels[labelNamed]); err == nil {
		return at
	}
	return img.UpdatedAt
}
