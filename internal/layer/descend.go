package layer

import (
	"container/list"
	"errors"
	"strings"

	"golang.org/x/sys/unix"
)

// directory is one that is held open.
type directory struct {
	path   string // within the layer, through no link
	fd     int
	gid    uint32
	setgid bool // files in it begin with its group
	timed  bool // mtime is what it has to have in the end
	stale  bool // the kernel has set another since
	mtime  unix.Timespec
	held   bool
	at     *list.Element
}

// learn takes over what the directory has.
func (d *directory) learn() error {
	var st unix.Stat_t
	if err := unix.Fstat(d.fd, &st); err != nil {
		return err
	}
	d.gid, d.setgid, d.mtime, d.timed, d.stale = st.Gid, st.Mode&unix.S_ISGID != 0, st.Mtim, true, false
	return nil
}

// close leaves the directory with the time of its own.
func (d *directory) close() error {
	var err error
	if d.timed && d.stale {
		err = unix.UtimesNanoAt(d.fd, "", []unix.Timespec{{Nsec: unix.UTIME_OMIT}, d.mtime}, unix.AT_EMPTY_PATH)
	}
	return errors.Join(err, unix.Close(d.fd))
}

// cache holds the directories open that were used last: a tar has its files by directory.
type cache struct {
	root   *directory
	recent list.List
	byPath map[string]*directory
}

const mostOpen = 64

func (c *cache) get(path string) *directory {
	if path == "" {
		return c.root
	}
	d := c.byPath[path]
	if d != nil {
		c.recent.MoveToFront(d.at)
	}
	return d
}

func (c *cache) put(d *directory) error {
	if c.byPath == nil {
		c.byPath = map[string]*directory{}
	}
	c.byPath[d.path] = d
	d.at = c.recent.PushFront(d)
	if len(c.byPath) <= mostOpen {
		return nil
	}
	for at := c.recent.Back(); at != nil; at = at.Prev() {
		if old := at.Value.(*directory); !old.held && old != d {
			c.remove(old)
			return old.close()
		}
	}
	return nil
}

func (c *cache) remove(d *directory) {
	c.recent.Remove(d.at)
	delete(c.byPath, d.path)
}

// hold keeps a directory open until the function that it returns is called.
func (c *cache) hold(d *directory) func() {
	d.held, d.stale = true, true
	return func() { d.held = false }
}

// drop forgets a directory that goes away, and all in it; "" is everything.
func (c *cache) drop(path string) {
	for p, d := range c.byPath {
		if within(p, path) {
			c.remove(d)
			_ = unix.Close(d.fd)
		}
	}
}

// within says whether a path is dir or below it.
func within(path, dir string) bool {
	return dir == "" || path == dir || strings.HasPrefix(path, dir) && path[len(dir)] == '/'
}

func (c *cache) close() error {
	var err error
	for _, d := range c.byPath {
		err = errors.Join(err, d.close())
	}
	if c.root != nil {
		err = errors.Join(err, c.root.close())
	}
	*c = cache{}
	return err
}

type descent bool

const (
	onlyFind    descent = false
	makeParents descent = true
)

// descend opens the directory at a path of the layer. Links on the way are followed within the layer.
func (d *Dir) descend(path string, how descent) (*directory, error) {
	if at := d.dirs.get(path); at != nil {
		return at, nil
	}
	parent, name := split(path)
	at, err := d.descend(parent, how)
	if err != nil {
		return nil, err
	}
	return d.enter(at, name, how)
}

// enter opens a directory in one that is open.
func (d *Dir) enter(at *directory, name string, how descent) (*directory, error) {
	path := join(at.path, name)
	if in := d.dirs.get(path); in != nil {
		return in, nil
	}
	in := &directory{path: path}
	var err error
	in.fd, err = openDirectory(at.fd, name)
	switch {
	case err == nil:
		if err := in.learn(); err != nil {
			return nil, errors.Join(err, unix.Close(in.fd))
		}
		return in, d.dirs.put(in)
	case err == unix.ENOENT && how == makeParents:
		return d.makeImplicit(at, name)
	case err != unix.ENOTDIR && err != unix.ELOOP:
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstatat(at.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return nil, err
	}
	switch {
	case st.Mode&unix.S_IFMT == unix.S_IFLNK:
		return d.follow(at, name, how)
	case isWhiteout(&st) && how == makeParents:
		if err := unix.Unlinkat(at.fd, name, 0); err != nil {
			return nil, err
		}
		in, err := d.makeImplicit(at, name)
		if err != nil {
			return nil, err
		}
		return in, d.hideAll(in)
	}
	return nil, invalid("/%.300s is no directory, and has files in it", path)
}

func isWhiteout(st *unix.Stat_t) bool { return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0 }

func openDirectory(at int, name string) (int, error) {
	return unix.Openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
}

// makeImplicit makes a directory that the layer has not named so far.
func (d *Dir) makeImplicit(at *directory, name string) (*directory, error) {
	path := join(at.path, name)
	if err := d.keep(len(path) + 64); err != nil {
		return nil, err
	}
	in, err := d.makeDirectory(at, name, &Entry{Path: path, Kind: Directory, Mode: 0o755})
	if err == nil {
		d.implicit[path] = struct{}{}
	}
	return in, err
}

// follow reads a link and goes where it leads; its root is the layer's.
func (d *Dir) follow(at *directory, name string, how descent) (*directory, error) {
	if d.hops++; d.hops > maxHops {
		return nil, invalid("there are more than %d links on the way to it", maxHops)
	}
	buf := make([]byte, maxPath+1)
	n, err := unix.Readlinkat(at.fd, name, buf)
	if err != nil {
		return nil, err
	}
	target := string(buf[:n])
	if strings.HasPrefix(target, "/") {
		at = d.dirs.root
	}
	for part := range strings.SplitSeq(target, "/") {
		switch {
		case part == "" || part == ".":
			continue
		case part == "..":
			up, _ := split(at.path)
			at, err = d.descend(up, how)
		case len(part) > maxName || len(at.path)+len(part) >= maxPath:
			return nil, invalid("a link on the way to it leads to no file")
		default:
			at, err = d.enter(at, part, how)
		}
		if err != nil {
			return nil, err
		}
	}
	return at, nil
}
