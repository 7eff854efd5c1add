package image

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/moby/moby/api/types/image"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/archive"
)

// Usage is what the store takes of the disk, as du counts it.
type Usage struct {
	image.DiskUsage

	// All parts of images are in one of these: those of one image only, those of several, each counted once, and those of none, which the next
	// removal collects.
	Unique, Shared, Unused int64

	Partial   int64 // downloads that stopped half-way, to be taken up again
	Unpacking int64 // layers that are being made
	Rest      int64 // databases and folders

	Paths []string // what of the root directory all that is about
}

// DiskUsage adds up what images take. Reclaimable is what only images have that no container uses.
func (s *Service) DiskUsage(ctx context.Context) (Usage, error) {
	sizes, u, err := s.space(in(ctx))
	if err != nil {
		return u, err
	}
	ctx = in(ctx)
	list, err := s.entries(ctx)
	if err != nil {
		return u, err
	}
	users := s.counts()
	of := make([]map[string]int64, len(list))
	times := map[string]int{}  // how many images have a part
	inUse := map[string]bool{} // whether one of them is used by a container
	for i, e := range list {
		of[i] = s.parts(ctx, e.target)
		for part := range of[i] {
			times[part]++
			inUse[part] = inUse[part] || users[e.target.Digest] > 0
		}
	}
	u.DiskUsage = image.DiskUsage{TotalCount: int64(len(list)), TotalSize: total(sizes), Items: []image.Summary{}}
	for i, e := range list {
		sum := summary(e, nil)
		sum.Containers, sum.SharedSize = users[e.target.Digest], 0
		if sum.Containers > 0 {
			u.ActiveCount++
		}
		for part := range of[i] {
			sum.Size += sizes[part]
			if times[part] > 1 {
				sum.SharedSize += sizes[part]
			}
		}
		u.Items = append(u.Items, sum)
	}
	for part, size := range sizes {
		switch {
		case times[part] == 0:
			u.Unused += size
		case times[part] == 1:
			u.Unique += size
		default:
			u.Shared += size
		}
		if !inUse[part] {
			u.Reclaimable += size
		}
	}
	return u, nil
}

// taken is what all blobs and layers take.
func (l *layers) taken(ctx context.Context) int64 {
	sizes, _, _ := l.space(ctx)
	return total(sizes)
}

// space measures every part of the store, named as Service.parts names them, and all that is no part.
func (l *layers) space(ctx context.Context) (sizes map[string]int64, u Usage, err error) {
	sizes = map[string]int64{}
	if err := blobSpace(ctx, l.st.root, sizes, &u); err != nil {
		return nil, u, fmt.Errorf("measure content: %w", err)
	}
	if err := l.layerSpace(ctx, sizes, &u); err != nil {
		return nil, u, fmt.Errorf("measure layers: %w", err)
	}
	u.Paths = append(u.Paths, "content")
	return sizes, u, databaseSpace(l.st.root, &u)
}

func databaseSpace(root string, u *Usage) error {
	files, err := filepath.Glob(filepath.Join(root, "images.*"))
	for _, path := range files {
		var st unix.Stat_t
		if unix.Lstat(path, &st) == nil {
			u.Paths, u.Rest = append(u.Paths, filepath.Base(path)), u.Rest+archive.SpaceOf(&st)
		}
	}
	return err
}

func blobSpace(ctx context.Context, root string, sizes map[string]int64, u *Usage) error {
	all, err := archive.UsedBelow(ctx, filepath.Join(root, "content"), func(e *archive.Entry) bool {
		parts := strings.Split(e.Path, "/")
		if len(parts) != 3 || parts[0] != "blobs" || e.IsDir() {
			return false
		}
		sizes[parts[1]+":"+parts[2]] = archive.SpaceOf(&e.Stat)
		return true
	})
	if err != nil {
		return err
	}
	u.Partial, err = archive.UsedBelow(ctx, filepath.Join(root, "content", "ingest"), nil)
	u.Rest += max(0, all-u.Partial)
	return err
}

// layerSpace takes what layers have from the database, where it was noted when they were made, and walks only what lies beside them.
func (l *layers) layerSpace(ctx context.Context, sizes map[string]int64, u *Usage) error {
	folders, err := l.layerFolders(ctx)
	if err != nil {
		return err
	}
	apart, unpacked := map[string]bool{}, map[string]bool{} // folders of layers, and those that these are in
	var files int64                                         // of layers that are a file, which the walk below meets
	for chain, dir := range folders {
		usage, err := l.st.snaps.Usage(ctx, chain)
		if err != nil {
			continue // it has just been collected
		}
		sizes[layerPart+chain] = usage.Size
		if dir != "" && strings.HasPrefix(dir, l.st.root+"/") {
			apart[dir], unpacked[filepath.Dir(dir)] = true, true
		} else {
			files += usage.Size
		}
	}
	dirs, err := filepath.Glob(filepath.Join(l.st.root, "snapshots*"))
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		u.Paths = append(u.Paths, filepath.Base(dir))
		used, err := archive.UsedBelow(ctx, dir, func(e *archive.Entry) bool {
			if e.IsDir() && apart[filepath.Join(dir, e.Path)] {
				return true
			}
			if parts := strings.Split(e.Path, "/"); len(parts) > 1 && !unpacked[filepath.Join(dir, parts[0], parts[1])] {
				u.Unpacking += archive.SpaceOf(&e.Stat)
			}
			return false
		})
		if err != nil {
			return err
		}
		u.Rest += used
	}
	u.Rest -= u.Unpacking
	u.Unpacking = max(0, u.Unpacking-files)
	return nil
}

// layerFolders are the chain ids of all layers, each with its directory, "" where it has none that can be found.
func (l *layers) layerFolders(ctx context.Context) (map[string]string, error) {
	parents := map[string]string{}
	isParent := map[string]bool{}
	err := l.st.snaps.Walk(ctx, func(_ context.Context, i snapshots.Info) error {
		if i.Kind == snapshots.KindCommitted {
			parents[i.Name] = i.Parent
			isParent[i.Parent] = true
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	out := make(map[string]string, len(parents))
	for chain := range parents {
		out[chain] = ""
	}
	for chain := range parents {
		if isParent[chain] {
			continue
		}
		at := chain
		for _, dir := range l.folders(ctx, digest.Digest(chain)) {
			out[at], at = dir, parents[at]
		}
	}
	return out, nil
}

// folders are the directories of a layer and those below it.
func (l *layers) folders(ctx context.Context, top digest.Digest) []string {
	if dirs := l.known(top); dirs != nil {
		return dirs
	}
	l.mu.Lock()
	forgotten := l.forgotten
	l.mu.Unlock()
	dirs, err := l.where(ctx, top)
	if err != nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.forgotten == forgotten {
		l.dirs[top] = dirs
	}
	return dirs
}
