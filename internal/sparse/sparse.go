// Package sparse tells the blocks of a file's data that need not be written: those of zeros, which a hole stands for.
package sparse

import "encoding/binary"

// Block is the smallest hole, in bytes: file systems keep data in blocks of that size.
const Block = 4096

// Runs calls write with each longest run of blocks that are not all zeros: p[from:to]. p begins at a block's border in the file. hole says that its end is a hole,
// so that somebody has to set the file's size.
func Runs(p []byte, write func(from, to int) error) (hole bool, err error) {
	for at := 0; at < len(p); {
		from := skip(p, at, true)
		if from == len(p) {
			return true, nil
		}
		at = skip(p, from, false)
		if err := write(from, at); err != nil {
			return false, err
		}
	}
	return false, nil
}

// skip is where the blocks from at on end that are zeros, or are not. A last part of a block counts as data.
func skip(p []byte, at int, zeros bool) int {
	for at < len(p) {
		end := min(at+Block, len(p))
		if (end-at == Block && Zero(p[at:end])) != zeros {
			break
		}
		at = end
	}
	return at
}

// Zero says that all bytes are zero.
func Zero(p []byte) bool {
	for len(p) >= 8 {
		if binary.NativeEndian.Uint64(p) != 0 {
			return false
		}
		p = p[8:]
	}
	for _, b := range p {
		if b != 0 {
			return false
		}
	}
	return true
}
