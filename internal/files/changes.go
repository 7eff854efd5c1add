package files

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/archive"
	containers "wherry.dev/wherry/internal/container"
	"wherry.dev/wherry/internal/rootfs"
	"wherry.dev/wherry/internal/spec"
)

// upper is a container's writable layer as overlay keeps it (kernel, filesystems/overlayfs.rst): what is new or changed lies there whole;
// a device 0:0 says that the name is gone, the attribute trusted.overlay.opaque that nothing of the layers below is left in a directory.
type upper struct {
	dir    *os.File
	points map[string]bool // places of mounts, which the engine makes in the layer
	below  *os.File        // the image, read-only
}

// openUpper opens the writable layer beside a view of the image.
func openUpper(v *containers.View) (*upper, error) {
	dir, err := os.OpenFile(v.Rootfs.Upper, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, fmt.Errorf("open the writable layer: %w", err)
	}
	image := rootfs.Rootfs{Lower: v.Rootfs.Lower, Base: v.Rootfs.Base, IDMap: v.Rootfs.IDMap}
	below, err := image.Mount(nil)
	if err != nil {
		_ = dir.Close()
		return nil, err
	}
	u := &upper{dir: dir, below: below, points: map[string]bool{}}
	for _, at := range []string{"/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/dev/console", "/proc", "/sys", "/sys/fs/cgroup",
		"/etc/hosts", "/etc/hostname", "/etc/resolv.conf", spec.InitPath, spec.MarkerPath} {
		u.points[at[1:]] = true
	}
	for _, m := range v.Mounts {
		u.points[path.Clean("/" + m.Destination)[1:]] = true
	}
	return u, nil
}

func (u *upper) Close() {
	_ = u.dir.Close()
	_ = u.below.Close()
}

// change is a name in the writable layer that differs from the image.
type change struct {
	*archive.Entry
	kind   container.ChangeType
	opaque bool // a directory without what the image has in it
}

// walk calls fn for everything that differs, and for directories that are there only because something in them differs (unchanged).
func (u *upper) walk(ctx context.Context, fn func(c change, unchanged bool) error) error {
	return archive.Walk(ctx, u.dir, archive.WalkOptions{OneMount: true}, func(e *archive.Entry) (bool, error) {
		c := change{Entry: e}
		if whiteout(&e.Stat) {
			c.kind = container.ChangeDelete
			return false, fn(c, false)
		}
		var old unix.Stat_t
		had, err := u.old(e.Path, &old)
		if err != nil {
			return false, err
		}
		c.kind = container.ChangeModify
		if !had {
			c.kind = container.ChangeAdd
		}
		if u.points[e.Path] && isPlace(e) {
			return e.IsDir(), nil
		}
		if !e.IsDir() {
			return false, fn(c, false)
		}
		if c.opaque, err = isOpaque(e); err != nil {
			return false, err
		}
		same := had && !c.opaque && sameDirectory(&e.Stat, &old) && (e.Stat.Mtim == old.Mtim || u.holdsPlaces(e.Path))
		return true, fn(c, same)
	})
}

// isPlace says that an entry may be nothing but the place of a mount: a directory, or an empty file.
func isPlace(e *archive.Entry) bool {
	return e.IsDir() || e.Stat.Mode&unix.S_IFMT == unix.S_IFREG && e.Stat.Size == 0
}

// holdsPlaces says that mounts are placed in a directory, so that its time tells nothing.
func (u *upper) holdsPlaces(dir string) bool {
	for p := range u.points {
		if path.Dir(p) == dir {
			return true
		}
	}
	return false
}

func whiteout(st *unix.Stat_t) bool {
	return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0
}

func sameDirectory(a, b *unix.Stat_t) bool {
	return b.Mode&unix.S_IFMT == unix.S_IFDIR && a.Mode == b.Mode && a.Uid == b.Uid && a.Gid == b.Gid
}

// old looks a path up in the image.
func (u *upper) old(name string, st *unix.Stat_t) (bool, error) {
	dir, err := archive.OpenBelow(u.below, path.Dir(name), unix.O_PATH|unix.O_DIRECTORY)
	if err == nil {
		err = unix.Fstatat(int(dir.Fd()), path.Base(name), st, unix.AT_SYMLINK_NOFOLLOW)
		_ = dir.Close()
	}
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
		return false, nil
	}
	return false, fmt.Errorf("look %s up in the image: %w", name, err)
}

func isOpaque(e *archive.Entry) (bool, error) {
	f, err := openDirectory(e.Dir, e.Name)
	if err != nil {
		return false, err
	}
	defer f.Close()
	value := make([]byte, 8)
	n, err := unix.Getxattr(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), "trusted.overlay.opaque", value)
	if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.ENOTSUP) {
		return false, nil
	}
	return n == 1 && value[0] == 'y', err
}

// Changes lists what differs from the image (docker diff).
func (s *Service) Changes(ctx context.Context, id string) ([]container.FilesystemChange, error) {
	v, done, err := s.view(ctx, id)
	if err != nil {
		return nil, err
	}
	defer done()
	u, err := openUpper(&v)
	if err != nil {
		return nil, fmt.Errorf("changes of container %s: %w", v.Name, err)
	}
	defer u.Close()
	kinds := map[string]container.ChangeType{}
	err = u.walk(ctx, func(c change, unchanged bool) error {
		if unchanged {
			return nil
		}
		kinds["/"+c.Path] = c.kind
		for dir := path.Dir("/" + c.Path); dir != "/"; dir = path.Dir(dir) { // a change in a directory is one of the directory
			if _, ok := kinds[dir]; ok {
				break
			}
			kinds[dir] = container.ChangeModify
		}
		if c.opaque {
			return u.hidden(ctx, c, kinds)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("changes of container %s: %w", v.Name, err)
	}
	list := make([]container.FilesystemChange, 0, len(kinds))
	for at, kind := range kinds {
		list = append(list, container.FilesystemChange{Kind: kind, Path: at})
	}
	slices.SortFunc(list, func(a, b container.FilesystemChange) int { return cmp.Compare(a.Path, b.Path) })
	return list, nil
}

// hidden notes what the image has in a directory that was made anew, and the writable layer has not.
func (u *upper) hidden(ctx context.Context, c change, kinds map[string]container.ChangeType) error {
	dir, err := archive.OpenBelow(u.below, c.Path, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return nil // nothing was hidden
	}
	defer dir.Close()
	return archive.Walk(ctx, dir, archive.WalkOptions{OneMount: true}, func(e *archive.Entry) (bool, error) {
		at := path.Join(c.Path, e.Path)
		f, err := archive.OpenBelow(u.dir, path.Dir(at), unix.O_PATH|unix.O_DIRECTORY)
		if err == nil {
			var st unix.Stat_t
			err = unix.Fstatat(int(f.Fd()), path.Base(at), &st, unix.AT_SYMLINK_NOFOLLOW)
			_ = f.Close()
		}
		if err == nil {
			return true, nil
		}
		kinds["/"+at] = container.ChangeDelete
		return false, nil
	})
}

// layer writes the changes as a layer of an image (image-spec, layer.md): names that are gone stand as .wh.NAME.
func (u *upper) layer(ctx context.Context, w *archive.Writer) error {
	const gone, opaque = ".wh.", ".wh..wh..opq"
	written := map[string]bool{".": true}
	parents := func(name string) error { // of what differs, without which a reader would guess owner and mode
		var missing []string
		for dir := path.Dir(name); !written[dir]; dir = path.Dir(dir) {
			missing = append(missing, dir)
			written[dir] = true
		}
		for _, dir := range slices.Backward(missing) {
			f, err := archive.OpenBelow(u.dir, path.Dir(dir), unix.O_PATH|unix.O_DIRECTORY)
			if err != nil {
				return err
			}
			err = w.Add(f, path.Base(dir), dir)
			_ = f.Close()
			if err != nil {
				return err
			}
		}
		return nil
	}
	err := u.walk(ctx, func(c change, unchanged bool) error {
		if unchanged {
			return nil
		}
		if err := parents(c.Path); err != nil {
			return err
		}
		if c.kind == container.ChangeDelete {
			return w.Empty(path.Join(path.Dir(c.Path), gone+c.Name))
		}
		if strings.HasPrefix(c.Name, gone) {
			return fmt.Errorf("%s: layers cannot hold names that begin with %s", c.Path, gone)
		}
		written[c.Path] = true
		if err := w.Add(c.Dir, c.Name, c.Path); err != nil || !c.opaque {
			return err
		}
		return w.Empty(path.Join(c.Path, opaque))
	})
	if err != nil {
		return err
	}
	return w.Close()
}
