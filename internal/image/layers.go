package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	fslayer "wherry.dev/wherry/internal/layer"
	"wherry.dev/wherry/internal/room"
	"wherry.dev/wherry/internal/snapshot"
)

// layers are the unpacked directories of images, each shared by all that have it.
type layers struct {
	st        *store
	unpacking keyedLock // by chain id: one unpacks, others wait
	memory    *fslayer.Memory

	mu        sync.Mutex                 // guards what follows
	dirs      map[digest.Digest][]string // by chain id
	forgotten int
}

// unpack makes a manifest's layers into directories and returns these, topmost first. from gives layers that are still on their way; nil:
// all blobs are here.
func (l *layers) unpack(ctx context.Context, manifest ocispec.Descriptor, from feed) ([]string, error) {
	m, diffs, err := l.checkImage(ctx, manifest)
	if err != nil {
		return nil, err
	}
	if len(diffs) == 0 {
		return nil, nil // only a configuration: FROM scratch and labels
	}
	top := digest.Digest(chainID(diffs))
	l.mu.Lock()
	lower, forgotten := l.dirs[top], l.forgotten
	l.mu.Unlock()
	if lower != nil && from == nil {
		return lower, nil
	}
	if from == nil && l.pinned(ctx, m.Config.Digest, top) {
		if _, err := l.st.snaps.Stat(ctx, top.String()); err == nil {
			return l.remembered(ctx, top, forgotten)
		}
	}
	ctx, done, err := l.st.lease(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	places, err := l.newUnpacking(from, m.Layers, diffs).run(ctx)
	if err != nil {
		return nil, err
	}
	if err := l.pin(ctx, m.Config.Digest, top); err != nil {
		return nil, err
	}
	if places == nil {
		places = l.known(top) // still: they may have been collected since, and unpacked anew by another
	}
	if places == nil {
		return l.remembered(ctx, top, forgotten)
	}
	l.remember(top, places, forgotten)
	return places, nil
}

// remember keeps where a chain's directories are, unless something was collected since.
func (l *layers) remember(top digest.Digest, places []string, forgotten int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.forgotten == forgotten {
		l.dirs[top] = places
	}
}

// remembered asks where they are, and remembers it.
func (l *layers) remembered(ctx context.Context, top digest.Digest, forgotten int) ([]string, error) {
	places, err := l.where(ctx, top)
	if err == nil {
		l.remember(top, places, forgotten)
	}
	return places, err
}

func (l *layers) known(top digest.Digest) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dirs[top]
}

// forget drops what is remembered of layers that may now be collected.
func (l *layers) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.dirs)
	l.forgotten++
}

// pin makes the image's config keep its layers from being collected.
func (l *layers) pin(ctx context.Context, config, top digest.Digest) error {
	_, err := l.st.content.Update(ctx, content.Info{Digest: config, Labels: map[string]string{pinLabel: top.String()}}, "labels."+pinLabel)
	return err
}

// pinLabel refers from an image's config to its layers.
const pinLabel = "containerd.io/gc.ref.snapshot." + snapshotter

func (l *layers) pinned(ctx context.Context, config, top digest.Digest) bool {
	info, err := l.st.content.Info(ctx, config)
	return err == nil && info.Labels[pinLabel] == top.String()
}

// chainID leaves the slice as it is, which identity.ChainID does not.
func chainID(diffs []digest.Digest) string {
	return identity.ChainID(append([]digest.Digest(nil), diffs...)).String()
}

// checkLayer refuses what is no tar of files by its own word.
func checkLayer(ctx context.Context, layer ocispec.Descriptor) error {
	if _, err := images.DiffCompression(ctx, layer.MediaType); err != nil || strings.HasSuffix(layer.MediaType, "+encrypted") {
		return fmt.Errorf("layer %s is of type %q, not a file system layer that this engine reads: %w", layer.Digest, layer.MediaType, errdefs.ErrInvalidArgument)
	}
	return nil
}

// where asks the snapshotter, by a short-lived view, where a chain's directories are.
func (l *layers) where(ctx context.Context, top digest.Digest) ([]string, error) {
	unlock, err := l.unpacking.lock(ctx, "view "+top.String())
	if err != nil {
		return nil, err
	}
	defer unlock()
	key := "view " + top.String()
	mounts, err := l.st.snaps.View(ctx, key, top.String())
	if errdefs.IsAlreadyExists(err) {
		mounts, err = l.st.snaps.Mounts(ctx, key)
	}
	if err != nil {
		err = fmt.Errorf("look at layers %s: %w", top, err)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, snapshot.ErrUnmountable) {
			err = l.st.layerGone(err)
		}
		return nil, err
	}
	defer func() { _ = l.st.snaps.Remove(context.WithoutCancel(ctx), key) }()
	dirs, err := lowerDirs(mounts)
	for _, dir := range dirs {
		if _, err := os.Stat(dir); err != nil {
			return nil, l.st.layerGone(err)
		}
	}
	return dirs, err
}

// layerGone says what to do about a layer that cannot be had from its place.
func (s *store) layerGone(err error) error {
	if room.Lacks(err) {
		return s.explainFull(err)
	}
	return fmt.Errorf("one of its layers is gone from this disk, or damaged: run `wherry store repair`, or remove the image and pull it again: %w", err)
}
