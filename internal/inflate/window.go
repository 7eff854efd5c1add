package inflate

const (
	history   = 32 << 10 // how far back a match may lie
	maxMatch  = 258      // bytes
	outLimit  = 256 << 10
	outMargin = 3 + maxMatch + 16 // what a turn of the fast loop may write beyond: literals and a match, whose copy goes past its end
	outSize   = outLimit + outMargin
)

// window is what was decoded: the last 32 KiB at least, and before that what was not handed on yet.
type window struct {
	buf  *[outSize]byte
	n    int // buf[:n] is decoded
	told int // buf[:told] is handed on
	low  int // where the member, or what is kept of it, begins
}

func (w *window) pending() []byte { return w.buf[w.told:w.n] }

// slide makes room when all was handed on.
func (w *window) slide() {
	if w.n < outLimit || w.told < w.n {
		return
	}
	gone := w.n - history
	copy(w.buf[:history], w.buf[gone:w.n])
	w.n, w.told = history, history
	w.low = max(0, w.low-gone)
}

// match copies what lies dist back; it may overlap with what it makes.
func (w *window) match(dist, length int) {
	from, to := w.n-dist, w.n
	w.n += length
	for to < w.n {
		to += copy(w.buf[to:w.n], w.buf[from:to])
	}
}
