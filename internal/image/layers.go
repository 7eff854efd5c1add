package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	fslayer "wherry.dev/wherry/internal/layer"
)

// layers are the unpacked directories of images, each shared by all that have it.
type layers struct {
	st        *store
	unpacking keyedLock // by chain id: one unpacks, others wait

	mu        sync.Mutex                 // guards what follows
	dirs      map[digest.Digest][]string // by chain id
	forgotten int
}

// unpack makes a manifest's layers into directories and returns these, topmost first. ready, when not nil, returns when a layer's blob is
// here; it lets unpacking begin while later layers are still on their way.
func (l *layers) unpack(ctx context.Context, manifest ocispec.Descriptor, ready func(context.Context, ocispec.Descriptor) error) ([]string, error) {
	m, err := l.st.manifest(ctx, manifest)
	if err != nil {
		return nil, err
	}
	diffs, err := images.RootFS(ctx, l.st.content, m.Config)
	if err != nil {
		return nil, fmt.Errorf("read the layers of %s: %w", manifest.Digest, err)
	}
	if len(diffs) != len(m.Layers) {
		return nil, fmt.Errorf("image %s has %d layers, its config names %d: %w", manifest.Digest, len(m.Layers), len(diffs), errdefs.ErrInvalidArgument)
	}
	if len(diffs) == 0 {
		return nil, fmt.Errorf("image %s has no layers: there is nothing to run: %w", manifest.Digest, errdefs.ErrInvalidArgument)
	}
	for _, d := range diffs {
		if err := d.Validate(); err != nil {
			return nil, fmt.Errorf("config of %s names layer %q: %w: %w", manifest.Digest, d, err, errdefs.ErrInvalidArgument)
		}
	}
	top := identity.ChainID(append([]digest.Digest(nil), diffs...))
	l.mu.Lock()
	lower, forgotten := l.dirs[top], l.forgotten
	l.mu.Unlock()
	if lower != nil && ready == nil {
		return lower, nil
	}
	ctx, done, err := l.st.lease(ctx)
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
		if err := l.unpackLayer(ctx, m.Layers[i], diffs[:i+1]); err != nil {
			return nil, fmt.Errorf("unpack layer %s: %w", m.Layers[i].Digest, err)
		}
	}
	if err := l.pin(ctx, m.Config.Digest, top); err != nil {
		return nil, err
	}
	if lower, err = l.where(ctx, top); err != nil {
		return nil, err
	}
	l.mu.Lock()
	if l.forgotten == forgotten {
		l.dirs[top] = lower
	}
	l.mu.Unlock()
	return lower, nil
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
	label := "containerd.io/gc.ref.snapshot." + snapshotter
	_, err := l.st.content.Update(ctx, content.Info{Digest: config, Labels: map[string]string{label: top.String()}}, "labels."+label)
	return err
}

// unpackLayer applies one layer on those below it: all its data is on disk before it is named.
func (l *layers) unpackLayer(ctx context.Context, layer ocispec.Descriptor, diffs []digest.Digest) error {
	chain := chainID(diffs)
	unlock, err := l.unpacking.lock(ctx, chain)
	if err != nil {
		return err
	}
	defer unlock()
	if err := l.st.hold(ctx, chain); err != nil {
		return err
	}
	if _, err := l.st.snaps.Stat(ctx, chain); err == nil {
		return nil
	}
	parent := ""
	if len(diffs) > 1 {
		parent = chainID(diffs[:len(diffs)-1])
	}
	key := "unpack " + chain
	mounts, err := l.st.snaps.Prepare(ctx, key, parent)
	if errdefs.IsAlreadyExists(err) {
		// Left half-made by an earlier life.
		if err := l.st.snaps.Remove(ctx, key); err != nil {
			return err
		}
		mounts, err = l.st.snaps.Prepare(ctx, key, parent)
	}
	if err != nil {
		return err
	}
	if err = l.apply(ctx, layer, mounts, diffs[len(diffs)-1]); err == nil {
		err = l.st.snaps.Commit(ctx, chain, key)
	}
	if err == nil || errdefs.IsAlreadyExists(err) {
		return nil
	}
	_ = l.st.snaps.Remove(context.WithoutCancel(ctx), key)
	return l.st.explainFull(err)
}

// chainID leaves the slice as it is, which identity.ChainID does not.
func chainID(diffs []digest.Digest) string {
	return identity.ChainID(append([]digest.Digest(nil), diffs...)).String()
}

// apply writes a layer's files into a snapshot and syncs them. The content must be what the image's config says.
func (l *layers) apply(ctx context.Context, d ocispec.Descriptor, mounts []mount.Mount, want digest.Digest) error {
	if err := checkLayer(ctx, d); err != nil {
		return err
	}
	upper, parents, err := writable(mounts)
	if err != nil {
		return err
	}
	blob, err := l.st.content.ReaderAt(ctx, d)
	if err != nil {
		return err
	}
	defer blob.Close()
	sink, err := fslayer.NewDir(upper, fslayer.DirOptions{Base: len(parents) == 0})
	if err != nil {
		return err
	}
	defer sink.Close()
	got, err := fslayer.Unpack(ctx, io.NopCloser(io.NewSectionReader(blob, 0, blob.Size())), sink)
	if err == nil && got.Diff != want {
		err = fmt.Errorf("its content is %s, the config says %s: %w", got.Diff, want, errdefs.ErrInvalidArgument)
	}
	if err == nil {
		err = sink.Finish()
	}
	if err == nil {
		err = fslayer.Inherit(upper, sink.Implicit(), parents)
	}
	if err != nil {
		return l.blame(ctx, d, err)
	}
	return syncFS(upper)
}

// checkLayer refuses what is no tar of files by its own word.
func checkLayer(ctx context.Context, layer ocispec.Descriptor) error {
	if _, err := images.DiffCompression(ctx, layer.MediaType); err != nil || strings.HasSuffix(layer.MediaType, "+encrypted") {
		return fmt.Errorf("layer %s is of type %q, not a file system layer that this engine reads: %w", layer.Digest, layer.MediaType, errdefs.ErrInvalidArgument)
	}
	return nil
}

// blame tells a layer that came damaged from one that was damaged here: the latter is dropped, so that a pull brings it anew.
func (l *layers) blame(ctx context.Context, layer ocispec.Descriptor, err error) error {
	if ctx.Err() != nil || errors.Is(err, unix.ENOSPC) {
		return err
	}
	if l.st.verify(ctx, layer) == nil {
		return err
	}
	if dropped := l.st.discard(context.WithoutCancel(ctx), layer.Digest); dropped != nil {
		return errors.Join(err, dropped)
	}
	return fmt.Errorf("its file on this disk was damaged and is dropped: pull or load the image again: %w", err)
}

func syncFS(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	return nil
}

// writable is the directory behind a snapshot's mounts and those below it.
func writable(mounts []mount.Mount) (upper string, parents []string, err error) {
	if len(mounts) == 1 && mounts[0].Type == "bind" {
		return mounts[0].Source, nil, nil
	}
	if len(mounts) == 1 && mounts[0].Type == "overlay" {
		for _, o := range mounts[0].Options {
			if dir, ok := strings.CutPrefix(o, "upperdir="); ok {
				upper = dir
			}
			if list, ok := strings.CutPrefix(o, "lowerdir="); ok {
				parents = strings.Split(list, ":")
			}
		}
	}
	if upper == "" {
		return "", nil, fmt.Errorf("a snapshot of mounts %v is not understood", mounts)
	}
	return upper, parents, nil
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
		return nil, fmt.Errorf("look at layers %s: %w", top, err)
	}
	defer func() { _ = l.st.snaps.Remove(context.WithoutCancel(ctx), key) }()
	dirs, err := lowerDirs(mounts)
	for _, dir := range dirs {
		if _, err := os.Stat(dir); err != nil {
			return nil, fmt.Errorf("a layer's directory is gone from this disk: remove the image and pull it again: %w", err)
		}
	}
	return dirs, err
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
