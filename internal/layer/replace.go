package layer

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// whiteout stands beside the types of files that stat has.
const whiteout = 1

type clearing bool

const (
	keepDirectory clearing = true
	clearAll      clearing = false
)

// clear takes a name away, and says what it was.
func (d *Dir) clear(at *directory, name string, how clearing) (was uint32, err error) {
	var st unix.Stat_t
	if err := unix.Fstatat(at.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return 0, err
	}
	if isWhiteout(&st) {
		return whiteout, unix.Unlinkat(at.fd, name, 0)
	}
	if was = st.Mode & unix.S_IFMT; was != unix.S_IFDIR {
		return was, unix.Unlinkat(at.fd, name, 0)
	}
	if how == keepDirectory {
		return was, nil
	}
	path := join(at.path, name)
	d.dirs.drop(path)
	d.named(path)
	for p := range d.opaque {
		if within(p, path) {
			delete(d.opaque, p)
		}
	}
	return was, d.tree.RemoveAll(path)
}

// replacing makes a file in the place of what came before under its name.
func (d *Dir) replacing(at *directory, name string, make func() error) error {
	err := make()
	if err != unix.EEXIST {
		return err
	}
	if _, err := d.clear(at, name, clearAll); err != nil {
		return fmt.Errorf("take away what came before: %w", err)
	}
	return make()
}

// addLink gives a file one more name.
func (d *Dir) addLink(at *directory, name string, e *Entry) error {
	parent, old := split(e.Target)
	from, err := d.descend(parent, onlyFind)
	if err == nil {
		if self := from == at && old == name; self || len(d.whiteouts) > 0 {
			var st unix.Stat_t
			err := unix.Fstatat(from.fd, old, &st, unix.AT_SYMLINK_NOFOLLOW)
			if err == nil && (st.Mode&unix.S_IFMT == unix.S_IFDIR || isWhiteout(&st)) {
				err = unix.EPERM // link(2) takes no directories; a whiteout is no file
			}
			if self || err != nil {
				return lost(e, err)
			}
		}
		if within(from.path, join(at.path, name)) {
			return invalid("it takes the place of a directory, and is a hard link to a file in that")
		}
		defer d.dirs.hold(from)()
		err = d.replacing(at, name, func() error { return unix.Linkat(from.fd, old, at.fd, name, 0) })
	}
	return lost(e, err)
}

func lost(e *Entry, err error) error {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EPERM) {
		return invalid("it is a hard link to %.300q, which is no file that comes before it in this layer", "/"+e.Target)
	}
	return err
}

// addWhiteout hides a name of the layers below. What this layer has under it stays, and hides by itself.
func (d *Dir) addWhiteout(at *directory, name string) error {
	if d.isHidden(at.path) {
		return nil // overlay lists whiteouts in directories that hide all below
	}
	if _, known := d.whiteouts[at.path]; !known {
		if err := d.keep(len(at.path) + 64); err != nil {
			return err
		}
		d.whiteouts[at.path] = struct{}{}
	}
	err := unix.Mknodat(at.fd, name, unix.S_IFCHR, 0)
	if err != unix.EEXIST {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstatat(at.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return err
	}
	in, err := d.enter(at, name, onlyFind)
	if err != nil {
		return err
	}
	return d.hideAll(in)
}

// hideAll hides what the layers below have under a directory's name: it is another, and inherits nothing.
func (d *Dir) hideAll(in *directory) error {
	d.named(in.path)
	return d.hideBelow(in)
}

// named forgets that directories were not named.
func (d *Dir) named(path string) {
	for p := range d.implicit {
		if within(p, path) {
			delete(d.implicit, p)
		}
	}
}

// hideBelow hides what the layers below have in a directory.
func (d *Dir) hideBelow(in *directory) error {
	if d.isHidden(in.path) {
		return nil
	}
	if err := d.keep(len(in.path) + 64); err != nil {
		return err
	}
	d.opaque[in.path] = struct{}{}
	if len(d.whiteouts) > 0 {
		in.stale = true
		if err := d.dropWhiteouts(in.fd, in.path); err != nil {
			return err
		}
	}
	if err := unix.Fsetxattr(in.fd, overlayOpaque, []byte("y"), 0); err != nil {
		return fmt.Errorf("mark a directory as opaque: %w", err)
	}
	return nil
}

// isHidden says whether nothing of the layers below is seen in a directory.
func (d *Dir) isHidden(path string) bool {
	for len(d.opaque) > 0 {
		if _, ok := d.opaque[path]; ok {
			return true
		}
		if path == "" {
			break
		}
		path, _ = split(path)
	}
	return false
}

// dropWhiteouts takes away those that a directory has, and those further down. One that hides all below has none any more: a layer that has many of
// these in each other is not looked through each time.
func (d *Dir) dropWhiteouts(dir int, path string) error {
	names, err := namesIn(dir)
	for _, name := range names {
		var st unix.Stat_t
		if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
		if isWhiteout(&st) {
			err = unix.Unlinkat(dir, name, 0)
		}
		if err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
			err = dropIn(d, dir, name, join(path, name))
		}
		if err != nil {
			return err
		}
	}
	return err
}

func dropIn(d *Dir, dir int, name, path string) error {
	if _, hides := d.opaque[path]; hides {
		return nil
	}
	fd, err := openDirectory(dir, name)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if err := d.dropWhiteouts(fd, path); err != nil {
		return err
	}
	return keepTime(fd, &st)
}
