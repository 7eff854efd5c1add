package signals

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
)

// layout is where the kernel that runs has the fields that the program reads, in bytes.
type layout struct {
	tgid, comm, flags, parent, cgroups int32 // of task_struct
	group                              int32 // css_set.dfl_cgrp
	node                               int32 // cgroup.kn
	id                                 int32 // kernfs_node.id
}

// field is one that is looked for.
type field struct {
	structure, name string
	into            *int32
}

// fields are all that are needed.
func (l *layout) fields() []field {
	return []field{
		{"task_struct", "tgid", &l.tgid}, {"task_struct", "comm", &l.comm}, {"task_struct", "flags", &l.flags},
		{"task_struct", "real_parent", &l.parent}, {"task_struct", "cgroups", &l.cgroups},
		{"css_set", "dfl_cgrp", &l.group}, {"cgroup", "kn", &l.node}, {"kernfs_node", "id", &l.id},
	}
}

// btfHeader begins type information (Documentation/bpf/btf.rst); offsets count from its end.
type btfHeader struct {
	Magic          uint16
	Version, Flags uint8
	Length         uint32
	TypeOffset     uint32
	TypeLength     uint32
	NamesOffset    uint32
	NamesLength    uint32
}

const btfMagic = 0xeb9f

var errTypes = errors.New("type information that makes no sense")

// findLayout reads the kernel's types, which are megabytes, once from their beginning to their end and keeps nothing of them.
func findLayout(path string) (l layout, err error) {
	f, err := os.Open(path)
	if err != nil {
		return l, err
	}
	defer f.Close()
	return readLayout(f)
}

func readLayout(f io.ReaderAt) (l layout, err error) {
	var h btfHeader
	if err := binary.Read(io.NewSectionReader(f, 0, 24), binary.NativeEndian, &h); err != nil {
		return l, err
	}
	if h.Magic != btfMagic || h.Length < 24 || h.Length > 1<<16 {
		return l, errTypes
	}
	wanted := l.fields()
	begin := int64(h.Length)
	names, err := findNames(io.NewSectionReader(f, begin+int64(h.NamesOffset), int64(h.NamesLength)), wanted)
	if err != nil {
		return l, err
	}
	left := map[field]bool{}
	for _, w := range wanted {
		left[w] = true
	}
	types := bufio.NewReaderSize(io.NewSectionReader(f, begin+int64(h.TypeOffset), int64(h.TypeLength)), 64<<10)
	for len(left) > 0 {
		err := readType(types, func(structure uint32, member [12]byte, bitfield bool) {
			for w := range left {
				if names[w.structure] == structure && names[w.name] == binary.NativeEndian.Uint32(member[:]) {
					bits := binary.NativeEndian.Uint32(member[8:])
					if bitfield {
						bits &= 0xffffff
					}
					*w.into = int32(bits / 8)
					delete(left, w)
				}
			}
		}, names)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return l, err
		}
	}
	for w := range left {
		return l, fmt.Errorf("the kernel has no %s.%s", w.structure, w.name)
	}
	return l, nil
}

// findNames gives the numbers of names: their places among all, each of which ends with a zero.
func findNames(r io.Reader, wanted []field) (map[string]uint32, error) {
	names := map[string]uint32{}
	for _, w := range wanted {
		names[w.structure], names[w.name] = 0, 0
	}
	b := bufio.NewReaderSize(r, 64<<10)
	for at := uint32(0); ; {
		text, err := b.ReadSlice(0)
		if errors.Is(err, bufio.ErrBufferFull) {
			return nil, errTypes
		}
		if err != nil {
			return names, nil
		}
		if _, ok := names[string(text[:len(text)-1])]; ok {
			names[string(text[:len(text)-1])] = at
		}
		at += uint32(len(text))
	}
}

// readType reads one type and hands out the members of a structure that has one of the names.
func readType(r *bufio.Reader, member func(structure uint32, member [12]byte, bitfield bool), names map[string]uint32) error {
	var head [12]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return io.EOF
	}
	name, about := binary.NativeEndian.Uint32(head[:]), binary.NativeEndian.Uint32(head[4:])
	kind, count := about>>24&0x1f, int(about&0xffff)
	skip := 0
	switch kind {
	case 1, 14, 17: // an integer, a variable, a tag of a declaration
		skip = 4
	case 3: // an array
		skip = 12
	case 4: // a structure
		if name == 0 || !among(names, name) {
			skip = 12 * count
			break
		}
		for range count {
			var m [12]byte
			if _, err := io.ReadFull(r, m[:]); err != nil {
				return errTypes
			}
			member(name, m, about>>31 == 1)
		}
	case 5, 15, 19: // a union, a section, an enumeration of 64 bits
		skip = 12 * count
	case 6, 13: // an enumeration, the parameters of a function
		skip = 8 * count
	case 2, 7, 8, 9, 10, 11, 12, 16, 18: // a pointer, a name, a qualifier, a function, a floating point number, a tag
	default:
		return fmt.Errorf("%w: kind %d", errTypes, kind)
	}
	if _, err := r.Discard(skip); err != nil {
		return errTypes
	}
	return nil
}

func among(names map[string]uint32, number uint32) bool {
	for _, n := range names {
		if n == number {
			return true
		}
	}
	return false
}
