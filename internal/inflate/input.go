package inflate

import "io"

const (
	inSize   = 64 << 10
	maxEmpty = 100 // reads that give nothing, one after another
)

// input is the source, a buffer of it, and the bits that were taken from the buffer and not used yet. Those never come from further back
// than the buffer's start, so whole bytes can always be put back.
type input struct {
	src      io.Reader
	buf      []byte
	pos, end int
	hold     uint64 // the next bits, the first one lowest; above the counted ones there may be those that follow in the buffer, or zeros
	bits     uint   // that are counted
	srcErr   error  // why the source gives no more
}

// unhold puts whole bytes back.
func (in *input) unhold() {
	in.pos -= int(in.bits >> 3)
	in.bits &= 7
	in.hold &= 1<<in.bits - 1
}

// dropBits goes to the next byte.
func (in *input) dropBits() {
	in.unhold()
	in.hold, in.bits = 0, 0
}

// more waits for the source to give at least one byte.
func (in *input) more() error {
	in.unhold()
	if in.pos > 0 {
		in.end = copy(in.buf, in.buf[in.pos:in.end])
		in.pos = 0
	}
	for range maxEmpty {
		if in.srcErr != nil {
			return in.srcErr
		}
		n, err := in.src.Read(in.buf[in.end:])
		in.end += n
		in.srcErr = err
		if n > 0 {
			return nil
		}
	}
	return io.ErrNoProgress
}

// top takes in whole bytes until it holds 56 bits, or what there is.
func (in *input) top() {
	in.hold &= 1<<in.bits - 1
	for in.bits < 56 && in.pos < in.end {
		in.hold |= uint64(in.buf[in.pos]) << in.bits
		in.pos++
		in.bits += 8
	}
}

// need waits until n bits are held, at most 48.
func (in *input) need(n uint) error {
	for in.top(); in.bits < n; in.top() {
		if err := in.more(); err != nil {
			return err
		}
	}
	return nil
}

// take waits for n bits, at most 48, and uses them.
func (in *input) take(n uint) (uint, error) {
	if err := in.need(n); err != nil {
		return 0, err
	}
	return in.use(n), nil
}

func (in *input) use(n uint) uint {
	v := in.hold & (1<<n - 1)
	in.hold >>= n
	in.bits -= n
	return uint(v)
}

// readFull reads bytes, between members and in their trailers, where no bits are held.
func (in *input) readFull(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		if in.pos == in.end {
			if err := in.more(); err != nil {
				return n, err
			}
		}
		k := copy(p[n:], in.buf[in.pos:in.end])
		in.pos += k
		n += k
	}
	return n, nil
}
