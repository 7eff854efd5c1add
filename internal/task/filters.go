package task

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"io"
	"sync"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"wherry.dev/wherry/internal/seccomp"
)

// maxFilters bounds how many filters are kept; most containers share one or two.
const maxFilters = 64

// Filters compiles each seccomp profile once. Its zero value works; safe for many goroutines.
type Filters struct {
	mu      sync.Mutex // guards what follows
	filters map[[sha256.Size]byte][]byte
}

// Compile is the filter of a profile, which the caller must not change.
func (c *Filters) Compile(p *specs.LinuxSeccomp) ([]byte, error) {
	key := digest(p)
	c.mu.Lock()
	filter, ok := c.filters[key]
	c.mu.Unlock()
	if ok {
		return filter, nil
	}
	filter, err := seccomp.Compile(p)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.filters == nil || len(c.filters) >= maxFilters {
		c.filters = map[[sha256.Size]byte][]byte{}
	}
	c.filters[key] = filter
	return filter, nil
}

// digest names a profile by everything in it that its filter depends on. Each part has its length before it, so no two profiles are written
// alike.
func digest(p *specs.LinuxSeccomp) (sum [sha256.Size]byte) {
	w := partWriter{h: sha256.New()}
	w.text(string(p.DefaultAction))
	w.errno(p.DefaultErrnoRet)
	w.number(uint64(len(p.Architectures)))
	for _, a := range p.Architectures {
		w.text(string(a))
	}
	w.number(uint64(len(p.Syscalls)))
	for _, sc := range p.Syscalls {
		w.text(string(sc.Action))
		w.errno(sc.ErrnoRet)
		w.number(uint64(len(sc.Names)))
		for _, n := range sc.Names {
			w.text(n)
		}
		w.number(uint64(len(sc.Args)))
		for _, a := range sc.Args {
			w.text(string(a.Op))
			w.number(uint64(a.Index))
			w.number(a.Value)
			w.number(a.ValueTwo)
		}
	}
	w.flush()
	w.h.Sum(sum[:0])
	return sum
}

// partWriter gathers small parts for a hash.
type partWriter struct {
	h   hash.Hash
	buf []byte
}

func (w *partWriter) number(n uint64) { w.buf = binary.LittleEndian.AppendUint64(w.buf, n) }

func (w *partWriter) text(s string) {
	w.number(uint64(len(s)))
	w.buf = append(w.buf, s...)
	if len(w.buf) > 4096 {
		w.flush()
	}
}

func (w *partWriter) errno(n *uint) {
	if n == nil {
		w.number(0)
		return
	}
	w.number(1)
	w.number(uint64(*n))
}

func (w *partWriter) flush() {
	_, _ = io.Writer(w.h).Write(w.buf) // a hash takes everything
	w.buf = w.buf[:0]
}
