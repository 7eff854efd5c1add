// Package inflate decompresses gzip, which most layers come in, in less than half the time that compress/gzip takes.
//
// It accepts what compress/gzip accepts, refuses what that refuses, and has a fixed amount of memory: 64 KiB of input, 256 KiB of output in
// which matches are copied, and the tables of one block. A Reader is for one goroutine.
//
// Two loops decode. The fast one runs while a whole turn's worth of input and output is there, so that it asks about neither; the careful
// one decodes a single symbol from what bits there are, or says that they do not suffice. Formats: RFC 1951 (deflate) and RFC 1952 (gzip).
package inflate

import (
	"errors"
	"io"
)

// Reader gives the content of a gzip stream, which may have several members.
type Reader struct {
	decoder
	crc   uint32
	size  uint32
	next  step
	after bool // a member has ended
	err   error
}

// step is what follows in a member once all that was decoded has been handed on.
type step int

const (
	blocks step = iota
	trailer
	header
)

// NewReader reads the first header.
func NewReader(r io.Reader) (*Reader, error) {
	z := &Reader{decoder: decoder{input: input{buf: make([]byte, inSize)}, window: window{buf: new([outSize]byte)}}}
	if err := z.Reset(r); err != nil {
		return nil, err
	}
	return z, nil
}

// Reset begins with another stream, in the same memory.
func (z *Reader) Reset(r io.Reader) error {
	z.input = input{src: r, buf: z.input.buf}
	z.window = window{buf: z.window.buf}
	z.after = false
	z.err = z.readHeader()
	return z.err
}

// Read may give less than is asked for: it hands on what there is before it waits for the source.
func (z *Reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if err := z.fill(); err != nil {
		return 0, err
	}
	n := copy(p, z.pending())
	z.told += n
	return n, nil
}

// WriteTo saves a copy: w gets what lies in the window.
func (z *Reader) WriteTo(w io.Writer) (int64, error) {
	var total int64
	for {
		if err := z.fill(); err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return total, err
		}
		n, err := w.Write(z.pending())
		z.told += n
		total += int64(n)
		if err == nil && z.told < z.n {
			err = io.ErrShortWrite
		}
		if err != nil {
			return total, err
		}
	}
}

// Close ends reading; the source is its owner's to close.
func (z *Reader) Close() error {
	if z.err == nil {
		z.told, z.err = z.n, errClosed
	}
	return nil
}

var errClosed = errors.New("inflate: read after Close")

// fill makes sure that something is pending, or returns why there is nothing any more.
func (z *Reader) fill() error {
	for z.told == z.n {
		if z.err != nil {
			return z.err
		}
		z.err = z.advance()
	}
	return nil
}

// advance takes one step; it waits for the source only when nothing is pending.
func (z *Reader) advance() error {
	switch z.next {
	case header:
		return z.readHeader()
	case trailer:
		z.next, z.after = header, true
		return noEOF(z.readTrailer())
	}
	err := z.decode()
	z.sum(z.pending())
	if errors.Is(err, io.EOF) {
		z.next = trailer
		return nil
	}
	return noEOF(err)
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
