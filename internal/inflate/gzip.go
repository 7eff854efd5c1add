package inflate

import (
	"compress/gzip"
	"encoding/binary"
	"hash/crc32"
	"io"
)

// Bits of a header's flags.
const (
	flagHeaderSum = 1 << 1
	flagExtra     = 1 << 2
	flagName      = 1 << 3
	flagComment   = 1 << 4
)

const maxText = 512 // of a name or comment with its end; compress/gzip has the same limit

// readHeader skips what a member has before its blocks. It returns io.EOF where no member begins.
func (z *Reader) readHeader() error {
	var head [10]byte
	n, err := z.readFull(head[:])
	switch {
	case n > 0 && z.after && head == [10]byte{}: // members may be padded with zeros, as tapes want it: gzip passes over them
		return z.zeros(err)
	case err != nil && n > 0:
		return noEOF(err)
	case err != nil:
		return err
	}
	sum := crc32.NewIEEE()
	if head[0] != 0x1f || head[1] != 0x8b || head[2] != 8 {
		return gzip.ErrHeader
	}
	sum.Write(head[:])
	if err := z.skipFields(head[3], sum); err != nil {
		return noEOF(err)
	}
	if head[3]&flagHeaderSum != 0 {
		want := uint16(sum.Sum32())
		var got [2]byte
		if _, err := z.readFull(got[:]); err != nil {
			return noEOF(err)
		}
		if binary.LittleEndian.Uint16(got[:]) != want {
			return gzip.ErrHeader
		}
	}
	z.crc, z.size, z.next = 0, 0, blocks
	z.begin()
	return nil
}

// zeros reads to the end, where nothing but zeros may come.
func (z *Reader) zeros(err error) error {
	for ; err == nil; err = z.more() {
		for ; z.input.pos < z.input.end; z.input.pos++ {
			if z.input.buf[z.input.pos] != 0 {
				return gzip.ErrHeader
			}
		}
	}
	return err
}

func (z *Reader) skipFields(flags byte, sum io.Writer) error {
	if flags&flagExtra != 0 {
		var size [2]byte
		if _, err := z.readFull(size[:]); err != nil {
			return err
		}
		extra := make([]byte, binary.LittleEndian.Uint16(size[:]))
		if _, err := z.readFull(extra); err != nil {
			return err
		}
		_, _ = sum.Write(size[:])
		_, _ = sum.Write(extra)
	}
	for _, flag := range []byte{flagName, flagComment} {
		if flags&flag == 0 {
			continue
		}
		var text [maxText]byte
		for i := 0; ; i++ {
			if i == maxText {
				return gzip.ErrHeader
			}
			if _, err := z.readFull(text[i : i+1]); err != nil {
				return err
			}
			if text[i] == 0 {
				_, _ = sum.Write(text[:i+1])
				break
			}
		}
	}
	return nil
}

func (z *Reader) readTrailer() error {
	z.dropBits()
	var t [8]byte
	if _, err := z.readFull(t[:]); err != nil {
		return err
	}
	if binary.LittleEndian.Uint32(t[:4]) != z.crc || binary.LittleEndian.Uint32(t[4:]) != z.size {
		return gzip.ErrChecksum
	}
	return nil
}

func (z *Reader) sum(p []byte) {
	z.crc = crc32.Update(z.crc, crc32.IEEETable, p)
	z.size += uint32(len(p))
}
