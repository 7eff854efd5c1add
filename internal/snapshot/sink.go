package snapshot

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/erofs"
	"wherry.dev/wherry/internal/layer"
)

// Image is a layer that becomes an EROFS image while it is unpacked: a layer.Sink for what Prepare returned as a FileMount. What a layer
// takes away stands in it as overlay wants it, as in a layer.Dir.
type Image struct {
	base bool
	f    *os.File
	out  *File
	w    *erofs.Writer

	implicit  map[erofs.Ino]string // directories that the layer has not named, by path
	opaque    map[erofs.Ino]bool   // directories that hide what is below
	whiteouts bool
	hops      int // links followed for this entry
	kept      int // bytes of the above
	last      string
	lastDir   erofs.Ino // of the path last
}

const (
	maxHops    = 40 // as the kernel has it
	maxKept    = 64 << 20
	maxPath    = unix.PathMax - 1
	permission = 0o7777
)

// ImageOptions of NewImage.
type ImageOptions struct {
	Base bool     // there is no layer below, and nothing is taken away
	UUID [16]byte // of an image that it is to be the same as; zero: its own
	Kept int64    // how many bytes of names and inodes may be kept in memory before the end is ErrTooMany; 0: package erofs knows
}

// NewImage begins the image at path.
func NewImage(path string, o ImageOptions) (*Image, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_RDWR|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	out := NewFile(f)
	return &Image{base: o.Base, f: f, out: out, w: erofs.NewWriter(out, erofs.Options{UUID: o.UUID, Kept: o.Kept}),
		implicit: map[erofs.Ino]string{0: ""}, opaque: map[erofs.Ino]bool{}}, nil
}

// Add is layer.Sink's.
func (i *Image) Add(e *layer.Entry, body io.Reader) error {
	i.hops = 0
	err := i.add(e, body)
	if errors.Is(err, erofs.ErrInvalid) {
		err = fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	if err != nil {
		return fmt.Errorf("write %.300q: %w", "/"+e.Path, err)
	}
	return nil
}

func (i *Image) add(e *layer.Entry, body io.Reader) error {
	if i.base && (e.Kind == layer.Whiteout || e.Kind == layer.Opaque) {
		return nil
	}
	if e.Kind == layer.Opaque {
		dir, err := i.descend(e.Path, true)
		if err == nil {
			err = i.hide(dir)
		}
		return err
	}
	a := attrOfEntry(e)
	if e.Path == "" {
		return i.setDirectory(0, a)
	}
	parent, name := split(e.Path)
	dir, err := i.descend(parent, true)
	if err != nil {
		return err
	}
	there, exists := i.w.Lookup(dir, name)
	switch e.Kind {
	case layer.Directory:
		return i.addDirectory(dir, name, a)
	case layer.Hardlink:
		return i.addLink(dir, name, e.Target)
	case layer.Whiteout:
		if exists && i.isDir(there) {
			delete(i.implicit, there)
			return i.hide(there)
		}
		if i.whiteouts = true; exists {
			return nil // it hides by itself
		}
	default:
		i.remove(dir, name)
	}
	switch e.Kind {
	case layer.File:
		if _, err = i.w.AddFile(dir, name, uint64(e.Size), a); err == nil && e.Size > 0 {
			_, err = i.w.ReadFrom(body)
		}
	case layer.Symlink:
		_, err = i.w.AddLink(dir, name, e.Target, a)
	default:
		_, err = i.w.Add(dir, name, a)
	}
	return err
}

// attrOfEntry is what an entry says of a file, without the attributes that no file system would keep on it.
func attrOfEntry(e *layer.Entry) *erofs.Attr {
	kinds := [...]uint32{layer.Directory: unix.S_IFDIR, layer.File: unix.S_IFREG, layer.Symlink: unix.S_IFLNK, layer.Hardlink: 0,
		layer.CharDevice: unix.S_IFCHR, layer.BlockDevice: unix.S_IFBLK, layer.Fifo: unix.S_IFIFO, layer.Whiteout: unix.S_IFCHR, layer.Opaque: 0}
	a := &erofs.Attr{Mode: kinds[e.Kind] | e.Mode&permission, UID: e.UID, GID: e.GID}
	if e.Kind == layer.Whiteout {
		return &erofs.Attr{Mode: a.Mode}
	}
	if !e.ModTime.IsZero() {
		a.Sec, a.Nsec = e.ModTime.Unix(), uint32(e.ModTime.Nanosecond())
	}
	if e.Kind == layer.CharDevice || e.Kind == layer.BlockDevice {
		a.Rdev = erofs.Device(e.Major, e.Minor)
	}
	for _, x := range e.Xattrs {
		special := e.Kind != layer.File && e.Kind != layer.Directory && strings.HasPrefix(x.Name, "user.")
		if erofs.HoldsXattr(x.Name) && !special {
			a.Xattrs = append(a.Xattrs, erofs.Xattr{Name: x.Name, Value: x.Value})
		}
	}
	return a
}

func (i *Image) isDir(ino erofs.Ino) bool { return i.w.Mode(ino)&unix.S_IFMT == unix.S_IFDIR }

func (i *Image) isWhiteout(ino erofs.Ino) bool {
	if i.w.Mode(ino)&unix.S_IFMT != unix.S_IFCHR {
		return false
	}
	a, err := i.w.Attr(ino)
	return err == nil && a.Rdev == 0
}

func (i *Image) remove(dir erofs.Ino, name string) {
	i.last, i.lastDir = "", 0
	i.w.Remove(dir, name)
}

func (i *Image) addDirectory(dir erofs.Ino, name string, a *erofs.Attr) error {
	there, exists := i.w.Lookup(dir, name)
	if exists && i.isDir(there) {
		return i.setDirectory(there, a)
	}
	hides := exists && i.isWhiteout(there)
	i.remove(dir, name)
	made, err := i.w.Add(dir, name, a)
	if err == nil && hides {
		err = i.hide(made)
	}
	return err
}

// setDirectory gives a directory that was there before what an entry says. It keeps what is in it, and attributes of which that says nothing.
func (i *Image) setDirectory(ino erofs.Ino, a *erofs.Attr) error {
	delete(i.implicit, ino)
	before, err := i.w.Attr(ino)
	if err != nil {
		return err
	}
	for _, x := range before.Xattrs {
		if !slices.ContainsFunc(a.Xattrs, func(y erofs.Xattr) bool { return y.Name == x.Name }) {
			a.Xattrs = append(a.Xattrs, x)
		}
	}
	return i.w.SetAttr(ino, a)
}

// addLink gives a file one more name.
func (i *Image) addLink(dir erofs.Ino, name, target string) error {
	lost := fmt.Errorf("it is a hard link to %.300q, which is no file that comes before it in this layer: %w", "/"+target, errdefs.ErrInvalidArgument)
	parent, old := split(target)
	from, err := i.descend(parent, false)
	if errors.Is(err, os.ErrNotExist) {
		return lost
	}
	if err != nil {
		return err
	}
	ino, ok := i.w.Lookup(from, old)
	if !ok || i.isDir(ino) || i.isWhiteout(ino) {
		return lost
	}
	there, exists := i.w.Lookup(dir, name)
	if exists && there == ino {
		return nil
	}
	if exists && i.within(from, there) {
		return fmt.Errorf("it takes the place of a directory, and is a hard link to a file in that: %w", errdefs.ErrInvalidArgument)
	}
	i.remove(dir, name)
	return i.w.Link(dir, name, ino)
}

// within says whether a directory is top or below it.
func (i *Image) within(dir, top erofs.Ino) bool {
	for ; dir != top; dir = i.w.Parent(dir) {
		if dir == 0 {
			return false
		}
	}
	return true
}

// hide makes a directory hide what the layers below have in it. It is marked in the end.
func (i *Image) hide(dir erofs.Ino) error {
	i.opaque[dir] = true
	return i.keep(64)
}

func (i *Image) isHidden(dir erofs.Ino) bool {
	for ; len(i.opaque) > 0; dir = i.w.Parent(dir) {
		if i.opaque[dir] {
			return true
		}
		if dir == 0 {
			break
		}
	}
	return false
}

func (i *Image) keep(n int) error {
	if i.kept += n; i.kept > maxKept {
		return fmt.Errorf("the layer has more directories that it does not name than are kept in memory: %w", errdefs.ErrInvalidArgument)
	}
	return nil
}

// descend finds the directory at a path of the layer, or makes it. Links on the way are followed within the layer.
func (i *Image) descend(path string, makeParents bool) (erofs.Ino, error) {
	if path == "" || path == i.last {
		if path == "" {
			return 0, nil
		}
		return i.lastDir, nil
	}
	at := erofs.Ino(0)
	var err error
	for part := range strings.SplitSeq(path, "/") {
		if at, err = i.enter(at, part, makeParents); err != nil {
			return 0, err
		}
	}
	i.last, i.lastDir = path, at
	return at, nil
}

func (i *Image) enter(at erofs.Ino, name string, makeParents bool) (erofs.Ino, error) {
	in, ok := i.w.Lookup(at, name)
	switch {
	case !ok && makeParents:
		return i.makeImplicit(at, name)
	case !ok:
		return 0, os.ErrNotExist
	case i.isDir(in):
		return in, nil
	case i.w.Mode(in)&unix.S_IFMT == unix.S_IFLNK:
		return i.follow(at, i.w.Target(in), makeParents)
	case i.isWhiteout(in) && makeParents:
		i.remove(at, name)
		made, err := i.w.Add(at, name, &erofs.Attr{Mode: unix.S_IFDIR | 0o755})
		if err == nil {
			err = i.hide(made)
		}
		return made, err
	}
	return 0, fmt.Errorf("%.300q is no directory, and has files in it: %w", name, errdefs.ErrInvalidArgument)
}

// makeImplicit makes a directory that the layer has not named so far.
func (i *Image) makeImplicit(at erofs.Ino, name string) (erofs.Ino, error) {
	made, err := i.w.Add(at, name, &erofs.Attr{Mode: unix.S_IFDIR | 0o755})
	if err != nil {
		return 0, err
	}
	path := filepath.Join(i.pathOf(at), name)
	i.implicit[made] = path
	return made, i.keep(len(path) + 64)
}

// pathOf is the path of a directory within the layer, through no link.
func (i *Image) pathOf(dir erofs.Ino) string {
	var parts []string
	for ; dir != 0; dir = i.w.Parent(dir) {
		parts = append(parts, i.w.NameOf(dir))
	}
	slices.Reverse(parts)
	return filepath.Join(parts...)
}

// follow goes where a link leads; its root is the layer's.
func (i *Image) follow(at erofs.Ino, target string, makeParents bool) (erofs.Ino, error) {
	if i.hops++; i.hops > maxHops {
		return 0, fmt.Errorf("there are more than %d links on the way to it: %w", maxHops, errdefs.ErrInvalidArgument)
	}
	if strings.HasPrefix(target, "/") {
		at = 0
	}
	var err error
	for part := range strings.SplitSeq(target, "/") {
		switch {
		case part == "" || part == ".":
			continue
		case part == "..":
			at = i.w.Parent(at)
		case len(part) > unix.NAME_MAX || len(i.pathOf(at))+len(part) >= maxPath:
			return 0, fmt.Errorf("a link on the way to it leads to no file: %w", errdefs.ErrInvalidArgument)
		default:
			at, err = i.enter(at, part, makeParents)
		}
		if err != nil {
			return 0, err
		}
	}
	return at, nil
}

func split(path string) (dir, name string) {
	at := strings.LastIndexByte(path, '/')
	return path[:max(0, at)], path[at+1:]
}

// Finish is called when all of the layer has been added. Names and inodes wait for Settle.
func (i *Image) Finish() error {
	i.remove(0, layer.Links)
	return nil
}

// Close gives the file up, after Settle or instead of it.
func (i *Image) Close() error {
	i.out.Close()
	return i.f.Close()
}
