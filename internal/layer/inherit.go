package layer

import (
	"bytes"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Inherit does what the layers below decide, when d has been finished: its directories that it never names get what those say of them, and what it
// takes away where they have nothing leaves no mark. below are the directories of those below, topmost first. Where they say nothing, a directory
// stays as Dir has made it: 0755, root's.
func Inherit(d *Dir, below []string) error {
	if len(below) == 0 {
		return nil
	}
	upper := d.tree.Name()
	b, err := OpenBelow(below)
	if err != nil {
		return err
	}
	defer b.Close()
	fd, err := openLayer(upper)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := hideRoot(fd, b.fds); err != nil {
		return err
	}
	for path := range d.implicit {
		if err := b.inherit(fd, path); err != nil {
			return fmt.Errorf("take over what the layers below say of %.300q: %w", "/"+path, err)
		}
	}
	for path := range d.whiteouts {
		if err := b.dropIdle(fd, path); err != nil {
			return fmt.Errorf("look for what is taken away from %.300q: %w", "/"+path, err)
		}
	}
	return nil
}

// Below are the layers below another one.
type Below struct{ fds []int }

// OpenBelow opens layers by their directories, topmost first.
func OpenBelow(dirs []string) (*Below, error) {
	b := &Below{}
	for _, dir := range dirs {
		fd, err := openLayer(dir)
		if err != nil {
			b.Close()
			return nil, err
		}
		b.fds = append(b.fds, fd)
	}
	return b, nil
}

func openLayer(dir string) (int, error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	return fd, nil
}

// Close gives them up.
func (b *Below) Close() {
	for _, fd := range b.fds {
		_ = unix.Close(fd)
	}
	b.fds = nil
}

// Find opens the directory that the layers have at a path; nil when they have none.
func (b *Below) Find(path string) (*os.File, error) {
	for _, layer := range b.fds {
		said, fd, err := look(layer, path)
		if err != nil {
			return nil, err
		}
		if fd >= 0 {
			return os.NewFile(uintptr(fd), path), nil
		}
		if said == hides {
			return nil, nil
		}
	}
	return nil, nil
}

// Names are those that the layers have in their roots, some of them twice.
func (b *Below) Names() (names []string, err error) {
	for _, layer := range b.fds {
		more, err := namesIn(layer)
		if err != nil {
			return nil, err
		}
		names = append(names, more...)
	}
	return names, nil
}

func (b *Below) inherit(upper int, path string) error {
	said, to, err := look(upper, path)
	if err != nil || to < 0 {
		return err
	}
	defer unix.Close(to)
	if said == hides {
		return nil
	}
	from, err := b.Find(path)
	if err != nil || from == nil {
		return err
	}
	defer from.Close()
	return copyAttributes(to, int(from.Fd()))
}

// dropIdle takes away whiteouts in a directory that no layer below has: overlay lists them where it has nothing to merge.
func (b *Below) dropIdle(upper int, path string) error {
	if path == "" {
		return nil // all layers have a root
	}
	from, err := b.Find(path)
	if from != nil {
		return from.Close()
	}
	if err != nil {
		return err
	}
	_, fd, err := look(upper, path)
	if err != nil || fd < 0 {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if err := eachWhiteout(fd, func(name string) error { return unix.Unlinkat(fd, name, 0) }); err != nil {
		return err
	}
	return keepTime(fd, &st)
}

func eachWhiteout(dir int, fn func(name string) error) error {
	names, err := namesIn(dir)
	for _, name := range names {
		var st unix.Stat_t
		if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
		if isWhiteout(&st) {
			if err := fn(name); err != nil {
				return err
			}
		}
	}
	return err
}

// saying is what a layer says of a path.
type saying int

const (
	nothing saying = iota
	hides          // the layers below have no part in it
)

// look opens a directory of a layer, which is -1 if it is not there, and says whether layers below could have it.
func look(layer int, path string) (saying, int, error) {
	said := nothing
	at := ""
	for {
		fd, err := openBeneath(layer, at)
		switch {
		case err == unix.ENOENT:
			return said, -1, nil
		case err == unix.ENOTDIR || err == unix.ELOOP:
			return hides, -1, nil
		case err != nil:
			return said, -1, err
		}
		var mark [1]byte
		if at == path {
			return said, fd, nil
		}
		if n, err := unix.Fgetxattr(fd, overlayOpaque, mark[:]); err == nil && n == 1 && mark[0] == 'y' {
			said = hides
		}
		_ = unix.Close(fd)
		rest := strings.TrimPrefix(path[len(at):], "/")
		part, _, _ := strings.Cut(rest, "/")
		at = join(at, part)
	}
}

func openBeneath(dir int, path string) (int, error) {
	if path == "" {
		path = "."
	}
	return unix.Openat2(dir, path, &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS})
}

func copyAttributes(to, from int) error {
	var st unix.Stat_t
	if err := unix.Fstat(from, &st); err != nil {
		return err
	}
	if err := unix.Fchown(to, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if err := unix.Fchmod(to, st.Mode&0o7777); err != nil {
		return err
	}
	if err := copyXattrs(to, from); err != nil {
		return err
	}
	return unix.UtimesNanoAt(to, "", []unix.Timespec{st.Mtim, st.Mtim}, unix.AT_EMPTY_PATH)
}

func copyXattrs(to, from int) error {
	list := make([]byte, 64<<10)
	n, err := unix.Flistxattr(from, list)
	if err == unix.ENOTSUP || n == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	value := make([]byte, maxXattr)
	for name := range bytes.SplitSeq(bytes.TrimSuffix(list[:n], []byte{0}), []byte{0}) {
		if bytes.HasPrefix(name, []byte("trusted.")) {
			continue
		}
		n, err := unix.Fgetxattr(from, string(name), value)
		if err != nil {
			return err
		}
		if err := setXattr(to, Xattr{string(name), value[:n]}, false); err != nil {
			return err
		}
	}
	return nil
}

// hideRoot does by hand what overlay does not: it takes no notice of a layer's root being opaque. Every name that a layer below has in its
// root is hidden by one of its own.
func hideRoot(upper int, below []int) error {
	var mark [1]byte
	if n, err := unix.Fgetxattr(upper, overlayOpaque, mark[:]); err != nil || n != 1 || mark[0] != 'y' {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(upper, &st); err != nil {
		return err
	}
	for _, layer := range below {
		names, err := namesIn(layer)
		if err != nil {
			return err
		}
		for _, name := range names {
			err := unix.Mknodat(upper, name, unix.S_IFCHR, 0)
			if err == unix.EEXIST {
				err = hideIn(upper, name)
			}
			if err != nil {
				return fmt.Errorf("hide %.300q: %w", "/"+name, err)
			}
		}
	}
	return keepTime(upper, &st)
}

// keepTime gives a directory the time again that it had.
func keepTime(dir int, st *unix.Stat_t) error {
	return unix.UtimesNanoAt(dir, "", []unix.Timespec{{Nsec: unix.UTIME_OMIT}, st.Mtim}, unix.AT_EMPTY_PATH)
}

func hideIn(upper int, name string) error {
	fd, err := openDirectory(upper, name)
	if err == unix.ENOTDIR || err == unix.ELOOP {
		return nil // it hides by itself
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Fsetxattr(fd, overlayOpaque, []byte("y"), 0)
}

func namesIn(dir int) ([]string, error) {
	fd, err := openBeneath(dir, ".")
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "layer")
	defer f.Close()
	return f.Readdirnames(-1)
}
