package snapshot

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/storage"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/erofs"
	"wherry.dev/wherry/internal/rootfs"
)

// Commit makes a layer of an active snapshot. What was unpacked has to be on the disk by then; changes that lie in a directory are written
// into an image, where new layers are images.
func (s *Snapshotter) Commit(ctx context.Context, name, key string, opts ...snapshots.Opt) error {
	var id string
	var info snapshots.Info
	err := s.ms.WithTransaction(ctx, false, func(ctx context.Context) (err error) {
		id, info, _, err = storage.GetInfo(ctx, key)
		return err
	})
	if err != nil {
		return err
	}
	if info.Kind != snapshots.KindActive {
		return fmt.Errorf("snapshot %s is not one that is written to: %w", key, errdefs.ErrFailedPrecondition)
	}
	usage, directory, replaces, err := s.finish(ctx, id, info)
	if err != nil {
		return fmt.Errorf("commit snapshot %s: %w", key, err)
	}
	if replaces {
		opts = append(opts, func(info *snapshots.Info) error {
			info.Labels = maps.Clone(info.Labels)
			if info.Labels == nil {
				info.Labels = map[string]string{}
			}
			info.Labels[Replaces] = "yes"
			return nil
		})
	}
	err = s.ms.WithTransaction(ctx, true, func(ctx context.Context) error {
		_, err := storage.CommitActive(ctx, key, name, usage, opts...)
		return err
	})
	if err != nil {
		return fmt.Errorf("commit snapshot %s: %w", key, err)
	}
	if directory && !s.holds.leave(id) { // it is of no use any more; Cleanup removes what is left of it when this is cut off
		return s.dropDirectory(id)
	}
	return nil
}

// finish sees to it that a snapshot's files are whole and on the disk. directory says that they have become an image since; replaces, what the
// label of this name says.
func (s *Snapshotter) finish(ctx context.Context, id string, info snapshots.Info) (usage snapshots.Usage, directory, replaces bool, err error) {
	file, dir := s.dir(id, layerFile), s.dir(id, "fs")
	_, err = os.Lstat(dir)
	directory = err == nil
	var seen settled
	var lower []string
	if directory && !unpacking(info) {
		if lower, err = layersBelow(ctx, s, info); err == nil {
			seen, err = settle(ctx, dir, lower, info)
		}
		if err != nil {
			return usage, true, false, err
		}
	}
	if directory && !seen.many && formatOf(info, s.format) == EROFS {
		if err = s.convert(ctx, id); err == nil {
			usage, err = fileUsage(file)
			return usage, true, seen.replaces, err
		}
		if !errors.Is(err, ErrTooMany) {
			return usage, false, false, err
		}
	}
	if directory {
		err = nil
		if !unpacking(info) {
			err = stripNotes(ctx, dir, lower)
		}
		if err == nil {
			usage, err = keepDirectory(ctx, s.mounts, dir, info)
		}
		return usage, false, seen.replaces, err
	}
	if err = checkImage(file); err == nil {
		usage, err = fileUsage(file)
	}
	return usage, false, false, err
}

// layersBelow are those that a snapshot stands on.
func layersBelow(ctx context.Context, s *Snapshotter, info snapshots.Info) ([]string, error) {
	var snap storage.Snapshot
	err := s.ms.WithTransaction(ctx, false, func(ctx context.Context) (err error) {
		snap, err = storage.GetSnapshot(ctx, info.Name)
		return err
	})
	if err != nil {
		return nil, err
	}
	return s.places(snap.ParentIDs)
}

// keepDirectory measures changes that stay a directory. Those of one who unpacks are on the disk.
func keepDirectory(ctx context.Context, m *Mounts, dir string, info snapshots.Info) (snapshots.Usage, error) {
	if !unpacking(info) {
		if err := syncFS(dir); err != nil {
			return snapshots.Usage{}, err
		}
	}
	if usage, ok := m.measured(dir); ok {
		return usage, nil
	}
	return dirUsage(ctx, dir)
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

func checkImage(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = readerOf(f)
	return err
}

// ofDirectory is the maker of images of directories: they have the files that a tar would make, in another order.
const ofDirectory = erofs.Maker + "-dir"

// convert writes a snapshot's changes into an image: data → sync → rename.
func (s *Snapshotter) convert(ctx context.Context, id string) (err error) {
	next := s.dir(id, layerFile+".new")
	f, err := os.OpenFile(next, os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, f.Close())
		if err != nil {
			_ = os.Remove(next)
		}
	}()
	changes, err := os.OpenFile(s.dir(id, "fs"), os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer changes.Close()
	out := NewFile(f)
	defer out.Close() // before the file
	w := erofs.NewWriter(out, erofs.Options{Kept: s.kept, Maker: ofDirectory})
	if err := fromDirectory(ctx, w, changes); err != nil {
		return err
	}
	if err := out.Finish(w); err != nil {
		return err
	}
	if err := os.Rename(next, s.dir(id, layerFile)); err != nil {
		return err
	}
	return errors.Join(syncDir(s.dir(id)), syncDir(s.dir("")))
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (s *Snapshotter) dropDirectory(id string) error {
	defer s.mounts.lock(s.dir(id))() // Cleanup may be at it, too
	return errors.Join(rootfs.RemoveTree(s.dir(id, "fs")), rootfs.RemoveTree(s.dir(id, "work")))
}

// Remove takes a snapshot away. Its mount and its files are left to Cleanup: who calls this holds a lock that everybody waits for who makes a
// snapshot, and a directory of many files takes long to remove.
func (s *Snapshotter) Remove(ctx context.Context, key string) error {
	return s.ms.WithTransaction(ctx, true, func(ctx context.Context) error {
		_, _, err := storage.Remove(ctx, key)
		return err
	})
}

// drop takes away what a snapshot had. Its directory has another name than the id by then.
func (s *Snapshotter) drop(ctx context.Context, name string) error {
	defer s.mounts.lock(s.dir(name))() // Cleanup may be at it, too
	id, _, _ := strings.Cut(strings.TrimPrefix(name, goneMark), ".")
	s.mounts.measured(s.dir(id, "fs"))
	err := s.mounts.drop(s.store(), id, func() (bool, error) { return s.has(ctx, id) })
	if name == id { // only its mount was left
		return err
	}
	return errors.Join(err, rootfs.RemoveTree(s.dir(name)))
}

// has says whether there is a snapshot of this id.
func (s *Snapshotter) has(ctx context.Context, id string) (there bool, err error) {
	err = s.ms.WithTransaction(ctx, false, func(ctx context.Context) error {
		ids, err := storage.IDMap(ctx)
		if errdefs.IsNotFound(err) { // not one has been made yet
			return nil
		}
		_, there = ids[id]
		return err
	})
	return there, err
}

// goneMark begins the names of directories that go: of a snapshot whose making failed the id is given again.
const goneMark = "gone-"

// Cleanup removes what no snapshot has: those that were taken away since the last time, and what an earlier life left that was cut off between
// files and record. It returns when the room on the disk is free, whoever else is at it.
func (s *Snapshotter) Cleanup(ctx context.Context) error {
	var stray, spent []string
	// Within a write transaction, since those who make snapshots make their directories in one.
	err := s.ms.WithTransaction(ctx, true, func(ctx context.Context) error {
		ids, err := storage.IDMap(ctx)
		if err != nil {
			return err
		}
		if stray, err = s.strays(ids); err != nil {
			return err
		}
		spent, err = s.spent(ctx, ids)
		return err
	})
	for _, name := range stray {
		err = errors.Join(err, s.drop(ctx, name))
	}
	if s.holds.leave(spent...) {
		return err
	}
	for _, id := range spent {
		err = errors.Join(err, s.dropDirectory(id))
	}
	return err
}

// strays are directories and mounts that no snapshot has; the former are renamed.
func (s *Snapshotter) strays(ids map[string]string) ([]string, error) {
	list, err := names(s.dir(""))
	if err != nil {
		return nil, err
	}
	var stray []string
	for _, name := range list {
		if _, ok := ids[name]; ok {
			continue
		}
		if !strings.HasPrefix(name, goneMark) {
			to := goneMark + name
			for n := 1; slices.Contains(list, to); n++ {
				to = fmt.Sprint(goneMark, name, ".", n)
			}
			if err := os.Rename(s.dir(name), s.dir(to)); err != nil {
				return nil, err
			}
			name = to
		}
		stray = append(stray, name)
	}
	for _, id := range s.mounts.of(s.store()) {
		if _, ok := ids[id]; !ok {
			stray = append(stray, id)
		}
	}
	return stray, nil
}

// spent lists the layers whose changes have become an image and still lie beside it.
func (s *Snapshotter) spent(ctx context.Context, ids map[string]string) (out []string, err error) {
	for id, key := range ids {
		if _, err := os.Lstat(s.dir(id, "work")); err != nil {
			continue
		}
		if _, err := os.Lstat(s.dir(id, layerFile)); err != nil {
			continue
		}
		_, info, _, err := storage.GetInfo(ctx, key)
		if err != nil {
			return nil, err
		}
		if info.Kind == snapshots.KindCommitted {
			out = append(out, id)
		}
	}
	return out, nil
}

// names in a directory; none when there is none.
func names(dir string) ([]string, error) {
	d, err := os.Open(dir)
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.Readdirnames(-1)
}
