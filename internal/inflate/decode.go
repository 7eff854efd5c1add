package inflate

import (
	"errors"
	"io"
)

var errCorrupt = errors.New("inflate: corrupt deflate data")

// decoder decodes the blocks of one deflate stream.
type decoder struct {
	input
	window
	lit   [litSize]entry
	dist  [distSize]entry
	code  code // the room in which tables are made
	block kind
	left  int  // bytes of a stored block
	final bool // no block follows
	fixed bool // the tables are the fixed ones
}

// kind is where the stream stands.
type kind int

const (
	between kind = iota // before a block, or behind the last
	stored
	coded
)

// begin starts a stream.
func (d *decoder) begin() {
	d.low = d.n
	d.block, d.final = between, false
}

// decode goes on until the window is full, or the source must be waited for and something is pending, and returns io.EOF at the end.
func (d *decoder) decode() error {
	d.slide()
	for {
		var err error
		switch d.block {
		case between:
			if d.final {
				return io.EOF
			}
			if d.n > d.told && d.end-d.pos < maxHeader {
				return nil
			}
			err = d.blockHeader()
		case stored:
			err = d.copyStored()
		case coded:
			err = d.symbols()
		}
		if err == errFull {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// errFull says that what is pending is to be handed on first.
var errFull = errors.New("inflate: hand on")

// wait gets more input, unless something is pending.
func (d *decoder) wait() error {
	if d.n > d.told {
		return errFull
	}
	return d.more()
}

func (d *decoder) copyStored() error {
	for d.left > 0 {
		if d.n >= outLimit {
			return errFull
		}
		if d.pos == d.end {
			if err := d.wait(); err != nil {
				return err
			}
		}
		k := copy(d.window.buf[d.n:outLimit], d.input.buf[d.pos:min(d.end, d.pos+d.left)])
		d.n += k
		d.pos += k
		d.left -= k
	}
	d.block = between
	return nil
}

// symbols decodes a block that has codes.
func (d *decoder) symbols() error {
	for {
		e := d.fast()
		if e == 0 {
			if d.n > outLimit {
				return errFull
			}
			var enough bool
			if e, enough = d.symbol(); !enough {
				if err := d.wait(); err != nil {
					return err
				}
			}
		}
		if e&special != 0 {
			if e&endBlock == endBlock {
				d.block = between
				return nil
			}
			return errCorrupt
		}
	}
}

// symbol decodes one from the bits that there are, and says whether they were enough.
func (d *decoder) symbol() (entry, bool) {
	d.top()
	hold := d.hold
	e := d.lit[hold&litMask]
	used := uint(e & usedMask)
	if e&subTable == subTable {
		hold >>= litBits
		e = d.lit[e.sub(hold)%litSize]
		used += uint(e & usedMask)
	}
	if used > d.bits {
		return 0, false
	}
	if e&literal != 0 {
		d.use(used)
		d.window.buf[d.n] = e.byte()
		d.n++
		return 0, true
	}
	if e&special != 0 {
		d.use(used)
		return e, true
	}
	length := e.value(hold)
	hold = d.hold >> used
	e = d.dist[hold&distMask]
	used += uint(e & usedMask)
	if e&subTable == subTable {
		hold >>= distBits
		e = d.dist[e.sub(hold)%distSize]
		used += uint(e & usedMask)
	}
	if used > d.bits {
		return 0, false
	}
	if e&special != 0 {
		return special, true
	}
	dist := e.value(hold)
	if dist > d.n-d.low {
		return special, true
	}
	d.use(used)
	d.match(dist, length)
	return 0, true
}
