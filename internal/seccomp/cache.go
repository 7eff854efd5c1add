package seccomp

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"io"
	"sync"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// maxCached bounds how many filters a Cache holds; most containers share one or two.
const maxCached = 64

// Cache compiles each profile once. Its zero value works; safe for many goroutines.
type Cache struct {
	mu      sync.Mutex // guards what follows
	filters map[[sha256.Size]byte][]byte
}

// Compile is the filter of a profile, which the caller must not change.
func (c *Cache) Compile(p *specs.LinuxSeccomp) ([]byte, error) {
	key := digest(p)
	c.mu.Lock()
	filter, ok := c.filters[key]
	c.mu.Unlock()
	if ok {
		return filter, nil
	}
	filter, err := Compile(p)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.filters == nil || len(c.filters) >= maxCached {
		c.filters = map[[sha256.Size]byte][]byte{}
	}
	c.filters[key] = filter
	return filter, nil
}

// digest names a profile by everything in it that its filter depends on. Each part has its length before it, so no two profiles are written
// alike.
func digest(p *specs.LinuxSeccomp) (sum [sha256.Size]byte) {
	w := writer{h: sha256.New()}
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

// writer gathers small parts for a hash.
type writer struct {
	h   hash.Hash
	buf []byte
}

func (w *writer) number(n uint64) { w.buf = binary.LittleEndian.AppendUint64(w.buf, n) }

func (w *writer) text(s string) {
	w.number(uint64(len(s)))
	w.buf = append(w.buf, s...)
	if len(w.buf) > 4096 {
		w.flush()
	}
}

func (w *writer) errno(n *uint) {
	if n == nil {
		w.number(0)
		return
	}
	w.number(1)
	w.number(uint64(*n))
}

func (w *writer) flush() {
	_, _ = io.Writer(w.h).Write(w.buf) // a hash takes everything
	w.buf = w.buf[:0]
}
