package erofs

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"
)

// Finish writes names and inodes, and last the superblock, without which a file is no image. It does not sync. It returns the image's size.
func (w *Writer) Finish() (size int64, err error) {
	if w.err == nil && w.left > 0 {
		w.err = fmt.Errorf("%d bytes of the last file have not come: %w", w.left, errOrder)
	}
	if w.err != nil {
		return 0, w.err
	}
	defer func() { _ = w.fail(err) }()
	l := &layout{tree: w.tree, out: w.out, bits: w.bits, block: 1 << w.bits}
	steps := []func() error{l.order, l.place, l.directories, l.inodes}
	for _, step := range steps {
		if err := step(); err != nil {
			return 0, err
		}
	}
	super := l.super(w.uuid, w.maker)
	if _, err := w.out.f.WriteAt(super, 0); err != nil {
		return 0, err
	}
	return int64(w.out.at), nil
}

// layout decides where everything lies. Steps come in the order of Finish.
type layout struct {
	*tree
	out   *out
	bits  uint8
	block uint64

	first    []uint32 // by inode, of directories: where their names begin in children
	children []uint32 // names, directory by directory, sorted
	queue    []Ino    // inodes in the order of their numbers: each directory's together, so that listing one reads neighbours
	meta     uint64   // where inodes begin in the image
	metaSize uint64
}

// order sorts each directory's names, and finds all inodes that something leads to.
func (l *layout) order() error {
	count := make([]uint32, l.tree.inodes.n+1)
	for i := 1; i < l.names.n; i++ {
		if n := l.names.at(i); n.text != gone {
			count[n.parent+1]++
		}
	}
	for i := 1; i < len(count); i++ {
		count[i] += count[i-1]
	}
	l.first = slices.Clone(count)
	l.children = make([]uint32, count[len(count)-1])
	for i := 1; i < l.names.n; i++ {
		if n := l.names.at(i); n.text != gone {
			l.children[count[n.parent]] = uint32(i)
			count[n.parent]++
		}
	}
	for i := range l.tree.inodes.n {
		l.tree.inodes.at(i).links = 0
	}
	l.tree.inodes.at(0).links = 1
	l.queue = append(make([]Ino, 0, l.tree.inodes.n), 0)
	for next := 0; next < len(l.queue); next++ {
		dir := l.queue[next]
		list := l.children[l.first[dir]:l.first[dir+1]]
		slices.SortFunc(list, func(a, b uint32) int { return bytes.Compare(l.nameOf(a), l.nameOf(b)) })
		for _, number := range list {
			ino := l.names.at(int(number)).ino
			i := l.tree.inodes.at(int(ino))
			if i.links++; i.links == 1 {
				l.queue = append(l.queue, ino)
			}
			if l.isDir(ino) {
				l.tree.inodes.at(int(dir)).links++ // by its ".."
			}
		}
	}
	for _, ino := range l.queue {
		if l.isDir(ino) {
			l.tree.inodes.at(int(ino)).links++ // by its "."
		}
	}
	return nil
}

func (l *layout) nameOf(number uint32) []byte { return l.text.get(l.names.at(int(number)).text) }

func (l *layout) isDir(ino Ino) bool {
	return uint32(l.tree.inodes.at(int(ino)).mode)&typeMask == typeDir
}

// place gives every inode its number, every directory its blocks, and long links theirs.
func (l *layout) place() error {
	blocks, at := up(l.out.at, l.block), uint64(firstInode)
	for _, ino := range l.queue {
		i := l.tree.inodes.at(int(ino))
		switch uint32(i.mode) & typeMask {
		case typeDir:
			i.size = l.dirSize(ino)
		case typeLink:
		default:
			at = l.start(at, l.head(i), 0)
			i.slot = uint32(at / slot)
			at += l.head(i)
			continue
		}
		tail := l.tail(i)
		i.at = noBlock
		if whole := i.size - tail; whole > 0 {
			i.at = uint32(blocks >> l.bits)
			blocks += up(whole, l.block)
		}
		at = l.start(at, l.head(i), tail)
		i.slot = uint32(at / slot)
		at = up(at+l.head(i)+tail, slot)
		if blocks>>l.bits >= noBlock || at/slot >= noBlock {
			return fmt.Errorf("the image becomes larger than its format allows: %w", ErrInvalid)
		}
	}
	l.meta = blocks
	l.metaSize = up(at, page)
	return nil
}

// head is the length of an inode with its extended attributes.
func (l *layout) head(i *inode) uint64 { return inodeSize + uint64(len(l.text.get(i.xattrs))) }

// tail is how much of a directory or link stands behind the inode, within one block.
func (l *layout) tail(i *inode) uint64 {
	tail := i.size % l.block
	if uint32(i.mode)&typeMask == typeLink {
		tail = i.size
	}
	if l.head(i)+tail > l.block {
		return 0
	}
	return tail
}

// start is where the next inode may begin: it fits into a block with all that must not be torn.
func (l *layout) start(at, head, tail uint64) uint64 {
	at = up(at, slot)
	whole := uint64(inodeSize)
	if tail > 0 {
		whole = head + tail
	}
	if at/l.block != (at+whole-1)/l.block {
		at = up(at, l.block)
	}
	return at
}

// entries calls fn for each name of a directory with "." and "..", in order. A nil fn ends nothing.
func (l *layout) entries(dir Ino, fn func(name []byte, ino Ino)) {
	dots := []struct {
		name []byte
		ino  Ino
	}{{[]byte("."), dir}, {[]byte(".."), l.tree.inodes.at(int(dir)).parent}}
	for _, number := range l.children[l.first[dir]:l.first[dir+1]] {
		s := l.nameOf(number)
		for len(dots) > 0 && bytes.Compare(dots[0].name, s) < 0 {
			fn(dots[0].name, dots[0].ino)
			dots = dots[1:]
		}
		fn(s, l.names.at(int(number)).ino)
	}
	for _, d := range dots {
		fn(d.name, d.ino)
	}
}

// dirSize is the length of a directory: its blocks are filled one after the other, none is shared by two.
func (l *layout) dirSize(dir Ino) uint64 {
	var size, used uint64
	l.entries(dir, func(name []byte, _ Ino) {
		need := direntSize + uint64(len(name))
		if used+need > l.block {
			size, used = size+l.block, 0
		}
		used += need
	})
	return size + used
}

// dirent is one that waits for its block to be full.
type dirent struct {
	name []byte
	slot uint32
	kind byte
}

// content appends a directory's content to b, block by block.
func (l *layout) content(dir Ino, b []byte) []byte {
	var waiting []dirent
	var used uint64
	l.entries(dir, func(name []byte, ino Ino) {
		need := direntSize + uint64(len(name))
		if used+need > l.block {
			b = block(b, waiting)
			b = append(b, make([]byte, l.block-used)...)
			waiting, used = waiting[:0], 0
		}
		i := l.tree.inodes.at(int(ino))
		k, _ := kind(uint32(i.mode))
		waiting, used = append(waiting, dirent{name, i.slot, k}), used+need
	})
	return block(b, waiting)
}

func block(b []byte, list []dirent) []byte {
	at := len(list) * direntSize
	for _, d := range list {
		b = binary.LittleEndian.AppendUint64(b, uint64(d.slot))
		b = binary.LittleEndian.AppendUint16(b, uint16(at))
		b = append(b, d.kind, 0)
		at += len(d.name)
	}
	for _, d := range list {
		b = append(b, d.name...)
	}
	return b
}

// directories writes the blocks of directories and of long links.
func (l *layout) directories() error {
	if err := l.out.zeros(up(l.out.at, l.block) - l.out.at); err != nil {
		return err
	}
	var b []byte
	for _, ino := range l.queue {
		i := l.tree.inodes.at(int(ino))
		kind := uint32(i.mode) & typeMask
		if kind != typeDir && kind != typeLink || i.at == noBlock {
			continue
		}
		b = l.contentOf(ino, i, b[:0])
		b = b[:i.size-l.tail(i)]
		if err := l.out.write(b); err != nil {
			return err
		}
		if err := l.out.zeros(up(l.out.at, l.block) - l.out.at); err != nil {
			return err
		}
	}
	return nil
}

func (l *layout) contentOf(ino Ino, i *inode, b []byte) []byte {
	if uint32(i.mode)&typeMask == typeLink {
		return append(b, l.text.get(i.text)...)
	}
	return l.content(ino, b)
}

// inodes writes the inodes.
func (l *layout) inodes() error {
	if l.out.at != l.meta {
		return fmt.Errorf("directories end at %d, not at %d", l.out.at, l.meta)
	}
	var b []byte
	var at uint64
	for _, ino := range l.queue {
		i := l.tree.inodes.at(int(ino))
		if err := l.out.zeros(uint64(i.slot)*slot - at); err != nil {
			return err
		}
		b = l.encode(ino, i, b[:0])
		if err := l.out.write(b); err != nil {
			return err
		}
		at = uint64(i.slot)*slot + uint64(len(b))
	}
	if err := l.out.zeros(l.metaSize - at); err != nil {
		return err
	}
	if err := l.out.zeros(up(l.out.at, page) - l.out.at); err != nil {
		return err
	}
	return l.out.flush()
}

// encode writes an inode with its attributes and its tail.
func (l *layout) encode(ino Ino, i *inode, b []byte) []byte {
	tail, xattrs := uint64(0), l.text.get(i.xattrs)
	if t := uint32(i.mode) & typeMask; t == typeDir || t == typeLink {
		tail = l.tail(i)
	}
	format, icount := uint16(1), uint16(0)
	if tail > 0 {
		format |= layoutInline << 1
	}
	if len(xattrs) > 0 {
		icount = uint16((len(xattrs)-xattrHead)/xattrEntry + 1)
	}
	le := binary.LittleEndian
	b = le.AppendUint16(b, format)
	b = le.AppendUint16(b, icount)
	b = le.AppendUint16(b, i.mode)
	b = le.AppendUint16(b, 0)
	b = le.AppendUint64(b, i.size)
	b = le.AppendUint32(b, i.at)
	b = le.AppendUint32(b, i.slot) // its number for programs of 32 bits
	b = le.AppendUint32(b, i.uid)
	b = le.AppendUint32(b, i.gid)
	b = le.AppendUint64(b, uint64(i.sec))
	b = le.AppendUint32(b, i.nsec)
	b = le.AppendUint32(b, i.links)
	b = append(b, make([]byte, 16)...)
	b = append(b, xattrs...)
	if tail > 0 {
		start := len(b)
		b = l.contentOf(ino, i, b)
		b = append(b[:start], b[len(b)-int(tail):]...)
	}
	return b
}

// super is the first page.
func (l *layout) super(uuid [16]byte, maker string) []byte {
	first := make([]byte, page)
	b := first[superAt:]
	le := binary.LittleEndian
	le.PutUint32(b[0:], magic)
	le.PutUint32(b[8:], compatChecksum|compatMtime)
	b[12] = l.bits
	le.PutUint16(b[14:], uint16(l.tree.inodes.at(0).slot)) // the first inode, but a long one may begin at the next block
	le.PutUint64(b[16:], uint64(len(l.queue)))
	le.PutUint32(b[36:], uint32(l.out.at>>l.bits))
	le.PutUint32(b[40:], uint32(l.meta>>l.bits))
	copy(b[48:64], uuid[:])
	copy(b[makerAt:makerAt+makerSize-1], maker)
	le.PutUint32(b[4:], checksum(first, l.bits))
	return first
}

// checksum of a first page, whose field for it is empty: crc32c from the superblock to its block's end, not inverted at the end.
func checksum(first []byte, bits uint8) uint32 {
	end := uint64(1) << bits
	if end <= superAt {
		end += superAt
	}
	return ^crc32.Checksum(first[superAt:end], crc32.MakeTable(crc32.Castagnoli))
}
