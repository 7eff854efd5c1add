package erofs

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Reader reads an image. Its methods are safe for several goroutines.
type Reader struct {
	r    io.ReaderAt
	size uint64
	bits uint8
	meta uint64
	root uint64

	// Maker is the name of the Writer that the image is of, "" before they had names.
	Maker string
}

// Node is an inode of an image.
type Node struct {
	Attr
	Number uint64
	Size   uint64
	Links  uint32
	head   uint64 // where its data begins in the image, when it stands behind the inode
	at     uint64 // where its blocks begin
	inline bool
}

// NewReader looks at an image's superblock.
func NewReader(r io.ReaderAt, size int64) (*Reader, error) {
	first := make([]byte, page)
	if _, err := r.ReadAt(first, 0); err != nil {
		return nil, damaged(err, "its first page")
	}
	b, le := first[superAt:], binary.LittleEndian
	bits := b[12]
	if le.Uint32(b) != magic || bits < 9 || bits > 12 || le.Uint32(b[80:]) != 0 {
		return nil, fmt.Errorf("this is no image of this package's: %w", ErrDamaged)
	}
	sum := le.Uint32(b[4:])
	clear(b[4:8])
	if sum != checksum(first, bits) {
		return nil, fmt.Errorf("the superblock's checksum is wrong: %w", ErrDamaged)
	}
	s := &Reader{r: r, size: uint64(size), bits: bits, meta: uint64(le.Uint32(b[40:])) << bits, root: uint64(le.Uint16(b[14:])),
		Maker: string(bytes.TrimRight(b[makerAt:makerAt+makerSize], "\x00"))}
	if uint64(le.Uint32(b[36:]))<<bits > s.size {
		return nil, fmt.Errorf("it has %d bytes of %d: %w", size, uint64(le.Uint32(b[36:]))<<bits, ErrDamaged)
	}
	return s, nil
}

// damaged says what could not be read. An end that comes too early is damage, other errors are the file's own.
func damaged(err error, what string) error {
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("%s is cut off: %w", what, ErrDamaged)
	}
	return fmt.Errorf("read %s: %w", what, err)
}

// Root is the root directory.
func (s *Reader) Root() (*Node, error) {
	n, err := s.Node(s.root)
	if err == nil && !n.IsDir() {
		err = fmt.Errorf("the root is no directory: %w", ErrDamaged)
	}
	return n, err
}

// Node reads an inode.
func (s *Reader) Node(number uint64) (*Node, error) {
	at := s.meta + number*slot
	what := fmt.Sprintf("inode %d", number)
	if number > s.size/slot || at+inodeSize > s.size {
		return nil, fmt.Errorf("%s lies behind the end: %w", what, ErrDamaged)
	}
	var b [inodeSize]byte
	if _, err := s.r.ReadAt(b[:], int64(at)); err != nil {
		return nil, damaged(err, what)
	}
	le := binary.LittleEndian
	format, start := le.Uint16(b[0:]), le.Uint32(b[16:])
	n := &Node{Number: number, Size: le.Uint64(b[8:]), Links: le.Uint32(b[44:]), at: uint64(start) << s.bits, inline: format>>1 == layoutInline,
		Attr: Attr{Mode: uint32(le.Uint16(b[4:])), UID: le.Uint32(b[24:]), GID: le.Uint32(b[28:]), Sec: int64(le.Uint64(b[32:])), Nsec: le.Uint32(b[40:])}}
	if _, known := kind(n.Mode); format&1 == 0 || format>>1 != layoutPlain && !n.inline || !known || n.Nsec >= 1e9 {
		return nil, fmt.Errorf("%s is of an unknown form: %w", what, ErrDamaged)
	}
	n.head = at + inodeSize
	if icount := le.Uint16(b[2:]); icount > 0 {
		raw := make([]byte, xattrHead+(uint64(icount)-1)*xattrEntry)
		if _, err := s.r.ReadAt(raw, int64(n.head)); err != nil {
			return nil, damaged(err, what)
		}
		var err error
		if n.Xattrs, err = decodeXattrs(raw); err != nil {
			return nil, fmt.Errorf("%s: %w", what, err)
		}
		n.head += uint64(len(raw))
	}
	switch n.Mode & typeMask {
	case typeRegular, typeDir, typeLink:
		return n, s.checkData(n)
	case typeChar, typeBlock:
		n.Rdev = start
	}
	n.Size = 0
	return n, nil
}

func (s *Reader) checkData(n *Node) error {
	whole := n.Size - s.tail(n)
	if n.Size > s.size || whole > 0 && n.at+whole > s.size || n.head+s.tail(n) > s.size {
		return fmt.Errorf("data of inode %d lies behind the end: %w", n.Number, ErrDamaged)
	}
	return nil
}

func (s *Reader) tail(n *Node) uint64 {
	if !n.inline {
		return 0
	}
	return n.Size % (1 << s.bits)
}

// ReadAt reads a file's, directory's or link's content.
func (s *Reader) ReadAt(n *Node, p []byte, off int64) (int, error) {
	if off < 0 || uint64(off) >= n.Size {
		return 0, io.EOF
	}
	whole := int64(n.Size - s.tail(n))
	end := int64(n.Size)
	at := int64(n.head) - whole
	if off < whole {
		end, at = whole, int64(n.at)
	}
	want := p[:min(int64(len(p)), end-off)]
	got, err := s.r.ReadAt(want, at+off)
	if err != nil {
		return got, damaged(err, fmt.Sprintf("data of inode %d", n.Number))
	}
	if got < len(p) && int64(got)+off < int64(n.Size) {
		more, err := s.ReadAt(n, p[got:], off+int64(got))
		return got + more, err
	}
	if got < len(p) {
		return got, io.EOF
	}
	return got, nil
}

type content struct {
	s *Reader
	n *Node
}

func (c content) ReadAt(p []byte, off int64) (int, error) { return c.s.ReadAt(c.n, p, off) }

// Open reads a regular file.
func (s *Reader) Open(n *Node) *io.SectionReader {
	return io.NewSectionReader(content{s, n}, 0, int64(n.Size))
}

// Target is a symbolic link's.
func (s *Reader) Target(n *Node) (string, error) {
	if n.Mode&typeMask != typeLink || n.Size == 0 || n.Size > maxTarget {
		return "", fmt.Errorf("inode %d is no link: %w", n.Number, ErrDamaged)
	}
	b := make([]byte, n.Size)
	if _, err := s.ReadAt(n, b, 0); err != nil {
		return "", err
	}
	return string(b), nil
}

// List calls fn for each name in a directory but "." and "..".
func (s *Reader) List(dir *Node, fn func(name string, number uint64) error) error {
	if !dir.IsDir() {
		return fmt.Errorf("inode %d is no directory: %w", dir.Number, ErrDamaged)
	}
	block := make([]byte, 1<<s.bits)
	for at := uint64(0); at < dir.Size; at += uint64(len(block)) {
		b := block[:min(uint64(len(block)), dir.Size-at)]
		if _, err := s.ReadAt(dir, b, int64(at)); err != nil {
			return err
		}
		if err := listBlock(b, fn); err != nil {
			return fmt.Errorf("directory of inode %d: %w", dir.Number, err)
		}
	}
	return nil
}

func listBlock(b []byte, fn func(name string, number uint64) error) error {
	le := binary.LittleEndian
	if len(b) < direntSize {
		return fmt.Errorf("a block of %d bytes: %w", len(b), ErrDamaged)
	}
	names := int(le.Uint16(b[8:]))
	if names < direntSize || names%direntSize != 0 || names > len(b) {
		return fmt.Errorf("names begin at %d: %w", names, ErrDamaged)
	}
	for i := 0; i < names; i += direntSize {
		start, end := int(le.Uint16(b[i+8:])), len(b)
		if i+direntSize < names {
			end = int(le.Uint16(b[i+direntSize+8:]))
		}
		if start < names || start >= end || end > len(b) {
			return fmt.Errorf("a name from %d to %d: %w", start, end, ErrDamaged)
		}
		name := b[start:end]
		if zero := bytes.IndexByte(name, 0); zero >= 0 {
			name = name[:zero]
		}
		if string(name) == "." || string(name) == ".." {
			continue
		}
		if err := checkName(string(name)); err != nil {
			return fmt.Errorf("%w: %w", err, ErrDamaged)
		}
		if err := fn(string(name), le.Uint64(b[i:])); err != nil {
			return err
		}
	}
	return nil
}

// Walk calls fn for every name below the root, directories before what is in them. The root's is "".
func (s *Reader) Walk(ctx context.Context, fn func(path string, n *Node) error) error {
	root, err := s.Root()
	if err != nil {
		return err
	}
	if err := fn("", root); err != nil {
		return err
	}
	return s.walk(ctx, "", root, map[uint64]bool{root.Number: true}, fn)
}

func (s *Reader) walk(ctx context.Context, at string, dir *Node, seen map[uint64]bool, fn func(path string, n *Node) error) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	return s.List(dir, func(name string, number uint64) error {
		n, err := s.Node(number)
		if err != nil {
			return fmt.Errorf("%s/%s: %w", at, name, err)
		}
		path := name
		if at != "" {
			path = at + "/" + name
		}
		if len(path) > maxPath {
			return fmt.Errorf("a path of %d bytes: %w", len(path), ErrDamaged)
		}
		if n.IsDir() && seen[number] {
			return fmt.Errorf("%s is a directory with two names: %w", path, ErrDamaged)
		}
		if err := fn(path, n); err != nil || !n.IsDir() {
			return err
		}
		seen[number] = true
		return s.walk(ctx, path, n, seen, fn)
	})
}
