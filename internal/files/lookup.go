package files

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/archive"
)

// place is a path inside that is there, held by the directory that has it.
type place struct {
	dir  *os.File
	base string // in dir; "." is dir itself
	name string // the last element of the path as it was asked for
	path string // the whole of it
	st   unix.Stat_t
}

func (p *place) Close() { _ = p.dir.Close() }

// lookup finds a path. Links on the way are followed; the last element is not, unless the path says that it is a directory.
func (r *root) lookup(name string) (*place, error) {
	clean, directory := absolute(name)
	p := &place{name: path.Base(clean), path: clean}
	if trimmed := strings.TrimRight(name, "/"); strings.HasSuffix(trimmed, "/.") || trimmed == "." { // also "./": path.Clean forgets the slash
		p.name = "."
	}
	at := path.Dir(clean)
	p.base = path.Base(clean)
	if directory {
		at, p.base = clean, "."
	}
	var err error
	if p.dir, err = archive.Open(r.dir, at, unix.O_PATH|unix.O_DIRECTORY); err != nil {
		return nil, err
	}
	if err := unix.Fstatat(int(p.dir.Fd()), p.base, &p.st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

// stat is the place in Docker's words.
func (p *place) stat(r *root) (container.PathStat, error) {
	st := container.PathStat{Name: p.name, Size: p.st.Size, Mode: fileMode(p.st.Mode), Mtime: time.Unix(p.st.Mtim.Unix())}
	if st.Mode&fs.ModeSymlink != 0 {
		target, err := r.follow(p.path)
		if err != nil {
			return st, err
		}
		st.LinkTarget = target
	}
	return st, nil
}

// fileMode turns the kernel's mode into Go's, which the API has.
func fileMode(mode uint32) fs.FileMode {
	m := fs.FileMode(mode & 0o777)
	switch mode & unix.S_IFMT {
	case unix.S_IFDIR:
		m |= fs.ModeDir
	case unix.S_IFLNK:
		m |= fs.ModeSymlink
	case unix.S_IFIFO:
		m |= fs.ModeNamedPipe
	case unix.S_IFSOCK:
		m |= fs.ModeSocket
	case unix.S_IFBLK:
		m |= fs.ModeDevice
	case unix.S_IFCHR:
		m |= fs.ModeDevice | fs.ModeCharDevice
	}
	for bit, flag := range map[uint32]fs.FileMode{unix.S_ISUID: fs.ModeSetuid, unix.S_ISGID: fs.ModeSetgid, unix.S_ISVTX: fs.ModeSticky} {
		if mode&bit != 0 {
			m |= flag
		}
	}
	return m
}

// follow says where a link leads in the end, or as far as it leads anywhere.
func (r *root) follow(name string) (string, error) {
	const links = 40 // as the kernel has it
	for range links {
		f, err := archive.Open(r.dir, name, unix.O_PATH)
		if err == nil {
			defer f.Close()
			return where(f, name), nil
		}
		if !errors.Is(err, unix.ENOENT) {
			return name, nil
		}
		next, ok := r.readLink(name)
		if !ok {
			return name, nil
		}
		name = next
	}
	return name, nil
}

// readLink gives what a link names, as a path inside.
func (r *root) readLink(name string) (string, bool) {
	dir, err := archive.Open(r.dir, path.Dir(name), unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return "", false
	}
	defer dir.Close()
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(int(dir.Fd()), path.Base(name), buf)
	if err != nil {
		return "", false
	}
	text := string(buf[:n])
	if strings.HasPrefix(text, "/") {
		return path.Clean(text), true
	}
	return path.Join(where(dir, path.Dir(name)), text), true
}

// where is the path inside of what is open: the kernel tells it from the root of its mount namespace on.
func where(f *os.File, otherwise string) string {
	at, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(int(f.Fd())))
	if err != nil || !strings.HasPrefix(at, "/") {
		return otherwise
	}
	return at
}

// archive writes what is at the place, under its own name. Kernel file systems below it are left out.
func (p *place) archive(ctx context.Context, w *archive.Writer) error {
	var err error
	if p.st.Mode&unix.S_IFMT == unix.S_IFDIR {
		var dir *os.File
		if dir, err = openDirectory(p.dir, p.base); err != nil {
			return err
		}
		defer dir.Close()
		err = w.Tree(ctx, dir, p.name, archive.WalkOptions{NoPseudo: true})
	} else {
		err = w.Add(p.dir, p.base, p.name)
	}
	if err != nil {
		return err
	}
	return w.Close()
}

func openDirectory(dir *os.File, base string) (*os.File, error) {
	fd, err := unix.Openat(int(dir.Fd()), base, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: base, Err: err}
	}
	return os.NewFile(uintptr(fd), base), nil
}
