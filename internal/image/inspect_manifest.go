package image

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"wherry.dev/wherry/internal/ref"
	"wherry.dev/wherry/internal/registry"
)

// Manifests reads manifests and indexes as registries have them.
type Manifests struct{ S *Service }

// ManifestView is one manifest or index, with what it is made of.
type ManifestView struct {
	Ref        string
	Descriptor ocispec.Descriptor
	Raw        json.RawMessage
	Children   []ManifestView `json:",omitempty"` // of an index, where they are asked for
}

// Inspect reads a reference's manifest or index: a list that was put together here, or else what its registry has. With children, an
// index's manifests come too.
func (m Manifests) Inspect(ctx context.Context, q Listed, children bool) (ManifestView, error) {
	ctx, done, err := m.S.lease(ctx)
	if err != nil {
		return ManifestView{}, err
	}
	defer done()
	r, err := ref.Parse(q.Image)
	if err != nil {
		return ManifestView{}, err
	}
	var target ocispec.Descriptor
	if img, err := m.S.images.Get(ctx, r.String()); err == nil && (Lists{m.S}).isList(ctx, q.Image) {
		target = img.Target
	} else if _, target, err = m.fetch(ctx, q, children); err != nil {
		return ManifestView{}, err
	}
	out, err := m.view(ctx, r, target)
	if err != nil || !children || !images.IsIndexType(target.MediaType) {
		return out, err
	}
	list, err := m.S.index(ctx, target)
	for _, d := range list {
		if child, err := m.view(ctx, r, d); err == nil { // those of a list may be elsewhere
			child.Descriptor = d
			out.Children = append(out.Children, child)
		}
	}
	return out, err
}

func (m Manifests) view(ctx context.Context, r ref.Reference, d ocispec.Descriptor) (ManifestView, error) {
	b, err := m.S.small(ctx, d)
	if err != nil {
		return ManifestView{}, err
	}
	r.Digest = d.Digest
	if d.Platform == nil && images.IsManifestType(d.MediaType) {
		if list, err := m.S.withPlatform(ctx, d); err == nil {
			d.Platform = list[0].Platform
		}
	}
	return ManifestView{Ref: r.Familiar(), Descriptor: d, Raw: b}, nil
}

// open asks a registry what a reference means.
func (m Manifests) open(ctx context.Context, q Listed) (*pull, ocispec.Descriptor, error) {
	r, err := ref.Parse(q.Image)
	if err != nil {
		return nil, ocispec.Descriptor{}, err
	}
	explain := func(err error) error { return registry.Explain("inspect "+r.Familiar(), r.Domain, err) }
	pool := m.S.registries
	if q.Insecure {
		pool = pool.Trusting(r.Domain)
	}
	c := pool.Client(ctx, r, q.Auth)
	target, err := c.Resolve(ctx)
	if err != nil {
		return nil, target, explain(err)
	}
	fetcher, err := c.Fetcher(ctx)
	if err != nil {
		return nil, target, explain(err)
	}
	if !isManifest(target) {
		return nil, target, fmt.Errorf("%s is of type %q, neither manifest nor index: %w", r.Familiar(), target.MediaType, errdefs.ErrInvalidArgument)
	}
	return &pull{s: m.S, ref: r, fetcher: fetcher, client: c}, target, nil
}

// fetch brings a manifest or index here. With children, what an index lists comes too, with its configurations, and it is noted where they
// come from.
func (m Manifests) fetch(ctx context.Context, q Listed, children bool) (*pull, ocispec.Descriptor, error) {
	p, target, err := m.open(ctx, q)
	if err != nil {
		return p, target, err
	}
	if err := p.manifests(ctx, target, children); err != nil || !children {
		return p, target, err
	}
	return p, target, p.noteOrigins(ctx, target)
}

// noteOrigins notes of the manifests that are here below a target which repository has them.
func (p *pull) noteOrigins(ctx context.Context, target ocispec.Descriptor) error {
	return p.s.walk(ctx, target, func(d ocispec.Descriptor) error {
		switch {
		case !isManifest(d):
			return nil
		case !p.s.here(ctx, d):
			return errBelow
		}
		return noteOrigin(ctx, p.s.store, p.ref, d.Digest)
	})
}

// manifests fetches a manifest or index; with below, an index's manifests, and the configuration of each, too.
func (p *pull) manifests(ctx context.Context, target ocispec.Descriptor, below bool) error {
	get := func(d ocispec.Descriptor) error {
		if d.Size > maxJSON {
			return fmt.Errorf("manifest %s has %d bytes, 8 MiB are the most: %w", d.Digest, d.Size, errdefs.ErrInvalidArgument)
		}
		if err := p.blob(ctx, d); err != nil {
			return registry.Explain("inspect "+p.ref.Familiar(), p.ref.Domain, err)
		}
		return nil
	}
	if !below && images.IsIndexType(target.MediaType) {
		return get(target)
	}
	seen := map[digest.Digest]bool{}
	return p.s.walk(ctx, target, func(d ocispec.Descriptor) error {
		if !isManifest(d) {
			return nil
		}
		if err := get(d); err != nil {
			return err
		}
		if !images.IsManifestType(d.MediaType) {
			return nil
		}
		m, err := p.s.manifest(ctx, d)
		if err != nil {
			return err
		}
		if !seen[m.Config.Digest] {
			seen[m.Config.Digest] = true
			if err := get(m.Config); err != nil {
				return err
			}
		}
		return errBelow
	})
}
