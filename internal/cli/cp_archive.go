package cli

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// packing writes a file or a directory of this machine as an archive.
type packing struct {
	path  string // absolute
	real  string // where path leads, if it is a link that is followed; else ""
	about fs.FileInfo
	name  string // under which it is packed; "": a directory's contents only
	bytes int64

	links map[[2]uint64]string // files with several names: the first one
}

func (p *packing) isDir() bool { return p.about.IsDir() }

func (p *packing) run(out io.Writer) error {
	w := tar.NewWriter(out)
	p.links = map[[2]uint64]string{}
	top := p.path
	if p.real != "" {
		top = p.real
	}
	err := filepath.WalkDir(top, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(top, file)
		if err != nil {
			return err
		}
		name := path.Join(p.name, filepath.ToSlash(rel))
		if name == "." {
			return nil
		}
		return p.add(w, file, name)
	})
	return errors.Join(err, w.Close())
}

func (p *packing) add(w *tar.Writer, file, name string) error {
	st, err := os.Lstat(file)
	if err != nil {
		return err
	}
	if st.Mode()&os.ModeSocket != 0 {
		return nil // a socket means nothing without who listens on it
	}
	target := ""
	if st.Mode()&os.ModeSymlink != 0 {
		if target, err = os.Readlink(file); err != nil {
			return err
		}
	}
	h, err := tar.FileInfoHeader(st, target)
	if err != nil {
		return err
	}
	h.Name, h.Uname, h.Gname = name, "", ""
	if st.IsDir() {
		h.Name += "/"
	}
	var sys unix.Stat_t
	if st.Mode().IsRegular() && unix.Lstat(file, &sys) == nil && sys.Nlink > 1 {
		key := [2]uint64{uint64(sys.Dev), sys.Ino}
		if first, ok := p.links[key]; ok {
			h.Typeflag, h.Linkname, h.Size = tar.TypeLink, first, 0
			return w.WriteHeader(h)
		}
		p.links[key] = name
	}
	if !st.Mode().IsRegular() {
		return w.WriteHeader(h)
	}
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := w.WriteHeader(h); err != nil {
		return err
	}
	n, err := io.Copy(w, io.LimitReader(f, h.Size))
	p.bytes += n
	if err == nil && n < h.Size {
		err = fmt.Errorf("%s became shorter while it was read", file)
	}
	return err
}

// unpacking writes an archive that a container gave into a directory. Whatever the archive says, nothing outside root is touched: root is a
// descriptor, and links in the archive are not followed out of it.
type unpacking struct {
	root      *os.Root
	name      string // of what is copied; "": its contents go into root itself
	wholeTree bool   // the archive is of /, whose entries have no name in front
	owners    bool
	bytes     int64

	dirs []*tar.Header // times are set when nothing is written into them any more
}

func (u *unpacking) run(in io.Reader) error {
	r := tar.NewReader(in)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read the archive: %w", err)
		}
		if h.Name = u.place(h.Name); h.Name == "." {
			continue
		}
		if err := u.one(h, r); err != nil {
			return err
		}
	}
	for i := len(u.dirs) - 1; i >= 0; i-- {
		h := u.dirs[i]
		if err := errors.Join(u.root.Chmod(h.Name, u.mode(h)), u.root.Chtimes(h.Name, time.Time{}, h.ModTime)); err != nil {
			return err
		}
	}
	return nil
}

// place puts the wanted name in place of an entry's first.
func (u *unpacking) place(entry string) string {
	entry = strings.TrimPrefix(path.Join("/", entry), "/")
	if !u.wholeTree {
		_, entry, _ = strings.Cut(entry, "/")
	}
	return path.Join(".", u.name, entry)
}

func (u *unpacking) one(h *tar.Header, r io.Reader) error {
	old, err := u.root.Lstat(h.Name)
	switch {
	case err == nil && old.IsDir() && h.Typeflag != tar.TypeDir:
		return fmt.Errorf("%s is a directory here and none in the container: remove it first", h.Name)
	case err == nil && !old.IsDir() && h.Typeflag == tar.TypeDir:
		return fmt.Errorf("%s is a directory in the container and none here: remove it first", h.Name)
	case err == nil && !old.IsDir():
		if err := u.root.Remove(h.Name); err != nil {
			return err
		}
	}
	if err := u.make(h, r); err != nil {
		return err
	}
	if u.owners {
		if err := u.root.Lchown(h.Name, h.Uid, h.Gid); err != nil {
			return err
		}
	}
	switch h.Typeflag {
	case tar.TypeSymlink, tar.TypeLink:
		return nil
	case tar.TypeDir:
		u.dirs = append(u.dirs, h)
		return nil
	}
	return errors.Join(u.root.Chmod(h.Name, u.mode(h)), u.root.Chtimes(h.Name, time.Time{}, h.ModTime))
}

func (u *unpacking) make(h *tar.Header, r io.Reader) error {
	switch h.Typeflag {
	case tar.TypeDir:
		return u.root.MkdirAll(h.Name, 0o700)
	case tar.TypeReg:
		f, err := u.root.OpenFile(h.Name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		n, err := io.Copy(f, r)
		u.bytes += n
		return errors.Join(err, f.Close())
	case tar.TypeSymlink:
		return u.root.Symlink(h.Linkname, h.Name)
	case tar.TypeLink:
		return u.root.Link(u.place(h.Linkname), h.Name)
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		return u.node(h)
	}
	return fmt.Errorf("%s: the archive has an entry of kind %q, which cp does not know", h.Name, h.Typeflag)
}

func (u *unpacking) node(h *tar.Header) error {
	dir, err := u.root.Open(path.Dir(h.Name))
	if err != nil {
		return err
	}
	defer dir.Close()
	mode := map[byte]uint32{tar.TypeChar: unix.S_IFCHR, tar.TypeBlock: unix.S_IFBLK, tar.TypeFifo: unix.S_IFIFO}[h.Typeflag]
	err = unix.Mknodat(int(dir.Fd()), path.Base(h.Name), mode|0o600, int(unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor))))
	if err != nil {
		return fmt.Errorf("make %s: %w", h.Name, err)
	}
	return nil
}

// mode of a copy. A program that runs as its owner did so for the container's root; here its owner is whoever copies: only -a keeps that.
// Likewise a device, which in a container opens nothing, is here the machine's: whoever copies it may use it, nobody else.
func (u *unpacking) mode(h *tar.Header) os.FileMode {
	m := h.FileInfo().Mode()
	keep := os.ModePerm | os.ModeSticky
	switch {
	case u.owners:
		keep |= os.ModeSetuid | os.ModeSetgid
	case h.Typeflag == tar.TypeChar, h.Typeflag == tar.TypeBlock:
		keep = 0o600
	}
	return m & keep
}
