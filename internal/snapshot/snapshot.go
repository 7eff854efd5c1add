// Package snapshot keeps layers: each committed one is an EROFS image in a file, or a directory.
//
// A Snapshotter is containerd's interface of that name (core/snapshots). Its layers may be of both forms beside each other, in one chain
// too: Options.Format decides only what new ones become. An image is mounted once, at a path below Options.Mounts, when it is first needed;
// all containers share that mount, hence one superblock and one page cache. Mounts outlive the process that made them and are found again;
// they go with their layer. Where the kernel cannot mount images, they are unpacked into a directory that stands at the same path.
//
// What Prepare returns for a snapshot with the label ForUnpacking is a mount of type FileMount: the file to write a layer's image to.
//
//	<root>/metadata.db               names, parents, kinds, sizes
//	<root>/snapshots/<id>/fs/        a directory layer; an active snapshot's changes
//	<root>/snapshots/<id>/work/      overlay's, of active snapshots
//	<root>/snapshots/<id>/layer.erofs
//	<mounts>/<name of root>/<id>     where layer.erofs is mounted
//
// All methods are safe for many goroutines.
package snapshot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/storage"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/archive"
	"wherry.dev/wherry/internal/erofs"
	"wherry.dev/wherry/internal/rootfs"
)

// Format is what layers become.
type Format string

// Formats. Auto is EROFS where the kernel can mount it from files, directories elsewhere.
const (
	Auto    Format = "auto"
	EROFS   Format = "erofs"
	Overlay Format = "overlay"
)

// ForUnpacking labels a snapshot that a layer is unpacked into, by one who writes an image himself when he is given a FileMount. With the value
// AsDirectory it becomes a directory, whatever other layers do.
const (
	ForUnpacking = "containerd.io/snapshot/wherry.unpack"
	AsDirectory  = "directory"
)

// ErrTooMany says that a layer has more files than an image is made of: it can be a directory.
var ErrTooMany = erofs.ErrTooMany

// MayStayDirectory labels a snapshot whose changes stay the directory that they were written to, where they are many: to write them once more
// would take longer than what made them. Few are written faster into an image than a file system is synced.
const MayStayDirectory = "containerd.io/snapshot/wherry.may-stay-directory"

// FileMount is the type of a mount that is none: Source is the file to write an image to (package erofs), and to sync, before Commit.
// Its options are lowerdir=…, the layers below, when there are any.
const FileMount = "wherry/erofs"

// AsStored labels a view by one who looks for damage: it is given a StoredMount.
const AsStored = "containerd.io/snapshot/wherry.stored"

// StoredMount is the type of a mount that is none: Source is the file or the directory that the topmost layer lies in, mounted or not, there or
// not.
const StoredMount = "wherry/stored"

// layerFile is a layer's image in its directory.
const layerFile = "layer.erofs"

// Options of Open.
type Options struct {
	Root   string      // metadata and layers lie here
	Mounts string      // where images are mounted; "" means that there are none to be
	Format Format      // of new layers; "" is Overlay
	Kept   int64       // ImageOptions.Kept of changes that become an image
	Log    func(error) // hears of what was done otherwise than asked; nil: nobody does
}

// Snapshotter keeps layers below a root.
type Snapshotter struct {
	root   string
	format Format
	kept   int64
	ms     *storage.MetaStore
	mounts *Mounts
	holds  holds
}

var _ snapshots.Snapshotter = (*Snapshotter)(nil)

// Open opens the layers below o.Root, or begins with none.
func Open(o Options) (*Snapshotter, error) {
	if err := os.MkdirAll(filepath.Join(o.Root, "snapshots"), 0o700); err != nil {
		return nil, err
	}
	rootfs.Spread(filepath.Join(o.Root, "snapshots"))
	m := newMounts(o)
	if err := m.dropProbes(o.Root); err != nil {
		return nil, err
	}
	format, err := m.choose(o.Format)
	if err != nil {
		return nil, err
	}
	ms, err := storage.NewMetaStore(filepath.Join(o.Root, "metadata.db"))
	if err != nil {
		return nil, fmt.Errorf("open the layers' names: %w", err)
	}
	return &Snapshotter{root: o.Root, format: format, kept: o.Kept, ms: ms, mounts: m}, nil
}

// Format is what new layers become.
func (s *Snapshotter) Format() Format { return s.format }

// Images are the mounts of layers.
func (s *Snapshotter) Images() *Mounts { return s.mounts }

// store is what this root is called below the place of mounts: others may stand beside it.
func (s *Snapshotter) store() string { return filepath.Base(s.root) }

// Close closes the metadata. Mounts stay.
func (s *Snapshotter) Close() error { return s.ms.Close() }

func (s *Snapshotter) dir(id string, more ...string) string {
	return filepath.Join(append([]string{s.root, "snapshots", id}, more...)...)
}

// place is the directory of a committed layer's files, mounted where it is an image.
func (s *Snapshotter) place(id string) (string, error) {
	if _, err := os.Lstat(s.dir(id, layerFile)); err != nil {
		dir := s.dir(id, "fs")
		_, err := os.Lstat(dir)
		return dir, err
	}
	return s.mounts.layer(s.store(), id)
}

// stored is where a committed layer lies. One that has lost its files was a directory where overlay's directory for work is still there.
func (s *Snapshotter) stored(id string) string {
	file, dir := s.dir(id, layerFile), s.dir(id, "fs")
	isThere := func(path string) bool { _, err := os.Lstat(path); return err == nil }
	switch {
	case isThere(file):
		return file
	case isThere(dir), isThere(s.dir(id, "work")), !isThere(s.dir(id)) && s.format != EROFS:
		return dir
	}
	return file
}

func (s *Snapshotter) places(ids []string) ([]string, error) {
	out := make([]string, len(ids))
	for i, id := range ids {
		var err error
		if out[i], err = s.place(id); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// Stat tells of one snapshot.
func (s *Snapshotter) Stat(ctx context.Context, key string) (info snapshots.Info, err error) {
	err = s.ms.WithTransaction(ctx, false, func(ctx context.Context) error {
		_, info, _, err = storage.GetInfo(ctx, key)
		return err
	})
	return info, err
}

// Update changes labels.
func (s *Snapshotter) Update(ctx context.Context, info snapshots.Info, fields ...string) (out snapshots.Info, err error) {
	err = s.ms.WithTransaction(ctx, true, func(ctx context.Context) error {
		out, err = storage.UpdateInfo(ctx, info, fields...)
		return err
	})
	return out, err
}

// Walk calls fn for all snapshots.
func (s *Snapshotter) Walk(ctx context.Context, fn snapshots.WalkFunc, filters ...string) error {
	return s.ms.WithTransaction(ctx, false, func(ctx context.Context) error { return storage.WalkInfo(ctx, fn, filters...) })
}

// Usage is the disk space of a snapshot without its parents.
func (s *Snapshotter) Usage(ctx context.Context, key string) (usage snapshots.Usage, err error) {
	var info snapshots.Info
	var id string
	err = s.ms.WithTransaction(ctx, false, func(ctx context.Context) error {
		id, info, usage, err = storage.GetInfo(ctx, key)
		return err
	})
	if err != nil || info.Kind != snapshots.KindActive {
		return usage, err
	}
	if s.isFile(id) {
		return fileUsage(s.dir(id, layerFile))
	}
	return dirUsage(ctx, s.dir(id, "fs"))
}

func unpacking(info snapshots.Info) bool {
	_, ok := info.Labels[ForUnpacking]
	return ok
}

// formatOf is what a snapshot becomes where others become a format.
func formatOf(info snapshots.Info, format Format) Format {
	if info.Labels[ForUnpacking] == AsDirectory {
		return Overlay
	}
	return format
}

// isFile says that an active snapshot is an image that is written.
func (s *Snapshotter) isFile(id string) bool {
	_, err := os.Lstat(s.dir(id, "fs"))
	return err != nil
}

func fileUsage(path string) (snapshots.Usage, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err == unix.ENOENT {
		return snapshots.Usage{}, nil // not one byte is there yet
	} else if err != nil {
		return snapshots.Usage{}, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return snapshots.Usage{Size: st.Blocks * 512, Inodes: 1}, nil
}

// dirUsage counts what a directory takes on the disk, hard links once.
func dirUsage(ctx context.Context, path string) (u snapshots.Usage, err error) {
	f, err := os.OpenFile(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return u, err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return u, err
	}
	u = snapshots.Usage{Size: st.Blocks * 512, Inodes: 1}
	seen := map[uint64]bool{}
	err = archive.Walk(ctx, f, archive.WalkOptions{OneMount: true}, func(e *archive.Entry) (bool, error) {
		if !e.IsDir() && e.Stat.Nlink > 1 {
			if seen[e.Stat.Ino] {
				return false, nil
			}
			seen[e.Stat.Ino] = true
		}
		u.Size += e.Stat.Blocks * 512
		u.Inodes++
		return e.IsDir(), nil
	})
	return u, err
}

// Prepare begins a snapshot that can be written to.
func (s *Snapshotter) Prepare(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	return s.create(ctx, snapshots.KindActive, key, parent, opts)
}

// View makes a snapshot that can only be read.
func (s *Snapshotter) View(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	return s.create(ctx, snapshots.KindView, key, parent, opts)
}

func (s *Snapshotter) create(ctx context.Context, kind snapshots.Kind, key, parent string, opts []snapshots.Opt) (_ []mount.Mount, err error) {
	if err := isHere(ctx, s, parent, opts); err != nil {
		return nil, err
	}
	var snap storage.Snapshot
	var info snapshots.Info
	err = s.ms.WithTransaction(ctx, true, func(ctx context.Context) error {
		if snap, err = storage.CreateSnapshot(ctx, kind, key, parent, opts...); err != nil {
			return err
		}
		if _, info, _, err = storage.GetInfo(ctx, key); err != nil {
			return err
		}
		if err = s.begin(snap, info); err != nil { // here, since the next one may be given the same id
			err = errors.Join(err, rootfs.RemoveTree(s.dir(snap.ID)))
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("snapshot %s: %w", key, err)
	}
	if _, ok := info.Labels[AsStored]; ok && len(snap.ParentIDs) > 0 {
		return []mount.Mount{{Type: StoredMount, Source: s.stored(snap.ParentIDs[0])}}, nil
	}
	mounts, err := s.first(snap)
	if err != nil { // nothing stays of what was not given
		return nil, fmt.Errorf("snapshot %s: %w", key, errors.Join(err, s.Remove(context.WithoutCancel(ctx), key), rootfs.RemoveTree(s.dir(snap.ID))))
	}
	return mounts, nil
}

// isHere is errdefs.ErrAlreadyExists where a committed snapshot says by its label that it is the one which is asked for: containerd's way of
// giving a snapshot one more name (core/snapshots, LabelSnapshotRef).
func isHere(ctx context.Context, s *Snapshotter, parent string, opts []snapshots.Opt) error {
	var asked snapshots.Info
	for _, o := range opts {
		if err := o(&asked); err != nil {
			return err
		}
	}
	target := asked.Labels[snapshots.LabelSnapshotRef]
	if target == "" {
		return nil
	}
	found := false
	err := s.Walk(ctx, func(_ context.Context, i snapshots.Info) error {
		found = found || i.Kind == snapshots.KindCommitted && i.Parent == parent && i.Labels[snapshots.LabelSnapshotRef] == target
		return nil
	})
	if err == nil && found {
		err = fmt.Errorf("snapshot %s: %w", target, errdefs.ErrAlreadyExists)
	}
	return err
}

// first gives a new snapshot's mounts. The root of its changes looks like the one below it.
func (s *Snapshotter) first(snap storage.Snapshot) ([]mount.Mount, error) {
	mounts, err := s.mountsOf(snap)
	if err != nil || snap.Kind != snapshots.KindActive || len(snap.ParentIDs) == 0 || mounts[0].Type == FileMount {
		return mounts, err
	}
	below, err := s.place(snap.ParentIDs[0])
	if err == nil {
		err = like(s.dir(snap.ID, "fs"), below)
	}
	return mounts, err
}

// begin makes a new snapshot's directories.
func (s *Snapshotter) begin(snap storage.Snapshot, info snapshots.Info) error {
	dir := s.dir(snap.ID)
	if err := rootfs.RemoveTree(dir); err != nil { // of a snapshot whose record was never written
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	if snap.Kind == snapshots.KindActive && unpacking(info) && formatOf(info, s.format) == EROFS {
		return nil
	}
	upper := s.dir(snap.ID, "fs")
	if err := errors.Join(os.Mkdir(upper, 0o755), os.Chmod(upper, 0o755)); err != nil {
		return err
	}
	if snap.Kind != snapshots.KindActive {
		return nil
	}
	return os.Mkdir(s.dir(snap.ID, "work"), 0o711)
}

// like gives a directory another's mode and owner.
func like(dir, other string) error {
	var st unix.Stat_t
	if err := unix.Stat(other, &st); err != nil {
		return &os.PathError{Op: "stat", Path: other, Err: err}
	}
	return errors.Join(os.Chown(dir, int(st.Uid), int(st.Gid)), unix.Chmod(dir, st.Mode&0o7777))
}

// Mounts of a snapshot that was made before.
func (s *Snapshotter) Mounts(ctx context.Context, key string) ([]mount.Mount, error) {
	var snap storage.Snapshot
	err := s.ms.WithTransaction(ctx, false, func(ctx context.Context) (err error) {
		snap, err = storage.GetSnapshot(ctx, key)
		return err
	})
	if err != nil {
		return nil, err
	}
	return s.mountsOf(snap)
}

func (s *Snapshotter) mountsOf(snap storage.Snapshot) ([]mount.Mount, error) {
	lower, err := s.places(snap.ParentIDs)
	if err != nil {
		return nil, err
	}
	active := snap.Kind == snapshots.KindActive
	below := "lowerdir=" + strings.Join(lower, ":")
	upper := s.dir(snap.ID, "fs")
	switch {
	case active && s.isFile(snap.ID):
		m := mount.Mount{Type: FileMount, Source: s.dir(snap.ID, layerFile)}
		if len(lower) > 0 {
			m.Options = []string{below}
		}
		return []mount.Mount{m}, nil
	case len(lower) == 0 && active:
		return bind(upper, "rw"), nil
	case len(lower) == 0:
		return bind(upper, "ro"), nil
	case len(lower) == 1 && !active:
		return bind(lower[0], "ro"), nil
	}
	options := []string{below, "index=off"}
	if active {
		// Whole files and directories in the changes, whatever the host's default is: a layer is made of them by themselves.
		options = append(options, "redirect_dir=off", "metacopy=off", "workdir="+s.dir(snap.ID, "work"), "upperdir="+upper)
	}
	return []mount.Mount{{Type: "overlay", Source: "overlay", Options: options}}, nil
}

func bind(dir, how string) []mount.Mount {
	return []mount.Mount{{Type: "bind", Source: dir, Options: []string{how, "rbind"}}}
}
