package snapshot

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/erofs"
	"wherry.dev/wherry/internal/rootfs"
)

// unpacked is the directory that stands in for an image where the kernel cannot mount it.
func (m *Mounts) unpacked(store, id string) string {
	return filepath.Join(filepath.Dir(m.file(store, id)), "unpacked")
}

// instead unpacks an image into a directory, once, and mounts this in its place: a store that was filled on a newer kernel stays usable.
func (m *Mounts) instead(store, id string) error {
	dir := m.unpacked(store, id)
	if _, err := os.Lstat(dir); err != nil {
		m.log(fmt.Errorf("layer %s is an EROFS image, which this kernel cannot mount (%w): it is unpacked into a directory", m.file(store, id), m.able()))
		if err := unpackImage(m.file(store, id), dir); err != nil {
			return fmt.Errorf("unpack: %w", err)
		}
	}
	f, err := rootfs.Bind(dir, rootfs.BindOptions{Set: unix.MOUNT_ATTR_RDONLY})
	if err != nil {
		return err
	}
	defer f.Close()
	return attach(f, m.path(store, id))
}

// unpackImage writes an image's files into a new directory: data → sync → rename.
func unpackImage(file, dir string) (err error) {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	r, err := erofs.NewReader(f, fi.Size())
	if err != nil {
		return err
	}
	next := dir + ".new"
	if err := rootfs.RemoveTree(next); err != nil {
		return err
	}
	if err := os.Mkdir(next, 0o700); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, rootfs.RemoveTree(next))
		}
	}()
	top, err := os.OpenFile(next, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer top.Close()
	root, err := r.Root()
	if err != nil {
		return err
	}
	u := unpackingImage{r: r, top: top, first: map[uint64]string{}}
	if err := u.directory(top, "", root); err != nil {
		return err
	}
	if err := unix.Syncfs(int(top.Fd())); err != nil {
		return fmt.Errorf("sync %s: %w", next, err)
	}
	return os.Rename(next, dir)
}

type unpackingImage struct {
	r     *erofs.Reader
	top   *os.File
	first map[uint64]string // where files with several names lie, by inode
	depth int
}

// maxDepth is how many directories of an image may be open at a time.
const maxDepth = 1024

// directory writes what is in a directory, and then its own attributes.
func (u *unpackingImage) directory(to *os.File, at string, n *erofs.Node) error {
	if u.depth++; u.depth > maxDepth {
		return fmt.Errorf("%s: %d directories deep: %w", at, u.depth, erofs.ErrDamaged)
	}
	defer func() { u.depth-- }()
	err := u.r.List(n, func(name string, number uint64) error {
		child, err := u.r.Node(number)
		if err == nil {
			err = u.entry(to, filepath.Join(at, name), child)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return dress(to, ".", n)
}

func (u *unpackingImage) entry(to *os.File, at string, n *erofs.Node) (err error) {
	name, fd := filepath.Base(at), int(to.Fd())
	if first, ok := u.first[n.Number]; ok && !n.IsDir() {
		return unix.Linkat(int(u.top.Fd()), first, fd, name, 0)
	}
	switch n.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return u.child(to, at, n)
	case unix.S_IFREG:
		err = u.file(fd, name, n)
	case unix.S_IFLNK:
		var target string
		if target, err = u.r.Target(n); err == nil {
			err = unix.Symlinkat(target, fd, name)
		}
	default:
		major, minor := erofs.MajorMinor(n.Rdev)
		err = unix.Mknodat(fd, name, n.Mode, int(unix.Mkdev(major, minor)))
	}
	if err != nil {
		return err
	}
	if n.Links > 1 {
		u.first[n.Number] = at
	}
	return dress(to, name, n)
}

func (u *unpackingImage) child(to *os.File, at string, n *erofs.Node) error {
	name := filepath.Base(at)
	if err := unix.Mkdirat(int(to.Fd()), name, 0o700); err != nil {
		return err
	}
	fd, err := unix.Openat(int(to.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), at)
	defer f.Close()
	return u.directory(f, at, n)
}

func (u *unpackingImage) file(dir int, name string, n *erofs.Node) error {
	fd, err := unix.Openat(dir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), name)
	_, err = io.Copy(f, u.r.Open(n))
	return errors.Join(err, f.Close())
}

// dress gives a file its owner, mode, attributes and time.
func dress(dir *os.File, name string, n *erofs.Node) error {
	fd := int(dir.Fd())
	if err := unix.Fchownat(fd, name, int(n.UID), int(n.GID), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("set owner: %w", err)
	}
	link := n.Mode&unix.S_IFMT == unix.S_IFLNK
	if !link {
		if err := unix.Fchmodat(fd, name, n.Mode&0o7777, 0); err != nil {
			return fmt.Errorf("set mode: %w", err)
		}
	}
	at := fmt.Sprintf("/proc/self/fd/%d/%s", fd, name)
	for _, x := range n.Xattrs {
		if err := unix.Lsetxattr(at, x.Name, x.Value, 0); err != nil && err != unix.ENOTSUP { // what a file system does not keep, layer.Dir leaves out too
			return fmt.Errorf("set attribute %s: %w", x.Name, err)
		}
	}
	times := []unix.Timespec{{Sec: n.Sec, Nsec: int64(n.Nsec)}, {Sec: n.Sec, Nsec: int64(n.Nsec)}}
	if err := unix.UtimesNanoAt(fd, name, times, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("set times: %w", err)
	}
	return nil
}
