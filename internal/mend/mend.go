// Package mend compares a directory tree with a copy of what it should be, and makes it so again.
//
// Names, types, modes, owners, sizes, extended attributes, links and content count. Both trees are walked by descriptor and no link is
// followed; memory does not grow with their sizes, but with the number of directories that are mended. The package keeps nothing.
package mend

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/archive"
)

// Difference is one path of a tree that is not as it should be.
type Difference struct {
	Path string // below the root; "." is the root
	What string // "missing", "added", "other content", …
}

// Options of Tree.
type Options struct {
	Mend bool // take what differs from the copy, which is used up by that; false: only tell
	Tell func(Difference)
}

// Tree holds the directory at have against the copy at want, which is on the same file system. A tree that was mended is on disk on return.
func Tree(ctx context.Context, want, have string, o Options) error {
	w, err := openDir(want)
	if err != nil {
		return err
	}
	defer w.Close()
	h, err := openDir(have)
	if err != nil {
		return err
	}
	defer h.Close()
	t := &tree{want: w, have: h, o: o, a: make([]byte, 128<<10), b: make([]byte, 128<<10), noted: map[string]bool{}}
	var st unix.Stat_t
	if err := unix.Fstat(int(w.Fd()), &st); err != nil {
		return err
	}
	if err := t.root(&st); err != nil {
		return err
	}
	// What is too much goes first: later the copy lacks what was taken from it.
	if err := archive.Walk(ctx, h, archive.WalkOptions{OneMount: true}, t.had); err != nil {
		return err
	}
	if err := archive.Walk(ctx, w, archive.WalkOptions{OneMount: true}, t.wanted); err != nil {
		return err
	}
	return t.finish()
}

func openDir(path string) (*os.File, error) {
	return os.OpenFile(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
}

type tree struct {
	want, have *os.File
	o          Options
	a, b       []byte
	at         *os.File // the directory of have that was looked into last
	atPath     string
	times      []dirTime
	noted      map[string]bool // directories of times
}

// dirTime is when a directory should have changed last: mending what is in it changes that.
type dirTime struct {
	path string
	at   [2]unix.Timespec
}

func (t *tree) tell(path, what string) { t.o.Tell(Difference{path, what}) }

// dir opens a directory of have.
func (t *tree) dir(path string) (*os.File, error) {
	if t.at != nil && t.atPath == path {
		return t.at, nil
	}
	f, err := archive.OpenBelow(t.have, path, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	if t.at != nil {
		t.at.Close()
	}
	t.at, t.atPath = f, path
	return f, nil
}

// note remembers the time of a directory of the copy, before something in it is mended.
func (t *tree) note(path string, copied *os.File) error {
	if t.noted[path] {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(copied.Fd()), &st); err != nil {
		return err
	}
	t.noted[path] = true
	t.times = append(t.times, dirTime{path, timesOf(&st)})
	return nil
}

func parentOf(p string) string { return path.Dir(p) }

func timesOf(st *unix.Stat_t) [2]unix.Timespec { return [2]unix.Timespec{st.Mtim, st.Mtim} }

func (t *tree) root(want *unix.Stat_t) error {
	var have unix.Stat_t
	if err := unix.Fstat(int(t.have.Fd()), &have); err != nil {
		return err
	}
	what := attributes(want, &have)
	if what == "" {
		what = t.xattrs(t.want, ".", t.have, ".")
	}
	if what != "" {
		t.tell(".", what)
	}
	return t.dress(want, ".", what)
}

// wanted holds one entry of the copy against what is there.
func (t *tree) wanted(e *archive.Entry) (enter bool, err error) {
	dir, err := t.dir(parentOf(e.Path))
	if err != nil {
		return false, fmt.Errorf("look into %s: %w", parentOf(e.Path), err)
	}
	var have unix.Stat_t
	err = unix.Fstatat(int(dir.Fd()), e.Name, &have, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		t.tell(e.Path, "missing")
		return false, t.take(e, dir)
	}
	if err != nil {
		t.tell(e.Path, "unreadable: "+err.Error())
		return false, t.take(e, dir)
	}
	if e.Stat.Mode&unix.S_IFMT != have.Mode&unix.S_IFMT || e.Stat.Rdev != have.Rdev && !e.IsDir() {
		t.tell(e.Path, "of another type")
		return false, t.take(e, dir)
	}
	what := attributes(&e.Stat, &have)
	if what == "" {
		what = t.xattrs(e.Dir, e.Name, dir, e.Name)
	}
	if what == "" && !e.IsDir() {
		what = t.content(e, dir)
	}
	if what != "" {
		t.tell(e.Path, what)
	}
	if e.IsDir() {
		return true, t.dress(&e.Stat, e.Path, what)
	}
	if what == "" {
		return false, nil
	}
	return false, t.take(e, dir)
}

// attributes says in what two entries of one type differ.
func attributes(want, have *unix.Stat_t) string {
	regular := want.Mode&unix.S_IFMT == unix.S_IFREG
	switch {
	case want.Mode != have.Mode && want.Mode&unix.S_IFMT != unix.S_IFLNK:
		return fmt.Sprintf("of mode %04o, not %04o", have.Mode&0o7777, want.Mode&0o7777)
	case want.Uid != have.Uid || want.Gid != have.Gid:
		return fmt.Sprintf("of %d:%d, not %d:%d", have.Uid, have.Gid, want.Uid, want.Gid)
	case regular && want.Size != have.Size:
		return fmt.Sprintf("of %d bytes, not %d", have.Size, want.Size)
	case regular && want.Nlink > have.Nlink: // more lie elsewhere: layers of one build share files
		return fmt.Sprintf("a file of %d names, not %d", have.Nlink, want.Nlink)
	}
	return ""
}

// content compares files byte by byte, and links by their text.
func (t *tree) content(e *archive.Entry, dir *os.File) string {
	switch e.Stat.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		n, err := unix.Readlinkat(int(e.Dir.Fd()), e.Name, t.a)
		m, err2 := unix.Readlinkat(int(dir.Fd()), e.Name, t.b)
		if err != nil || err2 != nil || !bytes.Equal(t.a[:n], t.b[:m]) {
			return "a link to elsewhere"
		}
	case unix.S_IFREG:
		same, err := t.sameBytes(e, dir)
		if err != nil {
			return "unreadable: " + err.Error()
		}
		if !same {
			return "other content"
		}
	}
	return ""
}

func (t *tree) sameBytes(e *archive.Entry, dir *os.File) (bool, error) {
	w, err := archive.OpenBelow(e.Dir, e.Name, unix.O_RDONLY)
	if err != nil {
		return false, err
	}
	defer w.Close()
	h, err := archive.OpenBelow(dir, e.Name, unix.O_RDONLY)
	if err != nil {
		return false, err
	}
	defer h.Close()
	disk, err := archive.FromDisk(h)
	if err != nil {
		return false, err
	}
	defer disk.Close()
	for {
		n, err := io.ReadFull(w, t.a)
		m, err2 := io.ReadFull(disk, t.b)
		if n != m || !bytes.Equal(t.a[:n], t.b[:m]) {
			return false, nil
		}
		if err != nil || err2 != nil {
			ended := func(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }
			if ended(err) && ended(err2) {
				return true, nil
			}
			return false, errors.Join(err, err2)
		}
	}
}

// xattrs says that entries differ in these.
func (t *tree) xattrs(wdir *os.File, wname string, hdir *os.File, hname string) string {
	w, err := readXattrs(wdir, wname)
	h, err2 := readXattrs(hdir, hname)
	if err != nil || err2 != nil {
		return fmt.Sprintf("unreadable: %v", errors.Join(err, err2))
	}
	for name, v := range w {
		if got, ok := h[name]; !ok || got != v {
			return "without its attribute " + name
		}
	}
	for name := range h {
		if _, ok := w[name]; !ok {
			return "with an attribute that it should not have: " + name
		}
	}
	return ""
}

func byName(dir *os.File, name string) string {
	return fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), name)
}

func readXattrs(dir *os.File, name string) (map[string]string, error) {
	p := byName(dir, name)
	n, err := unix.Llistxattr(p, nil)
	if err != nil || n == 0 {
		if errors.Is(err, unix.ENOTSUP) {
			err = nil
		}
		return nil, err
	}
	list := make([]byte, n)
	if n, err = unix.Llistxattr(p, list); err != nil {
		return nil, err
	}
	out := map[string]string{}
	for key := range strings.SplitSeq(strings.TrimSuffix(string(list[:n]), "\x00"), "\x00") {
		v := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(p, key, v)
		if err != nil {
			return nil, err
		}
		out[key] = string(v[:n])
	}
	return out, nil
}

// take moves an entry of the copy to its place.
func (t *tree) take(e *archive.Entry, dir *os.File) error {
	if !t.o.Mend {
		return nil
	}
	if err := t.note(parentOf(e.Path), e.Dir); err != nil {
		return err
	}
	err := unix.Renameat(int(e.Dir.Fd()), e.Name, int(dir.Fd()), e.Name)
	if err != nil {
		if err := removeBelow(dir, e.Name); err != nil {
			return fmt.Errorf("make room for %s: %w", e.Path, err)
		}
		err = unix.Renameat(int(e.Dir.Fd()), e.Name, int(dir.Fd()), e.Name)
	}
	if err != nil {
		return fmt.Errorf("mend %s: %w", e.Path, err)
	}
	return nil
}

// removeBelow removes an entry with all below it.
func removeBelow(dir *os.File, name string) error {
	root, err := os.OpenRoot(byName(dir, "."))
	if err != nil {
		return err
	}
	defer root.Close()
	return root.RemoveAll(name)
}

// dress gives a directory its attributes.
func (t *tree) dress(want *unix.Stat_t, path, what string) error {
	if !t.o.Mend || what == "" {
		return nil
	}
	dir, err := t.dir(path)
	if err != nil {
		return err
	}
	fd := int(dir.Fd())
	if err := errors.Join(unix.Fchown(fd, int(want.Uid), int(want.Gid)), unix.Fchmod(fd, want.Mode&0o7777)); err != nil {
		return fmt.Errorf("mend %s: %w", path, err)
	}
	copyOf, err := archive.OpenBelow(t.want, path, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer copyOf.Close()
	if err := t.note(path, copyOf); err != nil {
		return err
	}
	w, err := readXattrs(copyOf, ".")
	if err != nil {
		return err
	}
	h, err := readXattrs(dir, ".")
	if err != nil {
		return err
	}
	for name := range h {
		if _, ok := w[name]; !ok {
			err = errors.Join(err, unix.Fremovexattr(fd, name))
		}
	}
	for name, v := range w {
		err = errors.Join(err, unix.Fsetxattr(fd, name, []byte(v), 0))
	}
	return err
}

// had finds what the copy does not have.
func (t *tree) had(e *archive.Entry) (enter bool, err error) {
	var st unix.Stat_t
	w, err := archive.OpenBelow(t.want, parentOf(e.Path), unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return false, err
	}
	defer w.Close()
	err = unix.Fstatat(int(w.Fd()), e.Name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if err == nil {
		return e.IsDir() && st.Mode&unix.S_IFMT == unix.S_IFDIR, nil
	}
	if !errors.Is(err, unix.ENOENT) {
		return false, err
	}
	t.tell(e.Path, "added")
	if !t.o.Mend {
		return false, nil
	}
	if err := t.note(parentOf(e.Path), w); err != nil {
		return false, err
	}
	return false, removeBelow(e.Dir, e.Name)
}

func (t *tree) finish() error {
	var err error
	for _, d := range slices.Backward(t.times) {
		dir, openErr := t.dir(d.path)
		if openErr != nil {
			err = errors.Join(err, openErr)
			continue
		}
		err = errors.Join(err, unix.UtimesNanoAt(int(dir.Fd()), "", d.at[:], unix.AT_EMPTY_PATH))
	}
	if t.o.Mend {
		err = errors.Join(err, unix.Syncfs(int(t.have.Fd())))
	}
	if t.at != nil {
		t.at.Close()
	}
	return err
}
