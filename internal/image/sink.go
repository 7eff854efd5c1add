package image

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	"golang.org/x/sys/unix"

	fslayer "wherry.dev/wherry/internal/layer"
	"wherry.dev/wherry/internal/snapshot"
)

// sink is a snapshot that a layer is unpacked into.
type sink interface {
	fslayer.Sink
	// Finish is called when all of the layer has been added.
	Finish() error
	// Settle is called when the layers below have their places, topmost first: what the layer does not say comes from them.
	Settle(below []string) error
	// Sync brings what was written to the disk. One call may serve all sinks of a kind that were settled before.
	Sync() error
	// Measure notes what the layer takes on the disk, for the commit: others wait while that lasts.
	Measure(ctx context.Context) error
	// Place is where the layer's files will be once it is committed; "" is not known by then.
	Place() string
	Close() error
}

// sinkFor unpacks into what a snapshotter has prepared: its mounts say in which form it wants layers.
func (s *store) sinkFor(mounts []mount.Mount, o fslayer.DirOptions) (sink, error) {
	if len(mounts) == 1 && mounts[0].Type == snapshot.FileMount {
		i, err := snapshot.NewImage(mounts[0].Source, snapshot.ImageOptions{Base: o.Base, Kept: s.kept})
		if err != nil {
			return nil, fmt.Errorf("unpack into %s: %w", mounts[0].Source, err)
		}
		return &imageFile{Image: i, path: mounts[0].Source, mounts: s.mounts}, nil
	}
	if len(mounts) == 1 && mounts[0].Type == "bind" {
		d, err := fslayer.NewDir(mounts[0].Source, o)
		if err != nil {
			return nil, fmt.Errorf("unpack into %s: %w", mounts[0].Source, err)
		}
		return &directory{Dir: d, path: mounts[0].Source, mounts: s.mounts}, nil
	}
	return nil, fmt.Errorf("a snapshot of mounts %v is not understood", mounts)
}

// imageFile is a layer in the form of an EROFS image.
type imageFile struct {
	*snapshot.Image
	path   string
	mounts *snapshot.Mounts
	place  string
}

// Settle also mounts the image: the next layer asks it for what it does not say itself.
func (f *imageFile) Settle(below []string) (err error) {
	if err := f.Image.Settle(below); err != nil {
		return err
	}
	f.place, err = f.mounts.Of(f.path)
	return err
}

// Measure: a file's size is known at once.
func (f *imageFile) Measure(context.Context) error { return nil }

func (f *imageFile) Place() string { return f.place }

// directory is a layer in the form of overlay directories.
type directory struct {
	*fslayer.Dir
	path   string
	mounts *snapshot.Mounts
}

func (d *directory) Settle(below []string) error {
	return fslayer.Inherit(d.Dir, below)
}

func (d *directory) Sync() error { return syncFS(d.path) }

func (d *directory) Measure(ctx context.Context) error { return d.mounts.Measure(ctx, d.path) }

func (d *directory) Place() string { return d.path }

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
