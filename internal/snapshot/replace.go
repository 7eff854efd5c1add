package snapshot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/erofs"
	"wherry.dev/wherry/internal/room"
)

// IsImage says that a path is that of a layer's image.
func IsImage(path string) bool { return filepath.Base(path) == layerFile }

// UUIDOf is that of an image in a file; zeros where it cannot be read.
func UUIDOf(file string) (uuid [16]byte) {
	f, err := os.Open(file)
	if err != nil {
		return uuid
	}
	defer f.Close()
	_, _ = f.ReadAt(uuid[:], uuidAt)
	return uuid
}

// CheckImage reads what an image says of its files: whether their data is right it does not know.
func CheckImage(ctx context.Context, file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED) // what the disk has is wanted, not what memory remembers; advice
	r, err := readerOf(f)
	if err != nil {
		return err
	}
	return r.Walk(ctx, func(string, *erofs.Node) error { return nil })
}

func readerOf(f *os.File) (*erofs.Reader, error) {
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return erofs.NewReader(f, fi.Size())
}

// SameFiles says that an image holds the files of another, though its bytes differ: it is by another version of the writer.
func SameFiles(ctx context.Context, image, want *os.File) (bool, error) {
	w, err := readerOf(want)
	if err != nil {
		return false, err
	}
	r, err := readerOf(image)
	if err != nil || r.Maker == w.Maker {
		return false, err
	}
	compare := erofs.Compare
	if r.Maker == ofDirectory {
		compare = erofs.CompareFiles
	}
	differs, err := compare(ctx, w, r)
	return err == nil && differs == "", err
}

// Replace puts an image that is on the disk in the place of a layer's. What is mounted there changes at once; containers that have the old
// one keep it.
func (m *Mounts) Replace(file, by string) error {
	dir := filepath.Dir(file)
	store, id := filepath.Base(filepath.Dir(filepath.Dir(dir))), filepath.Base(dir)
	path := m.path(store, id)
	unlock := m.lock(path)
	defer unlock()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := os.Rename(by, file); err != nil {
		return err
	}
	if err := errors.Join(syncDir(dir), syncDir(filepath.Dir(dir))); err != nil {
		return err
	}
	if err := m.setUnpackedAside(store, id); err != nil {
		return err
	}
	switch err := m.able(); {
	case !isMount(path):
		return nil
	case err == nil, room.Lacks(err):
		return mountBeneath(file, path)
	}
	// Such a kernel has no mounts beneath others either.
	if err := unpackImage(file, m.unpacked(store, id)); err != nil {
		return fmt.Errorf("unpack: %w", err)
	}
	if err := unmount(path); err != nil {
		return err
	}
	return m.mount(store, id)
}

// setUnpackedAside gives the directory that was unpacked from an image that is replaced another name: containers may stand on it.
func (m *Mounts) setUnpackedAside(store, id string) error {
	dir := m.unpacked(store, id)
	if _, err := os.Lstat(dir); err != nil {
		return nil
	}
	old, err := os.MkdirTemp(filepath.Dir(dir), "unpacked-")
	if err != nil {
		return err
	}
	return errors.Join(os.Remove(old), os.Rename(dir, old))
}

// mountBeneath puts a mount under the one that is there and takes that away: at each moment there is one (move_mount(2), MOVE_MOUNT_BENEATH).
func mountBeneath(file, path string) error {
	mounted, err := openImage(file)
	if err != nil {
		return err
	}
	defer mounted.Close()
	if err := unix.MoveMount(int(mounted.Fd()), "", unix.AT_FDCWD, path, unix.MOVE_MOUNT_F_EMPTY_PATH|moveMountBeneath); err != nil {
		return fmt.Errorf("attach a mount beneath %s: %w", path, err)
	}
	if err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
		return fmt.Errorf("unmount %s: %w", path, err)
	}
	return nil
}

const moveMountBeneath = 0x200
