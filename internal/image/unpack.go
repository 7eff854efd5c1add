package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

// unpack makes a manifest's layers into directories and returns these, topmost first. ready, when not nil, returns when a layer's blob is
// here; it lets unpacking begin while later layers are still on their way.
func (s *Service) unpack(ctx context.Context, manifest ocispec.Descriptor, ready func(context.Context, ocispec.Descriptor) error) ([]string, error) {
	m, err := images.Manifest(ctx, s.content, manifest, nil)
	if err != nil {
		return nil, fmt.Errorf("read manifest %s: %w", manifest.Digest, err)
	}
	diffs, err := images.RootFS(ctx, s.content, m.Config)
	if err != nil {
		return nil, fmt.Errorf("read the layers of %s: %w", manifest.Digest, err)
	}
	if len(diffs) != len(m.Layers) {
		return nil, fmt.Errorf("image %s has %d layers, its config names %d: %w", manifest.Digest, len(m.Layers), len(diffs), errdefs.ErrInvalidArgument)
	}
	top := identity.ChainID(diffs)
	s.mu.Lock()
	lower, ok := s.lowers[top]
	s.mu.Unlock()
	if ok {
		return lower, nil
	}
	if len(diffs) == 0 {
		return nil, fmt.Errorf("image %s has no layers: there is nothing to run: %w", manifest.Digest, errdefs.ErrInvalidArgument)
	}
	ctx, done, err := s.lease(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	for i := range diffs {
		if ready != nil {
			if err := ready(ctx, m.Layers[i]); err != nil {
				return nil, err
			}
		}
		if err := s.unpackLayer(ctx, m.Layers[i], diffs[:i+1]); err != nil {
			return nil, fmt.Errorf("unpack layer %s: %w", m.Layers[i].Digest, err)
		}
	}
	if err := s.pinLayers(ctx, m.Config.Digest, top); err != nil {
		return nil, err
	}
	if lower, err = s.layerDirs(ctx, top); err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.lowers[top] = lower
	s.mu.Unlock()
	return lower, nil
}

// pinLayers makes the image's config keep its layers from being collected.
func (s *Service) pinLayers(ctx context.Context, config, top digest.Digest) error {
	label := "containerd.io/gc.ref.snapshot." + snapshotter
	_, err := s.content.Update(ctx, content.Info{Digest: config, Labels: map[string]string{label: top.String()}}, "labels."+label)
	return err
}

// unpackLayer applies one layer on those below it: all its data is on disk before it is named.
func (s *Service) unpackLayer(ctx context.Context, layer ocispec.Descriptor, diffs []digest.Digest) error {
	chain := identity.ChainID(diffs).String()
	unlock, err := s.unpacking.lock(ctx, chain)
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := s.snaps.Stat(ctx, chain); err == nil {
		return nil
	}
	parent := ""
	if len(diffs) > 1 {
		parent = identity.ChainID(diffs[:len(diffs)-1]).String()
	}
	key := "unpack " + chain
	mounts, err := s.snaps.Prepare(ctx, key, parent)
	if errdefs.IsAlreadyExists(err) {
		// Left half-made by an earlier life.
		if err := s.snaps.Remove(ctx, key); err != nil {
			return err
		}
		mounts, err = s.snaps.Prepare(ctx, key, parent)
	}
	if err != nil {
		return err
	}
	applied, err := s.applier.Apply(ctx, layer, mounts, diff.WithSyncFs(true))
	if err == nil && applied.Digest != diffs[len(diffs)-1] {
		err = fmt.Errorf("its content is %s, the config says %s: %w", applied.Digest, diffs[len(diffs)-1], errdefs.ErrInvalidArgument)
	}
	if err == nil {
		err = s.snaps.Commit(ctx, chain, key)
	}
	if err == nil || errdefs.IsAlreadyExists(err) {
		return nil
	}
	_ = s.snaps.Remove(context.WithoutCancel(ctx), key)
	if errors.Is(err, unix.ENOSPC) {
		return fmt.Errorf("the disk of %s is full: free space, or remove images with `wherry rmi`: %w", s.o.Root, err)
	}
	return err
}

// layerDirs asks the snapshotter, by a short-lived view, where a chain's directories are.
func (s *Service) layerDirs(ctx context.Context, top digest.Digest) ([]string, error) {
	key := "view " + top.String()
	mounts, err := s.snaps.View(ctx, key, top.String())
	if errdefs.IsAlreadyExists(err) {
		mounts, err = s.snaps.Mounts(ctx, key)
	}
	if err != nil {
		return nil, fmt.Errorf("look at layers %s: %w", top, err)
	}
	defer func() { _ = s.snaps.Remove(context.WithoutCancel(ctx), key) }()
	return lowerDirs(mounts)
}

func lowerDirs(mounts []mount.Mount) ([]string, error) {
	if len(mounts) != 1 {
		return nil, fmt.Errorf("a view of %d mounts is not understood", len(mounts))
	}
	if mounts[0].Type == "bind" {
		return []string{mounts[0].Source}, nil
	}
	for _, o := range mounts[0].Options {
		if list, ok := strings.CutPrefix(o, "lowerdir="); ok {
			return strings.Split(list, ":"), nil
		}
	}
	return nil, fmt.Errorf("a view of type %s is not understood", mounts[0].Type)
}

// writeBlob adds small content.
func (s *Service) writeBlob(ctx context.Context, mediaType string, v any, labels map[string]string) (ocispec.Descriptor, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}
	err = content.WriteBlob(ctx, s.content, "blob-"+d.Digest.String(), strings.NewReader(string(b)), d, content.WithLabels(labels))
	return d, err
}

// usage is the disk space of a chain's layers, each alone.
func (s *Service) usage(ctx context.Context, chain string) (snapshots.Usage, error) {
	return s.snaps.Usage(ctx, chain)
}
