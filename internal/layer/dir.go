package layer

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// DirOptions of NewDir.
type DirOptions struct {
	Base bool // there is no layer below: nothing is taken away, and no marks of that are left
}

// Dir writes a layer into a directory as the overlay file system wants it: what it takes away are devices 0:0 and opaque directories. Every
// call is relative to a directory that is held open, and follows no link; links among a layer's directories are followed by reading them.
type Dir struct {
	o         DirOptions
	tree      *os.Root // for taking away whole directories
	user      bool     // not root's process: owners have to be set always
	umask     uint32
	buf       []byte
	dirs      cache
	hops      int // links followed for this entry
	implicit  map[string]struct{}
	opaque    map[string]struct{} // directories that hide all that is below
	acls      []lateXattr
	whiteouts map[string]struct{} // directories that have had some
	kept      int                 // bytes of the four before
}

// lateXattr is a default ACL: files that are made in a directory that has one begin with it.
type lateXattr struct {
	path string
	Xattr
}

const (
	overlayOpaque = "trusted.overlay.opaque"
	defaultACL    = "system.posix_acl_default"
	copySize      = 256 << 10
	maxKept       = 64 << 20
	maxHops       = 40 // as the kernel has it
)

// NewDir writes into the directory at path, which is empty.
func NewDir(path string, o DirOptions) (*Dir, error) {
	umask, err := umask()
	if err != nil {
		return nil, err
	}
	tree, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, errors.Join(&os.PathError{Op: "open", Path: path, Err: err}, tree.Close())
	}
	d := &Dir{o: o, tree: tree, user: os.Geteuid() != 0, umask: umask, implicit: map[string]struct{}{"": {}}, opaque: map[string]struct{}{}, whiteouts: map[string]struct{}{}}
	d.dirs.root = &directory{fd: fd}
	if err := d.dirs.root.learn(); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	d.dirs.root.mtime, d.dirs.root.stale = unix.Timespec{}, true
	if err := unix.Fremovexattr(fd, defaultACL); err != nil && err != unix.ENODATA && err != unix.ENOTSUP {
		return nil, errors.Join(fmt.Errorf("take the default ACL from %s: %w", path, err), d.Close())
	}
	return d, nil
}

// umask is this process'. It can only be read by setting it, or here.
func umask() (uint32, error) {
	b, err := os.ReadFile("/proc/thread-self/status")
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(b), "\nUmask:\t")
	var mask uint32
	if _, err := fmt.Sscanf(rest, "%o", &mask); err != nil {
		return 0, fmt.Errorf("read the umask: %w", err)
	}
	return mask, nil
}

// Add is Sink's.
func (d *Dir) Add(e *Entry, body io.Reader) error {
	d.hops = 0
	if err := d.add(e, body); err != nil {
		return fmt.Errorf("write %.300q: %w", "/"+e.Path, err)
	}
	return nil
}

func (d *Dir) add(e *Entry, body io.Reader) error {
	if d.o.Base && (e.Kind == Whiteout || e.Kind == Opaque) {
		return nil
	}
	if e.Kind == Opaque {
		at, err := d.descend(e.Path, makeParents)
		if err != nil {
			return err
		}
		return d.hideBelow(at)
	}
	if e.Path == "" {
		return d.setDirectory(d.dirs.root, e)
	}
	parent, name := split(e.Path)
	at, err := d.descend(parent, makeParents)
	if err != nil {
		return err
	}
	defer d.dirs.hold(at)()
	switch e.Kind {
	case Directory:
		return d.addDirectory(at, name, e)
	case File:
		return d.addFile(at, name, e, body)
	case Hardlink:
		return d.addLink(at, name, e)
	case Whiteout:
		return d.addWhiteout(at, name)
	case Symlink, CharDevice, BlockDevice, Fifo:
		return d.addSpecial(at, name, e)
	}
	return errKind
}

// Finish sets what can only be set when all files are there. Nothing is synced.
func (d *Dir) Finish() error {
	if _, ok := d.implicit[Links]; ok {
		if _, err := d.clear(d.dirs.root, Links, clearAll); err != nil {
			return fmt.Errorf("take away %q: %w", "/"+Links, err)
		}
		d.dirs.root.stale = true
	}
	for _, acl := range d.acls {
		d.hops = 0
		at, err := d.descend(acl.path, onlyFind)
		if err != nil {
			continue // it did not stay
		}
		if err := setXattr(at.fd, acl.Xattr, false); err != nil {
			return fmt.Errorf("set the default ACL of %.300q: %w", "/"+acl.path, err)
		}
	}
	return errors.Join(d.dirs.close(), d.tree.Close())
}

// Close gives up what is held, after Finish or instead of it.
func (d *Dir) Close() error {
	d.dirs.drop("")
	return errors.Join(d.dirs.close(), d.tree.Close())
}

// Implicit are the directories that the layer has files in and never names: Inherit gives them what the layers below say.
func (d *Dir) Implicit() []string {
	list := make([]string, 0, len(d.implicit))
	for path := range d.implicit {
		list = append(list, path)
	}
	return list
}

func (d *Dir) keep(n int) error {
	if d.kept += n; d.kept > maxKept {
		return invalid("the layer has more directories that it does not name than are kept in memory")
	}
	return nil
}
