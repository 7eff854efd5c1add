package erofs

import (
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
)

// Options of NewWriter; the zero value is right for layers.
type Options struct {
	BlockBits uint8    // blocks of 1<<BlockBits bytes, 9 to 12; 0: 9, which wastes little on small files
	Kept      int64    // how many bytes of names and inodes may be kept in memory; 0: 160 MiB, which is more than a million files
	UUID      [16]byte // the file system's; zero: a random one, since overlays tell layers apart by it
	Maker     string   // who says that it wrote the image, 15 bytes at most; "": Maker, whose order of files follows from a tar
}

// Writer makes an image. After an error, which every later call returns too, the file is of no use.
type Writer struct {
	tree    *tree
	out     *out
	bits    uint8
	uuid    [16]byte
	maker   string
	most    int64  // bytes that the tree may take
	current Ino    // the file whose data is awaited
	left    uint64 // bytes of it
	err     error
}

var errOrder = errors.New("data of a file that was not announced")

// NewWriter begins an image in an empty file. The root directory is there, with mode 0755, owned by root.
func NewWriter(f io.WriterAt, o Options) *Writer {
	if o.BlockBits < 9 || o.BlockBits > 12 {
		o.BlockBits = defaultBits
	}
	if o.Kept == 0 {
		o.Kept = 160 << 20
	}
	if o.UUID == ([16]byte{}) {
		_, _ = rand.Read(o.UUID[:])
		o.UUID[6], o.UUID[8] = o.UUID[6]&0x0f|0x40, o.UUID[8]&0x3f|0x80
	}
	return &Writer{tree: newTree(inode{mode: typeDir | 0o755, links: 1}), out: newOut(f), bits: o.BlockBits, uuid: o.UUID, maker: cmp.Or(o.Maker, Maker), most: o.Kept}
}

// Root is the root directory.
func (w *Writer) Root() Ino { return 0 }

// Lookup finds a name in a directory.
func (w *Writer) Lookup(dir Ino, name string) (Ino, bool) {
	if n := w.tree.find(dir, []byte(name)); n != 0 {
		return w.tree.names.at(n).ino, true
	}
	return 0, false
}

// Names is how many there are, those that were taken away included.
func (w *Writer) Names() int { return w.tree.names.n - 1 }

// Attr is what a file has.
func (w *Writer) Attr(ino Ino) (Attr, error) {
	i := w.tree.inodes.at(int(ino))
	a := Attr{Mode: uint32(i.mode), UID: i.uid, GID: i.gid, Sec: i.sec, Nsec: i.nsec}
	if t := a.Mode & typeMask; t == typeChar || t == typeBlock {
		a.Rdev = i.at
	}
	var err error
	a.Xattrs, err = decodeXattrs(w.tree.text.get(i.xattrs))
	return a, err
}

// SetAttr changes what a file has, all but its type and device.
func (w *Writer) SetAttr(ino Ino, a *Attr) error {
	i := w.tree.inodes.at(int(ino))
	if uint32(i.mode)&typeMask != a.Mode&typeMask {
		return w.fail(fmt.Errorf("a file's type does not change: %w", ErrInvalid))
	}
	xattrs, err := encodeXattrs(a.Xattrs)
	if err != nil {
		return err
	}
	i.mode, i.uid, i.gid, i.sec, i.nsec = uint16(a.Mode), a.UID, a.GID, a.Sec, a.Nsec
	i.xattrs = w.tree.keepXattrs(xattrs)
	return w.full()
}

// Target is a symbolic link's.
func (w *Writer) Target(ino Ino) string {
	return string(w.tree.text.get(w.tree.inodes.at(int(ino)).text))
}

// Remove takes a name away, with all that is below it.
func (w *Writer) Remove(dir Ino, name string) {
	if n := w.tree.find(dir, []byte(name)); n != 0 {
		w.tree.unlink(n)
	}
}

// Add puts a directory, device, pipe or socket in a directory.
func (w *Writer) Add(dir Ino, name string, a *Attr) (Ino, error) {
	switch a.Mode & typeMask {
	case typeDir, typeChar, typeBlock, typeFifo, typeSocket:
	default:
		return 0, w.fail(fmt.Errorf("%s: a file of mode %#o is not added so: %w", name, a.Mode, ErrInvalid))
	}
	i := inode{at: a.Rdev, parent: dir}
	return w.add(dir, name, a, i)
}

// AddLink puts a symbolic link in a directory.
func (w *Writer) AddLink(dir Ino, name, target string, a *Attr) (Ino, error) {
	if target == "" || len(target) > maxTarget {
		return 0, fmt.Errorf("%s: a link's target of %d bytes: %w", name, len(target), ErrInvalid)
	}
	if a.Mode&typeMask != typeLink {
		return 0, w.fail(fmt.Errorf("%s: mode %#o is not a link's: %w", name, a.Mode, ErrInvalid))
	}
	return w.add(dir, name, a, inode{size: uint64(len(target)), text: w.tree.text.add([]byte(target)), at: noBlock})
}

// AddFile puts a regular file in a directory. Its size bytes have to come next, through Write or ReadFrom.
func (w *Writer) AddFile(dir Ino, name string, size uint64, a *Attr) (Ino, error) {
	if a.Mode&typeMask != typeRegular || size > 1<<62 {
		return 0, w.fail(fmt.Errorf("%s: a file of mode %#o and %d bytes: %w", name, a.Mode, size, ErrInvalid))
	}
	if w.err != nil {
		return 0, w.err
	}
	i := inode{size: size, at: noBlock}
	if size > 0 {
		align := uint64(1) << w.bits
		if size >= page {
			align = page
		}
		at := up(w.out.at, align)
		if (at+size)>>w.bits >= noBlock {
			return 0, w.fail(fmt.Errorf("%s: the image becomes larger than its format allows: %w", name, ErrInvalid))
		}
		i.at = uint32(at >> w.bits)
	}
	ino, err := w.add(dir, name, a, i)
	if err == nil && size > 0 {
		err = w.fail(w.out.zeros(uint64(i.at)<<w.bits - w.out.at))
		w.current, w.left = ino, size
	}
	return ino, err
}

// Link gives a file that is not a directory one more name.
func (w *Writer) Link(dir Ino, name string, to Ino) error {
	if err := w.ready(dir, name); err != nil {
		return err
	}
	if uint32(w.tree.inodes.at(int(to)).mode)&typeMask == typeDir {
		return fmt.Errorf("%s: a directory has one name: %w", name, ErrInvalid)
	}
	w.tree.link(dir, []byte(name), to)
	return w.full()
}

func (w *Writer) add(dir Ino, name string, a *Attr, i inode) (Ino, error) {
	if err := w.ready(dir, name); err != nil {
		return 0, err
	}
	xattrs, err := encodeXattrs(a.Xattrs)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", name, err)
	}
	i.mode, i.uid, i.gid, i.sec, i.nsec = uint16(a.Mode), a.UID, a.GID, a.Sec, a.Nsec
	i.xattrs = w.tree.keepXattrs(xattrs)
	ino := Ino(w.tree.inodes.add(i))
	w.tree.link(dir, []byte(name), ino)
	return ino, w.full()
}

// ready says that a name may be put in a directory. One that is there already is an error: Remove takes it away.
func (w *Writer) ready(dir Ino, name string) error {
	if w.err != nil {
		return w.err
	}
	if w.left > 0 {
		return w.fail(fmt.Errorf("%s comes before %d bytes of the file before it: %w", name, w.left, errOrder))
	}
	if err := checkName(name); err != nil {
		return err
	}
	if uint32(w.tree.inodes.at(int(dir)).mode)&typeMask != typeDir {
		return fmt.Errorf("%s: what it is to stand in is no directory: %w", name, ErrInvalid)
	}
	if w.tree.find(dir, []byte(name)) != 0 {
		return fmt.Errorf("%s is there already: %w", name, ErrInvalid)
	}
	return nil
}

func (w *Writer) full() error {
	if w.tree.text.full() || w.tree.names.n >= gone>>2 || w.tree.bytes() > w.most {
		return w.fail(fmt.Errorf("%d files: %w", w.tree.names.n, ErrTooMany))
	}
	return nil
}

func (w *Writer) fail(err error) error {
	if w.err == nil {
		w.err = err
	}
	return err
}

// Write takes the next data of the file that was added last.
func (w *Writer) Write(p []byte) (int, error) {
	if w.err != nil {
		return 0, w.err
	}
	if uint64(len(p)) > w.left {
		return 0, w.fail(errOrder)
	}
	w.left -= uint64(len(p))
	if err := w.out.write(p); err != nil {
		return 0, w.fail(err)
	}
	return len(p), nil
}

// ReadFrom takes all data of the file that was added last from r.
func (w *Writer) ReadFrom(r io.Reader) (n int64, err error) {
	for w.left > 0 && w.err == nil {
		room, err := w.out.room()
		if err != nil {
			return n, w.fail(err)
		}
		got, err := r.Read(room[:min(uint64(len(room)), w.left)])
		w.out.took(got)
		w.left -= uint64(got)
		n += int64(got)
		if err == io.EOF && w.left > 0 {
			return n, w.fail(io.ErrUnexpectedEOF)
		}
		if err != nil && err != io.EOF {
			return n, w.fail(err)
		}
	}
	return n, w.err
}

// DataEnd is where data ends in the image so far.
func (w *Writer) DataEnd() uint64 { return w.out.at }

// Mode is a file's type and permissions.
func (w *Writer) Mode(ino Ino) uint32 { return uint32(w.tree.inodes.at(int(ino)).mode) }

// Parent is the directory that a directory was put in; the root's is itself.
func (w *Writer) Parent(dir Ino) Ino { return w.tree.inodes.at(int(dir)).parent }

// RemoveIf takes away all names for which fn says so.
func (w *Writer) RemoveIf(fn func(dir, ino Ino) bool) {
	for i := 1; i < w.tree.names.n; i++ {
		if n := w.tree.names.at(i); n.text != gone && fn(n.parent, n.ino) {
			w.tree.unlink(i)
		}
	}
}

// NameOf is a directory's name in its parent.
func (w *Writer) NameOf(dir Ino) string {
	return string(w.tree.text.get(w.tree.inodes.at(int(dir)).text))
}
