package image

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/moby/moby/api/types/image"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/archive"
)

// Usage is what the store takes of the disk, as du counts it.
type Usage struct {
	image.DiskUsage

	// All parts of images are in one of these: those of one image only, those of several, each counted once, and those of none, which the next
	// removal collects.
	Unique, Shared, Unused int64

	Cache   int64            // what only the build cache has
	CacheOf map[string]int64 // the same by the cache's records

	Partial   int64 // downloads that stopped half-way, to be taken up again
	Unpacking int64 // layers that are being made
	Rest      int64 // databases and folders

	Paths []string // what of the root directory all that is about
}

// DiskUsage adds up what images take. Reclaimable is what only images have that no container uses.
func (s *Service) DiskUsage(ctx context.Context) (Usage, error) {
	sizes, u, err := s.space(in(ctx))
	if errors.Is(err, errLeftovers) { // of what failed: a download that was broken off, a view
		if err = s.sweep(ctx); err == nil {
			sizes, u, err = s.space(in(ctx))
		}
	}
	if err != nil && !errors.Is(err, errLeftovers) {
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
	u.CacheOf = map[string]int64{}
	cached, err := s.cacheParts(ctx)
	if err != nil {
		return u, err
	}
	for part, size := range sizes {
		switch {
		case times[part] == 0 && cached[part] != "":
			u.Cache += size
			u.CacheOf[cached[part]] += size
			u.TotalSize -= size
			continue
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
func (l *layers) taken(ctx context.Context) (int64, error) {
	sizes, _, err := l.space(ctx)
	if errors.Is(err, errLeftovers) {
		err = nil
	}
	return total(sizes), err
}

// space measures every part of the store, named as Service.parts names them, and all that is no part. With errLeftovers it is all there, but for
// what waits to be collected.
func (l *layers) space(ctx context.Context) (sizes map[string]int64, u Usage, err error) {
	sizes = map[string]int64{}
	if err := blobSpace(ctx, l.st.root, sizes, &u); err != nil {
		return nil, u, fmt.Errorf("measure content: %w", err)
	}
	left := l.layerSpace(ctx, sizes, &u)
	if left != nil && !errors.Is(left, errLeftovers) {
		return nil, u, fmt.Errorf("measure layers: %w", left)
	}
	u.Paths = append(u.Paths, "content")
	if err := databaseSpace(ctx, l.st.root, &u); err != nil {
		return nil, u, err
	}
	return sizes, u, left
}

func databaseSpace(ctx context.Context, root string, u *Usage) error {
	files, err := filepath.Glob(filepath.Join(root, "images.*"))
	for _, path := range files {
		var st unix.Stat_t
		if unix.Lstat(path, &st) != nil {
			continue
		}
		used := archive.SpaceOf(&st)
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			if used, err = archive.UsedBelow(ctx, path, nil); err != nil {
				return fmt.Errorf("measure the records of layers: %w", err)
			}
		}
		u.Paths, u.Rest = append(u.Paths, filepath.Base(path)), u.Rest+used
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

// layerSpace takes what layers have from the database, where it was noted when they were made, and walks only what lies beside them: a layer is
// snapshots/<id>/fs or snapshots/<id>/layer.erofs, as one that is being made is too.
func (l *layers) layerSpace(ctx context.Context, sizes map[string]int64, u *Usage) error {
	active, layers, empty, err := l.layerSizes(ctx, sizes)
	if err != nil {
		return err
	}
	dirs, err := filepath.Glob(filepath.Join(l.st.root, "snapshots*"))
	if err != nil {
		return err
	}
	current, met := currentLayers(l.st.root), 0
	for _, dir := range dirs {
		u.Paths = append(u.Paths, filepath.Base(dir))
		used, err := archive.UsedBelow(ctx, dir, func(e *archive.Entry) bool {
			parts := strings.Split(e.Path, "/")
			if dir != current || len(parts) < 3 || parts[2] != "fs" && parts[2] != "layer.erofs" {
				return false
			}
			if active[filepath.Join(dir, parts[0], parts[1], parts[2])] {
				u.Unpacking += archive.SpaceOf(&e.Stat)
				return false
			}
			if e.IsDir() && isEmpty(e) { // of a view
				return false
			}
			met++
			return true
		})
		if err != nil {
			return err
		}
		u.Rest += used
	}
	u.Rest -= u.Unpacking + empty
	if met != layers {
		return errLeftovers
	}
	return nil
}

// errLeftovers says that there are layers on disk that are not in the database any more.
var errLeftovers = errors.New("layers wait to be collected")

// layerSizes notes the size of each layer, and says where those are that are being made, how many layers are not empty, and what the others take.
func (l *layers) layerSizes(ctx context.Context, sizes map[string]int64) (active map[string]bool, n int, empty int64, err error) {
	active = map[string]bool{}
	var committed, making []string
	other := map[string]string{}
	err = l.st.snaps.Walk(ctx, func(_ context.Context, i snapshots.Info) error {
		switch i.Kind {
		case snapshots.KindCommitted:
			committed = append(committed, i.Name)
			if of := i.Labels[snapshots.LabelSnapshotRef]; of != i.Name {
				other[i.Name] = of
			}
		case snapshots.KindActive:
			making = append(making, i.Name)
		}
		return nil
	})
	for _, chain := range committed {
		if slices.Contains(committed, other[chain]) {
			continue // a build's name for what is counted by its chain ID
		}
		usage, err := l.st.snaps.Usage(ctx, chain)
		if err != nil {
			continue // it has just been collected
		}
		sizes[layerPart+chain] = usage.Size
		if n++; usage.Inodes == 1 && usage.Size <= 4096 {
			n--
			empty += usage.Size
		}
	}
	for _, key := range making {
		mounts, err := l.st.snaps.Mounts(ctx, key)
		if err != nil || len(mounts) != 1 {
			continue
		}
		active[mounts[0].Source] = true
		for _, o := range mounts[0].Options {
			if dir, ok := strings.CutPrefix(o, "upperdir="); ok {
				active[dir] = true
			}
		}
	}
	return active, n, empty, err
}

func isEmpty(e *archive.Entry) bool {
	f, err := archive.OpenBelow(e.Dir, e.Name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return false
	}
	defer f.Close()
	names, _ := f.Readdirnames(1)
	return len(names) == 0
}
