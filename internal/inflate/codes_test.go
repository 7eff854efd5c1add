package inflate

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// bitWriter writes deflate's bits, for streams that no compressor makes.
type bitWriter struct {
	out  []byte
	bits uint
}

func (w *bitWriter) put(v uint, n uint) {
	for i := range n {
		if w.bits%8 == 0 {
			w.out = append(w.out, 0)
		}
		w.out[len(w.out)-1] |= byte(v>>i&1) << (w.bits % 8)
		w.bits++
	}
}

// code writes a Huffman code, first bit first.
func (w *bitWriter) code(v uint, n uint) {
	for i := range n {
		w.put(v>>(n-1-i), 1)
	}
}

// dynamic writes the header of a block whose codes have these lengths: each length in a code of five bits.
func (w *bitWriter) dynamic(lits, dists []uint8) {
	w.put(1, 1)
	w.put(2, 2)
	w.put(uint(len(lits)-257), 5)
	w.put(uint(len(dists)-1), 5)
	w.put(15, 4)
	for _, symbol := range orderOf {
		if symbol < 16 {
			w.put(4, 3)
		} else {
			w.put(0, 3)
		}
	}
	for _, l := range append(append([]uint8{}, lits...), dists...) {
		w.code(uint(l), 4)
	}
}

// codes gives each symbol its canonical code.
func codes(lengths []uint8) []uint {
	out := make([]uint, len(lengths))
	next := uint(0)
	for l := uint8(1); l <= maxCode; l++ {
		for s, have := range lengths {
			if have == l {
				out[s] = next
				next++
			}
		}
		next <<= 1
	}
	return out
}

// complete makes random lengths of a complete code for n of the symbols: leaves of a tree that is split at random.
func complete(random *rand.Rand, symbols, n int) []uint8 {
	leaves := []uint8{1, 1}
	for len(leaves) < n {
		i := random.IntN(len(leaves))
		if random.IntN(3) == 0 {
			i = len(leaves) - 1
		}
		if leaves[i] < maxCode {
			leaves[i]++
			leaves = append(leaves, leaves[i])
		}
	}
	lengths := make([]uint8, symbols)
	for i, at := range random.Perm(symbols)[:len(leaves)] {
		lengths[at] = leaves[i]
	}
	return lengths
}

// TestCodes: random complete codes, deep ones too, and random symbols in them; some streams use what is refused (distances too far,
// symbols 30 and 31), and some codes lack a leaf or have one too many.
func TestCodes(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	for range 1500 {
		lits := complete(random, maxLit, 2+random.IntN(maxLit-2))
		dists := complete(random, maxDist, 2+random.IntN(maxDist-2))
		switch random.IntN(20) {
		case 0:
			lits[random.IntN(len(lits))] = uint8(random.IntN(16))
		case 1:
			dists[random.IntN(len(dists))] = uint8(random.IntN(16))
		}
		var w bitWriter
		w.dynamic(lits, dists)
		writeSymbols(random, &w, lits, dists)
		stream := framed(w.out)
		same(t, stream, whole)
		same(t, stream, arrivals["byte by byte"])
	}
}

func writeSymbols(random *rand.Rand, w *bitWriter, lits, dists []uint8) {
	litCodes, distCodes := codes(lits), codes(dists)
	written := 0
	pick := func(lengths []uint8) int {
		for {
			if s := random.IntN(len(lengths)); lengths[s] > 0 {
				return s
			}
		}
	}
	for range random.IntN(400) {
		s := pick(lits)
		if s == endOfBlock {
			continue
		}
		if s < endOfBlock {
			w.code(litCodes[s], uint(lits[s]))
			written++
			continue
		}
		d := pick(dists)
		if int(distBase[d]) > written && random.IntN(1000) > 0 {
			continue
		}
		w.code(litCodes[s], uint(lits[s]))
		more := uint(lengthMore[s-endOfBlock-1])
		w.put(uint(random.Uint32())&(1<<more-1), more)
		w.code(distCodes[d], uint(dists[d]))
		more = uint(max(d/2-1, 0))
		w.put(0, more)
		written += int(lengthBase[s-endOfBlock-1])
	}
	if lits[endOfBlock] > 0 {
		w.code(litCodes[endOfBlock], uint(lits[endOfBlock]))
	}
	w.put(0, 7)
}

// TestOddCodes: codes of one symbol and of none, of one bit and of more, where they are used and where they are not.
func TestOddCodes(t *testing.T) {
	lit := func(lengths map[int]uint8) []uint8 {
		out := make([]uint8, maxLit)
		for s, l := range lengths {
			out[s] = l
		}
		return out
	}
	rows := map[string]struct {
		lits, dists []uint8
	}{
		"an end only":                     {lit(map[int]uint8{256: 1}), []uint8{0}},
		"an end of two bits":              {lit(map[int]uint8{256: 2}), []uint8{0}},
		"no literal code":                 {lit(nil), []uint8{1}},
		"no distance, none used":          {lit(map[int]uint8{65: 1, 256: 1}), []uint8{0}},
		"no distance, one used":           {lit(map[int]uint8{65: 1, 256: 2, 257: 2}), []uint8{0}},
		"one distance":                    {lit(map[int]uint8{65: 1, 256: 2, 257: 2}), []uint8{1}},
		"one distance, another":           {lit(map[int]uint8{65: 1, 256: 2, 257: 2}), []uint8{0, 0, 0, 1}},
		"one distance of two bits":        {lit(map[int]uint8{65: 1, 256: 2, 257: 2}), []uint8{2}},
		"no end":                          {lit(map[int]uint8{65: 1, 66: 1}), []uint8{1}},
		"too many":                        {lit(map[int]uint8{65: 1, 66: 1, 256: 1}), []uint8{1}},
		"too few":                         {lit(map[int]uint8{65: 2, 256: 1}), []uint8{1}},
		"fifteen bits and one":            {lit(map[int]uint8{65: 1, 256: 15}), []uint8{1}},
		"distances 30 and 31 are no code": {lit(map[int]uint8{65: 1, 256: 1}), make([]uint8, 32)},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			for bits := range uint(1 << 9) {
				var w bitWriter
				w.dynamic(row.lits, row.dists)
				w.put(bits, 9)
				w.put(0, 30)
				same(t, framed(w.out), whole)
				w.put(0xffff, 16)
				same(t, framed(w.out), whole)
			}
		})
	}
}

// TestShortStreams: deflate streams of two bytes, and of three to twelve.
func TestShortStreams(t *testing.T) {
	for v := 0; v < 1<<16; v += 7 {
		same(t, framed([]byte{byte(v), byte(v >> 8)}), whole)
	}
	random := rand.New(rand.NewPCG(7, 8))
	for range 8000 {
		b := make([]byte, 3+random.IntN(10))
		for i := range b {
			b[i] = byte(random.Uint32())
		}
		same(t, framed(b), whole)
	}
}

// TestFarthest: matches of each length from the farthest distance, at the window's turns too, and one byte farther.
func TestFarthest(t *testing.T) {
	for _, farther := range []uint{0, 1} {
		var w bitWriter
		lits, dists := fixedCodes()
		w.put(1, 1)
		w.put(1, 2)
		for i := range 32768 - farther {
			w.code(lits.codes[byte(i*i>>3)], uint(lits.lengths[byte(i*i>>3)]))
		}
		for i := range 2000 {
			s := endOfBlock + 1 + i%29
			w.code(lits.codes[s], uint(lits.lengths[s]))
			w.put(0, uint(lengthMore[s-endOfBlock-1]))
			w.code(dists.codes[29], 5)
			w.put(1<<13-1, 13)
		}
		w.code(0, 7)
		w.put(0, 7)
		stream := framed(w.out)
		same(t, stream, whole)
		if got, err := readAll(again, bytes.NewReader(stream)); (err == nil) != (farther == 0) {
			t.Errorf("%d bytes, a distance of one more: %d; %v", len(got), farther, err)
		}
	}
}

type fixedCode struct {
	lengths []uint8
	codes   []uint
}

func fixedCodes() (lits, dists fixedCode) {
	lits.lengths, dists.lengths = fixedLengths()
	lits.codes, dists.codes = codes(lits.lengths), codes(dists.lengths)
	return lits, dists
}
