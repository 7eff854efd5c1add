package erofs

import "io"

const bufferSize = 512 << 10

// Taker is a file that takes full buffers over, to write them while the next one is filled.
type Taker interface {
	// Buffer is an empty one, whose capacity is a multiple of a page.
	Buffer() []byte
	// Take has a buffer written at an offset, some time, and returns one to go on with. The error may be that of an earlier one.
	Take(p []byte, at int64) ([]byte, error)
}

// out writes a file from its first page on, in large pieces.
type out struct {
	f   io.WriterAt
	at  uint64 // where the next byte goes
	buf []byte
}

func newOut(f io.WriterAt) *out {
	o := &out{f: f, at: page}
	if t, ok := f.(Taker); ok {
		o.buf = t.Buffer()
	} else {
		o.buf = make([]byte, 0, bufferSize)
	}
	return o
}

func (o *out) write(p []byte) error {
	for len(p) > 0 {
		room, err := o.room()
		if err != nil {
			return err
		}
		n := copy(room, p)
		o.took(n)
		p = p[n:]
	}
	return nil
}

// room is free space in the buffer; took says how much of it has been filled.
func (o *out) room() ([]byte, error) {
	if len(o.buf) == cap(o.buf) {
		if err := o.flush(); err != nil {
			return nil, err
		}
	}
	return o.buf[len(o.buf):cap(o.buf)], nil
}

func (o *out) took(n int) {
	o.buf = o.buf[:len(o.buf)+n]
	o.at += uint64(n)
}

func (o *out) zeros(n uint64) error {
	for n > 0 {
		room, err := o.room()
		if err != nil {
			return err
		}
		room = room[:min(uint64(len(room)), n)]
		clear(room)
		o.took(len(room))
		n -= uint64(len(room))
	}
	return nil
}

func (o *out) flush() error {
	if len(o.buf) == 0 {
		return nil
	}
	at := int64(o.at) - int64(len(o.buf))
	if t, ok := o.f.(Taker); ok {
		next, err := t.Take(o.buf, at)
		o.buf = next[:0]
		return err
	}
	_, err := o.f.WriteAt(o.buf, at)
	o.buf = o.buf[:0]
	return err
}
