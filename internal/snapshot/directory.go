package snapshot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/archive"
	"wherry.dev/wherry/internal/erofs"
)

// packing is a directory on its way into an image.
type packing struct {
	w     *erofs.Writer
	dirs  map[string]erofs.Ino    // by path
	links map[[2]uint64]erofs.Ino // files with several names, by device and inode
}

// fromDirectory puts the changes in an overlay's upper directory into an image: whiteouts and opaque directories too, which are ordinary
// files and attributes there.
func fromDirectory(ctx context.Context, w *erofs.Writer, dir *os.File) error {
	p := packing{w: w, dirs: map[string]erofs.Ino{".": w.Root()}, links: map[[2]uint64]erofs.Ino{}}
	var st unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &st); err != nil {
		return err
	}
	root, err := attrOf(dir, ".", &st)
	if err == nil {
		err = w.SetAttr(w.Root(), root)
	}
	if err != nil {
		return err
	}
	return archive.Walk(ctx, dir, archive.WalkOptions{OneMount: true}, func(e *archive.Entry) (bool, error) {
		if err := p.add(e); err != nil {
			return false, fmt.Errorf("%s: %w", e.Path, err)
		}
		return e.IsDir(), nil
	})
}

func (p *packing) add(e *archive.Entry) error {
	in, ok := p.dirs[path.Dir(e.Path)]
	if !ok {
		return fmt.Errorf("its directory was not seen: %w", os.ErrNotExist)
	}
	identity := [2]uint64{e.Stat.Dev, e.Stat.Ino}
	if known, ok := p.links[identity]; ok && !e.IsDir() {
		return p.w.Link(in, e.Name, known)
	}
	a, err := attrOf(e.Dir, e.Name, &e.Stat)
	if err != nil {
		return err
	}
	var ino erofs.Ino
	switch e.Stat.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		ino, err = p.file(in, e, a)
	case unix.S_IFLNK:
		var target string
		if target, err = readlink(e); err == nil {
			ino, err = p.w.AddLink(in, e.Name, target, a)
		}
	default:
		ino, err = p.w.Add(in, e.Name, a)
	}
	if e.IsDir() {
		p.dirs[e.Path] = ino
	} else if e.Stat.Nlink > 1 {
		p.links[identity] = ino
	}
	return err
}

func (p *packing) file(in erofs.Ino, e *archive.Entry, a *erofs.Attr) (erofs.Ino, error) {
	f, err := archive.OpenBelow(e.Dir, e.Name, unix.O_RDONLY|unix.O_NOFOLLOW)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	ino, err := p.w.AddFile(in, e.Name, uint64(e.Stat.Size), a)
	if err != nil || e.Stat.Size == 0 {
		return ino, err
	}
	_, err = p.w.ReadFrom(f)
	return ino, err
}

func readlink(e *archive.Entry) (string, error) {
	b := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(int(e.Dir.Fd()), e.Name, b)
	if err != nil {
		return "", err
	}
	return string(b[:n]), nil
}

// attrOf is what a file has, without what overlay notes for itself, and what only some file systems know.
func attrOf(dir *os.File, name string, st *unix.Stat_t) (*erofs.Attr, error) {
	a := &erofs.Attr{Mode: st.Mode, UID: st.Uid, GID: st.Gid, Sec: st.Mtim.Sec, Nsec: uint32(st.Mtim.Nsec)}
	if t := st.Mode & unix.S_IFMT; t == unix.S_IFCHR || t == unix.S_IFBLK {
		a.Rdev = erofs.Device(unix.Major(st.Rdev), unix.Minor(st.Rdev))
	}
	at := fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), name)
	list, err := xattrNames(at)
	if err != nil {
		return nil, err
	}
	for _, x := range list {
		if ours := strings.HasPrefix(x, "trusted.overlay."); ours && x != "trusted.overlay.opaque" || !erofs.HoldsXattr(x) {
			continue
		}
		value, err := xattrValue(at, x)
		if errors.Is(err, unix.ENODATA) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read attribute %s: %w", x, err)
		}
		a.Xattrs = append(a.Xattrs, erofs.Xattr{Name: x, Value: value})
	}
	return a, nil
}

func xattrNames(at string) ([]string, error) {
	b := make([]byte, 1024)
	n, err := unix.Llistxattr(at, b)
	if errors.Is(err, unix.ERANGE) {
		b = make([]byte, 64<<10) // XATTR_LIST_MAX
		n, err = unix.Llistxattr(at, b)
	}
	if errors.Is(err, unix.ENOTSUP) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list attributes: %w", err)
	}
	return strings.FieldsFunc(string(b[:n]), func(r rune) bool { return r == 0 }), nil
}

func xattrValue(at, name string) ([]byte, error) {
	b := make([]byte, 256)
	n, err := unix.Lgetxattr(at, name, b)
	if errors.Is(err, unix.ERANGE) {
		b = make([]byte, 64<<10) // XATTR_SIZE_MAX
		n, err = unix.Lgetxattr(at, name, b)
	}
	return b[:max(0, n)], err
}
