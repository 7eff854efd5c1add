// Package disk adds up what the engine takes on disk: images, containers, volumes, and the rest, so that nothing below --root is missing.
//
// It keeps nothing. Sizes are the file system's blocks, as du counts them, not lengths of files: holes take nothing, and a file with several
// names counts once.
package disk

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/api/types/volume"

	"wherry.dev/wherry/internal/archive"
	containers "wherry.dev/wherry/internal/container"
	"wherry.dev/wherry/internal/files"
	"wherry.dev/wherry/internal/image"
	volumes "wherry.dev/wherry/internal/volume"
)

// Service measures. Safe for many goroutines.
type Service struct {
	Root       string
	Images     *image.Service
	Containers *containers.Service
	Volumes    *volumes.Service
	Files      *files.Service
	// Cache lists the build cache; nil: there is none.
	Cache func(context.Context) ([]build.CacheRecord, error)
}

// Wanted are the kinds that Usage is to look at; the zero value means all.
type Wanted struct{ Images, Containers, Volumes, Cache bool }

// Usage is Docker's usage and what it leaves out. Without images, containers and volumes all together there is no Other.
type Usage struct {
	system.DiskUsage
	Other *Other
}

// Other is what Docker's answer has no place for.
type Other struct {
	TotalSize    int64 // of Items
	UniqueSize   int64 // of images: what one of them has alone,
	SharedSize   int64 // what several have, once,
	UnusedSize   int64 // and what none has any more
	EntireSize   int64 // all below --root
	Items        []Item
	RootCapacity int64 // of the file system that --root is on
	RootFree     int64
}

// Item is one kind of other things.
type Item struct {
	Name string
	Size int64
}

// Usage adds up. A running container goes on writing meanwhile.
func (s *Service) Usage(ctx context.Context, w Wanted) (Usage, error) {
	var out Usage
	all := w == Wanted{}
	var images image.Usage
	if all || w.Images || w.Cache {
		var err error
		if images, err = s.Images.DiskUsage(ctx); err != nil {
			return out, err
		}
	}
	if all || w.Images {
		out.ImageUsage = &images.DiskUsage
	}
	if all || w.Cache {
		var err error
		if out.BuildCacheUsage, err = s.cache(ctx, images); err != nil {
			return out, err
		}
	}
	if all || w.Containers {
		var err error
		if out.ContainerUsage, err = s.containers(ctx); err != nil {
			return out, err
		}
	}
	if all || w.Volumes {
		var err error
		if out.VolumeUsage, err = s.volumes(ctx); err != nil {
			return out, err
		}
	}
	if all {
		var err error
		if out.Other, err = s.other(ctx, images, out.DiskUsage); err != nil {
			return out, fmt.Errorf("measure %s: %w", s.Root, err)
		}
	}
	return out, nil
}

// containers have a size each that is all of theirs: writable layer, output, record.
func (s *Service) containers(ctx context.Context) (*container.DiskUsage, error) {
	list, err := s.Containers.List(ctx, containers.ListOptions{All: true})
	if err != nil {
		return nil, err
	}
	if err := containers.Each(list, func(c *container.Summary) error { return s.container(ctx, c) }); err != nil {
		return nil, err
	}
	u := &container.DiskUsage{Items: list, TotalCount: int64(len(list))}
	for i := range list {
		c := &list[i]
		u.TotalSize += c.SizeRw
		switch c.State {
		case container.StateRunning, container.StatePaused, container.StateRestarting:
			u.ActiveCount++
		default:
			u.Reclaimable += c.SizeRw
		}
	}
	return u, nil
}

func (s *Service) container(ctx context.Context, c *container.Summary) error {
	c.ImageManifestDescriptor = nil // a list of containers has it, this one never had
	m, err := containers.MeasuredOf(s.Containers, c.ID)
	if err != nil {
		return nil // it is being removed
	}
	if rw, root, err := s.Files.Size(ctx, m); err == nil {
		c.SizeRootFs = root - rw
	}
	c.SizeRw, err = m.Kept.Of("used", func() (int64, error) {
		sizes, err := m.Trees.All.Measure(ctx, m.Dir)
		return sizes.Used, err
	})
	if err != nil {
		return fmt.Errorf("measure container %s: %w", c.ID, err)
	}
	c.SizeRootFs += c.SizeRw
	return nil
}

// cache is what builds keep for the next ones. What an image has too counts as the image's.
func (s *Service) cache(ctx context.Context, i image.Usage) (*build.DiskUsage, error) {
	u := &build.DiskUsage{TotalSize: i.Cache}
	if s.Cache == nil {
		return u, nil
	}
	list, err := s.Cache(ctx)
	if err != nil {
		return nil, err
	}
	u.Items, u.TotalCount, u.Reclaimable = list, int64(len(list)), i.Cache
	for n := range list {
		r := &list[n]
		own := i.CacheOf[r.ID]
		r.Shared = own == 0 && r.Size > 0
		if !r.Shared {
			r.Size = own
		}
		if r.InUse {
			u.ActiveCount++
			u.Reclaimable -= own
		}
	}
	return u, nil
}

func (s *Service) volumes(ctx context.Context) (*volume.DiskUsage, error) {
	list, err := s.Volumes.Usage(ctx)
	if err != nil {
		return nil, err
	}
	u := &volume.DiskUsage{Items: list, TotalCount: int64(len(list))}
	for i := range list {
		v := &list[i]
		u.TotalSize += max(v.UsageData.Size, 0)
		if v.UsageData.RefCount > 0 {
			u.ActiveCount++
		} else {
			u.Reclaimable += max(v.UsageData.Size, 0)
		}
	}
	return u, nil
}

// other measures what is left below the root directory.
func (s *Service) other(ctx context.Context, i image.Usage, d system.DiskUsage) (*Other, error) {
	counted := map[string]bool{}
	for _, c := range d.ContainerUsage.Items {
		counted[filepath.Join("containers", c.ID)] = true
	}
	for _, v := range d.VolumeUsage.Items {
		counted[filepath.Join("volumes", v.Name)] = true
	}
	rest, err := archive.UsedBelow(ctx, s.Root, func(e *archive.Entry) bool {
		return counted[e.Path] || slices.Contains(i.Paths, e.Path)
	})
	if err != nil {
		return nil, err
	}
	o := &Other{UniqueSize: i.Unique, SharedSize: i.Shared, UnusedSize: i.Unused, Items: []Item{
		{"partial downloads", i.Partial}, {"unfinished layers", i.Unpacking}, {"image database", i.Rest}, {"engine and networks", rest},
	}}
	for _, item := range o.Items {
		o.TotalSize += item.Size
	}
	o.EntireSize = o.TotalSize + d.ImageUsage.TotalSize + d.ContainerUsage.TotalSize + d.VolumeUsage.TotalSize + i.Cache
	space, err := archive.Capacity(s.Root)
	o.RootCapacity, o.RootFree = space.Bytes, space.Free
	return o, err
}
