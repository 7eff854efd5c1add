package erofs

import (
	"encoding/binary"
	"hash/maphash"
)

// Ino names an inode of an image under way. The root's is 0.
type Ino uint32

// inode is what is kept of a file until the end. It holds no pointers, and lists of it grow by pages: millions of them cost neither the
// collector's time nor a copy.
type inode struct {
	sec            int64
	size           uint64 // of a link: of its target
	uid, gid, nsec uint32
	at             uint32 // first block, or a device's number
	text           uint32 // where a link's target lies in the arena, or a directory's name
	xattrs         uint32 // where its attributes lie in the arena, 0 for none
	parent         Ino    // of a directory
	links          uint32
	slot           uint32 // its number in the image
	mode           uint16
}

// name is one entry of a directory.
type name struct {
	parent, ino Ino
	text        uint32 // where it lies in the arena; gone when it was taken away
}

const gone = 0xFFFFFFFF

const perPage = 1 << 12

// pages is a list that grows without being copied.
type pages[T any] struct {
	list [][]T
	n    int
}

func (p *pages[T]) at(i int) *T { return &p.list[i/perPage][i%perPage] }

func (p *pages[T]) add(v T) int {
	if p.n%perPage == 0 {
		p.list = append(p.list, make([]T, 0, perPage))
	}
	last := &p.list[len(p.list)-1]
	*last = append(*last, v)
	p.n++
	return p.n - 1
}

// arena keeps strings, each behind its length; 0 is none.
type arena struct {
	list [][]byte
}

const arenaPage = 1 << 17 // longer than the longest string

func (a *arena) add(s []byte) uint32 {
	if len(s) == 0 {
		return 0
	}
	need := len(s) + binary.MaxVarintLen32
	if n := len(a.list); n == 0 || arenaPage-len(a.list[n-1]) < need {
		first := make([]byte, 0, arenaPage)
		if n == 0 {
			first = append(first, 0)
		}
		a.list = append(a.list, first)
	}
	i := len(a.list) - 1
	at := uint32(i*arenaPage + len(a.list[i]))
	a.list[i] = append(binary.AppendUvarint(a.list[i], uint64(len(s))), s...)
	return at
}

func (a *arena) get(at uint32) []byte {
	if at == 0 {
		return nil
	}
	b := a.list[at/arenaPage][at%arenaPage:]
	n, skip := binary.Uvarint(b)
	return b[skip : skip+int(n)]
}

// full says that its positions have come near their end.
func (a *arena) full() bool { return len(a.list) >= gone/arenaPage-1 }

// tree is the names and inodes of an image.
type tree struct {
	inodes pages[inode]
	names  pages[name]
	text   arena
	known  map[string]uint32 // extended attributes that many files have, by content
	table  []uint32          // of names by parent and name, 0 is free; open addressing
	seed   maphash.Seed
}

// bytes is how much the tree takes, with what Finish needs for its order.
func (t *tree) bytes() int64 {
	const perInode, perName = 56 + 8, 12 + 8
	return int64(t.inodes.n)*perInode + int64(t.names.n)*perName + int64(len(t.table))*4 + int64(len(t.text.list))*arenaPage
}

const fewXattrs = 256 // are looked for, when the same come again

func newTree(root inode) *tree {
	t := &tree{seed: maphash.MakeSeed(), table: make([]uint32, 1<<10), known: map[string]uint32{}}
	t.inodes.add(root)
	t.names.add(name{}) // 0 is free
	return t
}

func (t *tree) hash(parent Ino, s []byte) uint64 {
	return (maphash.Bytes(t.seed, s) + uint64(parent)) * 0x9E3779B97F4A7C15 >> 16
}

// find is the number of a name, 0 when there is none.
func (t *tree) find(parent Ino, s []byte) int {
	mask := uint64(len(t.table) - 1)
	for i := t.hash(parent, s) & mask; t.table[i] != 0; i = (i + 1) & mask {
		n := t.names.at(int(t.table[i]))
		if n.parent == parent && n.text != gone && string(t.text.get(n.text)) == string(s) {
			return int(t.table[i])
		}
	}
	return 0
}

// link puts a name that is not there into a directory.
func (t *tree) link(parent Ino, s []byte, ino Ino) {
	if t.names.n*4 >= len(t.table)*3 {
		t.grow()
	}
	i, text := t.inodes.at(int(ino)), t.text.add(s)
	if i.links++; uint32(i.mode)&typeMask == typeDir {
		i.text = text
	}
	t.place(t.names.add(name{parent: parent, ino: ino, text: text}), s)
}

func (t *tree) place(number int, s []byte) {
	mask := uint64(len(t.table) - 1)
	i := t.hash(t.names.at(number).parent, s) & mask
	for t.table[i] != 0 {
		i = (i + 1) & mask
	}
	t.table[i] = uint32(number)
}

func (t *tree) grow() {
	t.table = make([]uint32, 2*len(t.table))
	for i := 1; i < t.names.n; i++ {
		if n := t.names.at(i); n.text != gone {
			t.place(i, t.text.get(n.text))
		}
	}
}

// unlink takes a name away. What was below it is not written, since nothing leads there any more.
func (t *tree) unlink(number int) {
	n := t.names.at(number)
	n.text = gone
	t.inodes.at(int(n.ino)).links--
}

// keepXattrs puts encoded attributes into the arena, once where many files have the same.
func (t *tree) keepXattrs(b []byte) uint32 {
	if len(b) == 0 {
		return 0
	}
	if at, ok := t.known[string(b)]; ok {
		return at
	}
	at := t.text.add(b)
	if len(t.known) < fewXattrs {
		t.known[string(b)] = at
	}
	return at
}
