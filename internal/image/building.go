package image

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/gc"
	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"
	registrytypes "github.com/moby/moby/api/types/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"wherry.dev/wherry/internal/ref"
	"wherry.dev/wherry/internal/registry"
	"wherry.dev/wherry/internal/snapshot"
)

// Ground is what builds stand on: the store below the images, which the build cache shares.
type Ground struct {
	Namespace   string // of contexts
	Snapshotter string // as leases call it
	Content     content.Store
	Snapshots   snapshots.Snapshotter
	Leases      leases.Manager
	Collect     func(context.Context) (gc.Stats, error)
	Hold        func() (release func() error) // keeps directories of changes that become layers until release: they may be mounted
}

// GroundOf gives a service's store to builds.
func GroundOf(s *Service) Ground {
	return Ground{Namespace: namespace, Snapshotter: snapshotter, Content: s.content, Snapshots: s.held.snaps, Leases: s.leases, Hold: s.held.keep, Collect: func(ctx context.Context) (gc.Stats, error) {
		s.forgetLayers()
		return s.db.GarbageCollect(in(ctx))
	}}
}

// BaseOptions of Base.
type BaseOptions struct {
	Platform *ocispec.Platform
	Pull     bool // even where it is here
	Auth     func(domain string) (*registrytypes.AuthConfig, error)
	Progress func(Progress)
}

// BaseHeld is how long Base holds an image at the most.
const BaseHeld = longestLease

// Base finds an image that a build begins with, and pulls it where it is not here: through the same mirrors and the same policy as any other
// pull. It is held until release is called: whatever becomes of its name, the build has it.
func Base(ctx context.Context, s *Service, name string, o BaseOptions) (_ ocispec.Descriptor, release func(), err error) {
	r, err := ref.Parse(name)
	if err != nil {
		return ocispec.Descriptor{}, nil, err
	}
	ctx, release, err = s.leaseFor(ctx, "")
	if err != nil {
		return ocispec.Descriptor{}, nil, err
	}
	d, err := findBase(ctx, s, r, o)
	if err != nil {
		release()
		return ocispec.Descriptor{}, nil, err
	}
	return d, release, nil
}

func findBase(ctx context.Context, s *Service, r ref.Reference, o BaseOptions) (d ocispec.Descriptor, err error) {
	if !o.Pull {
		d, err := baseHere(ctx, s, r.String(), o.Platform)
		if id := idOf(r); id != "" && errdefs.IsNotFound(err) {
			d, err = baseHere(ctx, s, id, o.Platform)
		}
		if err == nil || !errdefs.IsNotFound(err) {
			return d, err
		}
	}
	t := TransferOptions{Platform: o.Platform, AnySole: true, Progress: o.Progress}
	if o.Auth != nil {
		if t.Auth, err = o.Auth(r.Domain); err != nil {
			return ocispec.Descriptor{}, err
		}
	}
	return pullBase(ctx, s, r.String(), t)
}

// idOf is the image's ID that a reference may have been written as: FROM sha256:…, or the twelve digits or more that lists show; "": none.
func idOf(r ref.Reference) string {
	switch name, library := strings.CutPrefix(r.Name(), "docker.io/library/"); {
	case !library || r.Digest != "":
	case name == "sha256" && isFullID("sha256:"+r.Tag):
		return "sha256:" + r.Tag
	case r.Tag == "latest" && len(name) >= 12 && isID(name):
		return name
	}
	return ""
}

// pullBase pulls an image and finds it then; once more where somebody takes its name away in between.
func pullBase(ctx context.Context, s *Service, name string, t TransferOptions) (d ocispec.Descriptor, err error) {
	for range 3 {
		if err := s.Pull(ctx, name, t); err != nil {
			return d, err
		}
		if d, err = baseHere(ctx, s, name, t.Platform); !errdefs.IsNotFound(err) {
			return d, err
		}
		if _, gone := s.find(in(ctx), name); errdefs.IsNotFound(gone) {
			continue
		}
		// It is there for one platform only. Scripts and data are the same on each; the build says that it is another's.
		if only := s.soleFor(ctx, name); only != nil && t.Platform != nil {
			return baseHere(ctx, s, name, only)
		}
		break
	}
	return d, err
}

// soleFor is the platform of an image that is in no index.
func (s *Service) soleFor(ctx context.Context, name string) *ocispec.Platform {
	ctx = in(ctx)
	found, err := s.find(ctx, name)
	if err != nil || !images.IsManifestType(found.Target.MediaType) {
		return nil
	}
	m, err := s.manifest(ctx, found.Target)
	if err != nil {
		return nil
	}
	var c ocispec.Image
	if err := s.readJSON(ctx, m.Config, &c); err != nil {
		return nil
	}
	return &c.Platform
}

// baseHere is the target of an image of which the platform's part is here, and may be run. The lease of ctx holds it from then on.
func baseHere(ctx context.Context, s *Service, name string, platform *ocispec.Platform) (ocispec.Descriptor, error) {
	img, err := s.Resolve(ctx, name, platform)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	if err := Permit(ctx, s, img); err != nil {
		return ocispec.Descriptor{}, err
	}
	found, err := s.find(in(ctx), name)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	if err := holdTree(ctx, s, found.Target); err != nil {
		return ocispec.Descriptor{}, err
	}
	if diffs := img.Config.RootFS.DiffIDs; len(diffs) > 0 {
		if here, err := s.held.holdLayer(ctx, chainID(diffs)); !here || err != nil {
			return ocispec.Descriptor{}, cmp.Or(err, fmt.Errorf("the layers of image %s have been removed meanwhile: %w", name, errdefs.ErrNotFound))
		}
	}
	return found.Target, nil
}

// Built is what a build has written into the store.
type Built struct {
	Target ocispec.Descriptor
	Names  []string // as the user gave them; none: it goes by its digest
	// Layers are the snapshots of each platform's layers, the lowest first; by the manifest's platform ("" where there is but one).
	Layers map[string][]string
}

// Keep names what a build has made, and makes its layers an image's: they have their chain IDs as one more name, so that nothing is unpacked.
func Keep(ctx context.Context, s *Service, b Built) error {
	names := make([]string, 0, len(b.Names))
	for _, name := range b.Names {
		if err := nameable(name); err != nil {
			return err
		}
		r, err := ref.Parse(name)
		if err != nil {
			return err
		}
		names = append(names, r.String())
	}
	ctx, done, err := s.lease(in(ctx))
	if err != nil {
		return err
	}
	defer done()
	if err := keepManifests(ctx, s, b); err != nil {
		return err
	}
	if err := (provenance{s.store}).made(ctx, b.Target); err != nil {
		return err
	}
	if len(names) == 0 {
		names = []string{b.Target.Digest.String()}
	}
	tell(ctx, s, b.Target, happening{events.ActionCreate, b.Target.Digest.String(), b.Target.Digest.String()})
	for _, name := range names {
		if err := s.name(ctx, name, b.Target); err != nil {
			return err
		}
		if name != b.Target.Digest.String() {
			tell(ctx, s, b.Target, happening{events.ActionTag, b.Target.Digest.String(), familiar(name)})
		}
	}
	return nil
}

func keepManifests(ctx context.Context, s *Service, b Built) error {
	if err := s.labelChildren(ctx, b.Target); err != nil {
		return err
	}
	manifests := []ocispec.Descriptor{b.Target}
	if images.IsIndexType(b.Target.MediaType) {
		var err error
		if manifests, err = s.index(ctx, b.Target); err != nil {
			return err
		}
	}
	for _, d := range manifests {
		if err := s.labelChildren(ctx, d); err != nil {
			return err
		}
		if attests(d) {
			continue
		}
		keys := b.Layers[platformKey(d.Platform)]
		if len(manifests) == 1 && len(b.Layers) == 1 {
			for _, only := range b.Layers {
				keys = only
			}
		}
		if err := keepLayers(ctx, s, d, keys); err != nil {
			return err
		}
	}
	return nil
}

// keepLayers gives layers their chain IDs. Those of which there is no snapshot are unpacked.
func keepLayers(ctx context.Context, s *Service, manifest ocispec.Descriptor, keys []string) error {
	m, diffs, err := s.checkImage(ctx, manifest)
	if err != nil || len(diffs) == 0 {
		return err
	}
	whole := len(keys) == len(diffs)
	for i, chain := range chains(diffs) {
		if !whole {
			break
		}
		if keys[i] == chain {
			continue // a base image's, which the build holds
		}
		below := ""
		if i > 0 {
			below = chainID(diffs[:i])
		}
		if whole, err = s.held.alias(ctx, keys[i], chain, below); err != nil {
			return err
		}
	}
	if whole {
		return s.pin(ctx, m.Config.Digest, digest.Digest(chainID(diffs)))
	}
	_, err = s.unpack(ctx, manifest, nil)
	return err
}

// alias gives a committed snapshot one more name, which it keeps when the first one goes. Where it cannot be had so (it stands on another
// one than the layer does), nothing is done.
func (s *held) alias(ctx context.Context, key, chain, below string) (done bool, err error) {
	if here, err := s.holdLayer(ctx, chain); here || err != nil {
		return here, err
	}
	info, err := s.snaps.Stat(ctx, key)
	if errdefs.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look at layer %s: %w", key, err)
	}
	if info.Labels[snapshot.Replaces] != "" {
		return false, nil // what lies there is more than the archive has
	}
	if other := info.Labels[snapshots.LabelSnapshotRef]; other != "" && other != chain {
		if _, err := s.snaps.Stat(ctx, other); err == nil {
			return false, nil // it has another chain ID too, by other dates in its archive: one more is a layer of its own
		}
	}
	labels := map[string]string{snapshots.LabelSnapshotRef: chain}
	if _, err := s.snaps.Update(ctx, snapshots.Info{Name: key, Labels: labels}, "labels."+snapshots.LabelSnapshotRef); err != nil {
		if errdefs.IsNotFound(err) {
			return false, nil
		}
		return false, fmt.Errorf("name layer %s: %w", chain, err)
	}
	trial := unpackPrefix + "alias " + chain
	_, err = s.snaps.Prepare(ctx, trial, below, snapshots.WithLabels(labels))
	switch {
	case errdefs.IsAlreadyExists(err):
		return true, nil
	case err == nil: // it stands on another one than the layer does
		err = s.snaps.Remove(ctx, trial)
	case errdefs.IsNotFound(err): // the layer below has none
		err = nil
	}
	_, cleared := s.snaps.Update(ctx, snapshots.Info{Name: key}, "labels."+snapshots.LabelSnapshotRef)
	if err = errors.Join(err, cleared); err != nil {
		return false, fmt.Errorf("name layer %s: %w", chain, err)
	}
	return false, nil
}

// platformKey is how Built.Layers calls a platform.
func platformKey(p *ocispec.Platform) string {
	if p == nil {
		return ""
	}
	return PlatformKey(*p)
}

// PlatformKey is the key of a platform in Built.Layers.
func PlatformKey(p ocispec.Platform) string {
	return strings.TrimRight(strings.Join([]string{p.OS, p.Architecture, p.Variant}, "/"), "/")
}

// SendOptions of Send.
type SendOptions struct {
	Target   ocispec.Descriptor
	Auth     *registrytypes.AuthConfig
	Progress func(Progress)
}

// Send pushes what is here, under whatever name, to where r says.
func Send(ctx context.Context, s *Service, r ref.Reference, o SendOptions) error {
	t := TransferOptions{Auth: o.Auth, Progress: o.Progress}
	ctx, done, err := s.lease(ctx)
	if err != nil {
		return err
	}
	defer done()
	if err := holdTree(ctx, s, o.Target); err != nil {
		return fmt.Errorf("push %s: %w", r.Familiar(), err)
	}
	if err := send(ctx, s, r, o.Target, &t); err != nil {
		return registry.Explain("push "+r.Familiar(), r.Domain, err)
	}
	tell(ctx, s, o.Target, happening{events.ActionPush, r.Familiar(), r.FamiliarName()})
	return nil
}
