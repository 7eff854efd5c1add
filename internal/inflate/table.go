package inflate

import "math/bits"

// An entry of a table says in one word what the next bits mean, and how many of them (the low 5 bits: code and extra bits together):
//
//	literal    bits 8-15: the byte; bit 7 set
//	length     bits 16-24: the least length; bits 8-11: bits of the code, which the extra bits follow
//	distance   bits 16-31: the least distance; bits 8-11 as above
//	table      bits 5 and 6 set; bits 16-31: where its entries begin; bits 8-11: how many more bits choose one
//	end        bit 5 set, bit 16 set
//	invalid    bit 5 set
type entry uint32

const (
	literal  entry = 1 << 7
	special  entry = 1 << 5
	subTable entry = special | 1<<6
	endBlock entry = special | 1<<16
	invalid  entry = special | 1 // one bit: less cannot show that it is none

	codeShift  = 8
	valueShift = 16
	usedMask   = 31
	codeMask   = 15
)

const (
	maxCode   = 15
	litBits   = 11
	distBits  = 8
	orderBits = 7

	// Room for the main table and all others of the worst complete code: 2342, 402 and 128 entries; rounded up so that a mask keeps indices inside.
	litSize   = 4096
	distSize  = 512
	orderSize = 128
)

const (
	maxLit     = 286
	maxDist    = 30
	endOfBlock = 256
)

var (
	lengthBase = [29]uint16{3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258}
	lengthMore = [29]uint8{0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0}
	distBase   = [30]uint16{1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577}
)

func (e entry) byte() byte { return byte(e >> codeShift) }

// sub is the place in the table that e leads to, chosen by the next bits.
func (e entry) sub(hold uint64) uint {
	return uint(e>>valueShift) + uint(hold)&(1<<(e>>codeShift&codeMask)-1)
}

// value is a length or a distance, with the extra bits behind its code.
func (e entry) value(hold uint64) int {
	return int(e>>valueShift) + int(hold&(1<<(e&usedMask)-1)>>(e>>codeShift&codeMask))
}

func litEntry(symbol int, length uint) entry {
	switch {
	case symbol < endOfBlock:
		return literal | entry(symbol)<<codeShift | entry(length)
	case symbol == endOfBlock:
		return endBlock | entry(length)
	case symbol < maxLit:
		more := lengthMore[symbol-endOfBlock-1]
		return entry(lengthBase[symbol-endOfBlock-1])<<valueShift | entry(length)<<codeShift | entry(length+uint(more))
	}
	return special | entry(length)
}

func distEntry(symbol int, length uint) entry {
	if symbol >= maxDist {
		return special | entry(length)
	}
	more := uint(max(symbol/2-1, 0))
	return entry(distBase[symbol])<<valueShift | entry(length)<<codeShift | entry(length+more)
}

// orderEntry is for the code of code lengths.
func orderEntry(symbol int, length uint) entry {
	return entry(symbol)<<valueShift | entry(length)
}

// code is a canonical Huffman code that is being made into a table.
type code struct {
	table  []entry
	main   uint // bits of the main table
	entry  func(symbol int, length uint) entry
	counts [maxCode + 1]uint16
	sorted [288]uint16 // symbols by length
	used   int
}

// build fills the table. A code must be complete; as in compress/flate it may also have one symbol of one bit, or none, where it is an
// error only to meet what it does not have.
func (c *code) build(lengths []uint8) bool {
	if !c.sort(lengths) {
		return false
	}
	c.table[0] = invalid
	var word uint // the next code, its first bit lowest
	i := 0
	for length := uint(1); length <= c.main; length++ {
		copy(c.table[1<<(length-1):1<<length], c.table[:1<<(length-1)])
		for range c.counts[length] {
			c.table[word] = c.entry(int(c.sorted[i]), length)
			word = following(word, length)
			i++
		}
	}
	c.subTables(i, word)
	return true
}

// following is the next code of the same length: a sum whose carry runs towards the low bits.
func following(word, length uint) uint {
	zeros := ^word & (1<<length - 1)
	if zeros == 0 {
		return 0
	}
	bit := uint(1) << (bits.Len(zeros) - 1)
	return word&(bit-1) | bit
}

// sort counts the lengths and sorts the symbols, and says whether they make a code.
func (c *code) sort(lengths []uint8) bool {
	c.counts = [maxCode + 1]uint16{}
	for _, l := range lengths {
		c.counts[l&maxCode]++
	}
	c.used = len(lengths) - int(c.counts[0])
	c.counts[0] = 0
	space := 1 << maxCode
	var next [maxCode + 2]uint16
	for l := 1; l <= maxCode; l++ {
		space -= int(c.counts[l]) << (maxCode - l)
		next[l+1] = next[l] + c.counts[l]
	}
	if space != 0 && c.used != 0 && (c.used != 1 || c.counts[1] != 1) {
		return false
	}
	for symbol, l := range lengths {
		if l != 0 {
			c.sorted[next[l&maxCode]] = uint16(symbol)
			next[l&maxCode]++
		}
	}
	return true
}

// subTables places codes that are longer than the main table's, from the i-th symbol on, in tables behind it: one for each beginning.
func (c *code) subTables(i int, word uint) {
	end := 1 << c.main
	beginning, start, size := uint(1)<<c.main, 0, uint(0)
	for length := c.main + 1; length <= maxCode; length++ {
		for ; c.counts[length] > 0; c.counts[length]-- {
			if b := word & (1<<c.main - 1); b != beginning {
				beginning, start = b, end
				size = c.subSize(length)
				end += 1 << size
				c.table[b] = subTable | entry(start)<<valueShift | entry(size)<<codeShift | entry(c.main)
			}
			e := c.entry(int(c.sorted[i]), length)
			e -= entry(c.main) // those bits are used already
			if e&(literal|special) == 0 {
				e -= entry(c.main) << codeShift
			}
			for at := word >> c.main; at < 1<<size; at += 1 << (length - c.main) {
				c.table[start+int(at)] = e
			}
			word = following(word, length)
			i++
		}
	}
}

// subSize is how many bits the table takes whose shortest code has this length: as many as fill it with the codes that are left.
func (c *code) subSize(length uint) uint {
	size := length - c.main
	room := 1<<size - int(c.counts[length])
	for room > 0 && length < maxCode {
		length++
		size++
		room = room<<1 - int(c.counts[length])
	}
	return size
}
