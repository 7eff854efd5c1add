package container

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/rootfs"
)

// inRoot is how paths inside a root file system are resolved where links have to be followed.
const inRoot = unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS

// errIndirect: a link, or a directory that overlay has moved; only a mounted root can resolve it.
var errIndirect = errors.New("the path leads through a link")

// openInLayers opens a file or directory of a root file system for reading, as overlay would show it; nothing else is opened. layers: the
// topmost first. Ids and modes are those in the layers.
func openInLayers(layers []string, name string) (*os.File, error) {
	f, err := lookup(layers, name)
	if !errors.Is(err, errIndirect) {
		return f, err
	}
	view := rootfs.Rootfs{Lower: layers}
	root, err := view.Mount(nil)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	at, err := openIn(root, name, unix.O_PATH)
	if err != nil {
		return nil, err
	}
	defer at.Close()
	return rootfs.Reopen(at)
}

func openIn(root *os.File, name string, flags uint64) (*os.File, error) {
	rel := strings.TrimPrefix(path.Clean("/"+name), "/")
	if rel == "" {
		rel = "."
	}
	fd, err := unix.Openat2(int(root.Fd()), rel, &unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: inRoot})
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

// openBeneath opens what a mount shows of a volume or image. Links are followed as long as they stay inside, and none that begin at the root:
// whose root that would be is not said.
func openBeneath(root *os.File, name string) (*os.File, error) {
	fd, err := unix.Openat2(int(root.Fd()), path.Clean(name), &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS})
	switch {
	case errors.Is(err, unix.EXDEV):
		return nil, errors.New("path concatenation escapes the base directory") // dockerd's words
	case err != nil:
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// lookup walks the layers one component at a time, by descriptors, without mounting anything.
func lookup(layers []string, name string) (*os.File, error) {
	var open []*os.File
	defer func() {
		for _, f := range open {
			f.Close()
		}
	}()
	level := make([]*os.File, 0, len(layers))
	for _, l := range layers {
		f, err := os.OpenFile(l, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			return nil, err
		}
		open = append(open, f)
		level = append(level, f)
	}
	clean := strings.Trim(path.Clean("/"+name), "/")
	if clean == "" {
		return os.OpenFile(layers[0], unix.O_RDONLY|unix.O_DIRECTORY, 0)
	}
	parts := strings.Split(clean, "/")
	for i, part := range parts {
		next, file, err := descend(level, part)
		open = append(open, next...)
		switch {
		case err != nil:
			return nil, &os.PathError{Op: "open", Path: name, Err: err}
		case file != nil && i < len(parts)-1:
			file.Close()
			return nil, &os.PathError{Op: "open", Path: name, Err: unix.ENOTDIR}
		case file != nil:
			return file, nil
		}
		level = next
	}
	fd, err := unix.FcntlInt(level[0].Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// descend finds a name in the directories that are one in the overlay: the directories of that name, or the file.
func descend(level []*os.File, name string) (dirs []*os.File, file *os.File, err error) {
	for _, d := range level {
		var st unix.Stat_t
		err := unix.Fstatat(int(d.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return dirs, nil, err
		}
		kind := st.Mode & unix.S_IFMT
		if kind != unix.S_IFDIR {
			if len(dirs) > 0 || kind == unix.S_IFCHR && st.Rdev == 0 {
				break // hidden, or a whiteout
			}
			if kind == unix.S_IFLNK {
				return nil, nil, errIndirect
			}
			at, err := openAt(d, name, unix.O_PATH)
			if err != nil {
				return nil, nil, err
			}
			defer at.Close()
			file, err := rootfs.Reopen(at)
			return nil, file, err
		}
		f, err := openAt(d, name, unix.O_RDONLY|unix.O_DIRECTORY)
		if err != nil {
			return dirs, nil, err
		}
		dirs = append(dirs, f)
		if len(level) > 1 && has(f, "trusted.overlay.redirect") {
			return dirs, nil, errIndirect
		}
		if len(level) > 1 && has(f, "trusted.overlay.opaque") {
			break
		}
	}
	if len(dirs) == 0 {
		return nil, nil, unix.ENOENT
	}
	return dirs, nil, nil
}

func openAt(dir *os.File, name string, flags int) (*os.File, error) {
	fd, err := unix.Openat(int(dir.Fd()), name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

func has(f *os.File, attribute string) bool {
	n, err := unix.Fgetxattr(int(f.Fd()), attribute, nil)
	return err == nil && n > 0
}

// layers of a container, the writable one first.
func (r *Record) layers(dir string) []string {
	upper, _ := layerDirs(dir)
	return append([]string{upper}, r.Image.Lower...)
}

// makeWorkingDir makes the working directory where the image has none: in the writable layer, owned by the container's root.
func makeWorkingDir(o *Options, r *Record) error {
	dir, _ := o.dirsOf(r.ID)
	root := o.rootfs(r)
	root.ReadOnly = false
	return MakeDir(root, r.layers(dir), r.Config.WorkingDir)
}

// MakeDir makes a working directory in a root file system where it is missing, owned by its root. layers: where it is looked for, topmost first.
func MakeDir(root rootfs.Rootfs, layers []string, name string) error {
	name = path.Clean("/" + name)
	if name == "/" {
		return nil
	}
	f, err := lookup(layers, name)
	if err == nil {
		defer f.Close()
		fi, err := f.Stat()
		if err == nil && !fi.IsDir() {
			err = invalid("the working directory %s is a file in the image: set another one with -w", name)
		}
		return err
	}
	mounted, err := root.Mount(nil)
	if err != nil {
		return err
	}
	defer mounted.Close()
	var made *os.File
	do := func() error { made, err = mkdirIn(mounted, name, root.IDMap.Host(0)); return err }
	if root.Layer { // where the host's root is nobody
		err = root.IDMap.AsRoot(do)
	} else {
		err = do()
	}
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.EEXIST) || errors.Is(err, unix.ELOOP) {
		return invalid("the working directory %s cannot be made (%v): something else is in its place in the image; set another one with -w", name, err)
	}
	if err != nil {
		return fmt.Errorf("make the working directory %s: %w", name, err)
	}
	return made.Close()
}

// mkdirIn makes a directory and its parents inside root, owned by an id, and opens it. What is there stays as it is.
func mkdirIn(root *os.File, name string, id int) (*os.File, error) {
	f, err := openIn(root, name, unix.O_PATH|unix.O_DIRECTORY)
	if !errors.Is(err, unix.ENOENT) || path.Clean("/"+name) == "/" {
		return f, err
	}
	parent, err := mkdirIn(root, path.Dir(path.Clean("/"+name)), id)
	if err != nil {
		return nil, err
	}
	defer parent.Close()
	base := path.Base(name)
	if err := unix.Mkdirat(int(parent.Fd()), base, 0o755); err != nil {
		return nil, err
	}
	if err := unix.Fchownat(int(parent.Fd()), base, id, id, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return nil, err
	}
	return openAt(parent, base, unix.O_PATH|unix.O_DIRECTORY)
}
