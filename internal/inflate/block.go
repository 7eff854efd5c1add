package inflate

// maxHeader is the most bytes that stand before the symbols of a block.
const maxHeader = (3+14+19*3+(maxLit+maxDist)*(orderBits+7))/8 + 1

// orderOf is the order in which lengths of the code of code lengths are written.
var orderOf = [19]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}

// blockHeader reads what a block begins with, and makes its tables.
func (d *decoder) blockHeader() error {
	head, err := d.take(3)
	if err != nil {
		return err
	}
	d.final = head&1 != 0
	switch head >> 1 {
	case 0:
		return d.storedHeader()
	case 1:
		d.fixedTables()
		d.block = coded
		return nil
	case 2:
		d.fixed = false
		d.block = coded
		return d.dynamicTables()
	}
	return errCorrupt
}

func (d *decoder) storedHeader() error {
	d.dropBits()
	size, err := d.take(32)
	if err != nil {
		return err
	}
	d.dropBits()
	if size&0xffff != ^size>>16&0xffff {
		return errCorrupt
	}
	d.left = int(size & 0xffff)
	d.block = stored
	return nil
}

func (d *decoder) fixedTables() {
	if d.fixed {
		return
	}
	d.fixed = true
	lits, dists := fixedLengths()
	d.litTable(lits)
	d.distTable(dists)
}

// fixedLengths are the codes that a stream need not describe.
func fixedLengths() (lits, dists []uint8) {
	lits, dists = make([]uint8, maxLit+2), make([]uint8, maxDist+2)
	for i := range lits {
		switch {
		case i < 144:
			lits[i] = 8
		case i < 256:
			lits[i] = 9
		case i < 280:
			lits[i] = 7
		default:
			lits[i] = 8
		}
	}
	for i := range dists {
		dists[i] = 5
	}
	return lits, dists
}

func (d *decoder) litTable(lengths []uint8) bool {
	d.code.table, d.code.main, d.code.entry = d.lit[:], litBits, litEntry
	return d.code.build(lengths)
}

func (d *decoder) distTable(lengths []uint8) bool {
	d.code.table, d.code.main, d.code.entry = d.dist[:], distBits, distEntry
	return d.code.build(lengths)
}

// dynamicTables reads the codes of a block, which are themselves in a code.
func (d *decoder) dynamicTables() error {
	head, err := d.take(14)
	if err != nil {
		return err
	}
	lits, dists, orders := int(head&31)+257, int(head>>5&31)+1, head>>10+4
	if lits > maxLit || dists > maxDist {
		return errCorrupt
	}
	var order [19]uint8
	for _, at := range orderOf[:orders] {
		length, err := d.take(3)
		if err != nil {
			return err
		}
		order[at] = uint8(length)
	}
	var table [orderSize]entry
	d.code.table, d.code.main, d.code.entry = table[:], orderBits, orderEntry
	if !d.code.build(order[:]) {
		return errCorrupt
	}
	var lengths [maxLit + maxDist]uint8
	if err := d.lengths(lengths[:lits+dists], &table); err != nil {
		return err
	}
	if !d.litTable(lengths[:lits]) || !d.distTable(lengths[lits:lits+dists]) {
		return errCorrupt
	}
	return nil
}

// lengths reads the lengths of codes: 0 to 15 as such, 16 the one before 3 to 6 times, 17 and 18 a run of zeros.
func (d *decoder) lengths(lengths []uint8, table *[orderSize]entry) error {
	for i := 0; i < len(lengths); {
		symbol, err := d.orderSymbol(table)
		if err != nil {
			return err
		}
		if symbol < 16 {
			lengths[i] = uint8(symbol)
			i++
			continue
		}
		run, more, value := uint(3), uint(2), uint8(0)
		switch symbol {
		case 16:
			if i == 0 {
				return errCorrupt
			}
			value = lengths[i-1]
		case 17:
			more = 3
		case 18:
			run, more = 11, 7
		}
		extra, err := d.take(more)
		if err != nil {
			return err
		}
		run += extra
		if int(run) > len(lengths)-i {
			return errCorrupt
		}
		for range run {
			lengths[i] = value
			i++
		}
	}
	return nil
}

func (d *decoder) orderSymbol(table *[orderSize]entry) (uint, error) {
	for {
		d.top()
		e := table[d.hold%orderSize]
		if used := uint(e & usedMask); used <= d.bits {
			if e&special != 0 {
				return 0, errCorrupt
			}
			d.use(used)
			return uint(e >> valueShift), nil
		}
		if err := d.more(); err != nil {
			return 0, err
		}
	}
}
