package archive

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// Owner is a user inside a container.
type Owner struct{ UID, GID int }

// ReadOptions of Read.
type ReadOptions struct {
	IDs   IDs
	Owner *Owner // who gets everything; nil: whom the archive says
	// KeepKind refuses to put a directory where something else is, and the other way round.
	KeepKind bool
	Sync     bool // all of it is on the disk when Read returns
}

// Read unpacks a tar in the directory dir below root. Links that lead to parents of what is unpacked are followed inside of root, as they
// would be by the container's own processes; what has an entry's name is replaced, except directories by directories. Names of whiteouts
// have no meaning.
func Read(ctx context.Context, r io.Reader, root *os.File, dir string, o ReadOptions) error {
	x := &reader{root: root, at: path.Clean("/" + dir), o: o, tar: tar.NewReader(r), buf: make([]byte, 256<<10)}
	defer func() {
		_ = x.parent.Close()
		for _, f := range x.unsynced {
			_ = f.Close()
		}
	}()
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, err := x.tar.Next()
		if errors.Is(err, io.EOF) {
			return x.finish()
		}
		if err != nil {
			return fmt.Errorf("read the archive: %w", badArchive(err))
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		t, err := x.target(ctx, h)
		if err == nil {
			x.made++
			err = x.make(ctx, t)
		}
		if err != nil {
			return fmt.Errorf("unpack %s: %w", printable(h.Name), err)
		}
	}
}

// badArchive adds the class of what the sender has done wrong.
func badArchive(err error) error {
	if errors.Is(err, tar.ErrHeader) || errors.Is(err, tar.ErrFieldTooLong) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	return err
}

// printable is a stranger's name, fit for a line of text.
func printable(name string) string {
	if len(name) > 200 {
		name = name[:200] + "…"
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, name)
}

// reader unpacks one archive.
type reader struct {
	root   *os.File
	at     string // the directory where it is unpacked
	o      ReadOptions
	tar    *tar.Reader
	buf    []byte
	parent *os.File // the directory of the last entry,
	last   string   // and its name in the archive
	times  []dirTime

	made     int        // entries
	unsynced []*os.File // what they are, as long as they are few
}

// dirTime is a directory's time, set when nothing more is put into it.
type dirTime struct {
	name string
	time time.Time
}

// target is where an entry goes.
type target struct {
	*tar.Header
	dir  *os.File
	base string // "." is the directory of the whole archive
	path string // in the archive
}

// target opens the directory that an entry belongs to, and makes it where it is missing.
func (x *reader) target(ctx context.Context, h *tar.Header) (*target, error) {
	clean := path.Clean("/" + h.Name)[1:]
	parent, base := path.Split(clean)
	if clean == "" {
		base = "."
	}
	if x.parent == nil || x.last != parent {
		dir, err := x.directory(ctx, path.Join(x.at, parent))
		if err != nil {
			return nil, err
		}
		_ = x.parent.Close()
		x.parent, x.last = dir, parent
	}
	return &target{Header: h, dir: x.parent, base: base, path: clean}, nil
}

// directory opens a directory below root, and makes it where it is missing; what is made belongs to the container's root.
func (x *reader) directory(ctx context.Context, name string) (*os.File, error) {
	f, err := Open(x.root, name, unix.O_PATH|unix.O_DIRECTORY)
	if !errors.Is(err, unix.ENOENT) || name == "/" {
		return f, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	parent, err := x.directory(ctx, path.Dir(name))
	if err != nil {
		return nil, err
	}
	defer parent.Close()
	fd, base := int(parent.Fd()), path.Base(name)
	switch err := unix.Mkdirat(fd, base, 0o755); {
	case err == nil:
		owner := x.owner(0, 0)
		if err := unix.Fchownat(fd, base, owner.UID, owner.GID, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return nil, wrap("own", name, err)
		}
	case !errors.Is(err, unix.EEXIST):
		return nil, wrap("mkdir", name, err)
	}
	return Open(x.root, name, unix.O_PATH|unix.O_DIRECTORY)
}

// owner is who gets an entry, as the host sees it.
func (x *reader) owner(uid, gid int) Owner {
	if x.o.Owner != nil {
		uid, gid = x.o.Owner.UID, x.o.Owner.GID
	}
	return Owner{x.o.IDs.Host(uid), x.o.IDs.Host(gid)}
}

// make makes what an entry describes.
func (x *reader) make(ctx context.Context, t *target) error {
	const maxID = 1<<32 - 2
	if t.Uid < 0 || t.Gid < 0 || t.Uid > maxID || t.Gid > maxID {
		return fmt.Errorf("it belongs to %d:%d, which are no ids: %w", t.Uid, t.Gid, errdefs.ErrInvalidArgument)
	}
	if t.base == "." {
		return nil // the directory is there and keeps its owner, mode and time
	}
	if t.Typeflag == tar.TypeDir {
		return x.makeDirectory(ctx, t)
	}
	for try := 1; ; try++ {
		if err := x.clear(ctx, t); err != nil {
			return err
		}
		err := x.makeNew(ctx, t)
		if !errors.Is(err, unix.EEXIST) || try == tries { // a container's process was faster
			return err
		}
	}
}

// clear removes what has the name of an entry that is no directory.
func (x *reader) clear(ctx context.Context, t *target) error {
	var st unix.Stat_t
	err := unix.Fstatat(int(t.dir.Fd()), t.base, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return x.unlink(t, 0)
	}
	if x.o.KeepKind {
		return fmt.Errorf("cannot overwrite directory %q with non-directory %q: %w", path.Join(x.at, t.path), x.at, errdefs.ErrInvalidArgument)
	}
	return removeAll(ctx, t.dir, t.base)
}

func (x *reader) unlink(t *target, flags int) error {
	if err := unix.Unlinkat(int(t.dir.Fd()), t.base, flags); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("replace it: %w", err)
	}
	return nil
}

func (x *reader) makeDirectory(ctx context.Context, t *target) error {
	for try := 1; ; try++ {
		err := unix.Mkdirat(int(t.dir.Fd()), t.base, 0o700)
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
		fd, err := unix.Openat(int(t.dir.Fd()), t.base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err == nil {
			f := os.NewFile(uintptr(fd), t.base)
			defer x.release(f)
			x.times = append(x.times, dirTime{path.Join(x.at, t.path), t.ModTime})
			return x.dress(f, t)
		}
		if !errors.Is(err, unix.ENOTDIR) && !errors.Is(err, unix.ELOOP) && !errors.Is(err, unix.ENOENT) || try == tries {
			return err
		}
		if x.o.KeepKind {
			return fmt.Errorf("cannot overwrite non-directory %q with directory %q: %w", path.Join(x.at, t.path), x.at, errdefs.ErrInvalidArgument)
		}
		if err := x.unlink(t, 0); err != nil {
			return err
		}
	}
}

// removeAll removes a directory and what is in it. What is mounted in it stays, and so does the directory then.
func removeAll(ctx context.Context, dir *os.File, base string) error {
	f, err := open(dir, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS|unix.RESOLVE_NO_XDEV)
	if err != nil {
		return fmt.Errorf("replace it: %w", err)
	}
	defer f.Close()
	var below []string
	err = Walk(ctx, f, WalkOptions{OneMount: true}, func(e *Entry) (bool, error) {
		if e.IsDir() {
			below = append(below, e.Path)
			return true, nil
		}
		return false, unlessGone(unix.Unlinkat(int(e.Dir.Fd()), e.Name, 0))
	})
	if err != nil {
		return fmt.Errorf("replace it: %w", err)
	}
	for i := len(below) - 1; i >= 0; i-- {
		parent, err := open(f, path.Dir(below[i]), unix.O_PATH|unix.O_DIRECTORY, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS)
		if err != nil {
			return fmt.Errorf("replace it: %w", err)
		}
		err = unlessGone(unix.Unlinkat(int(parent.Fd()), path.Base(below[i]), unix.AT_REMOVEDIR))
		_ = parent.Close()
		if err != nil {
			return fmt.Errorf("replace it: %w", err)
		}
	}
	if err := unix.Unlinkat(int(dir.Fd()), base, unix.AT_REMOVEDIR); err != nil {
		return fmt.Errorf("replace it: %w", err)
	}
	return nil
}
