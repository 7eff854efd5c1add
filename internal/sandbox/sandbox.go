// Package sandbox gives containers what surrounds their processes: a range of ids of their own, and the files of /etc that say who and
// where they are.
//
// Ranges are in memory and rebuilt from the containers' records at start. All is safe for many goroutines.
package sandbox

import (
	"fmt"
	"hash/fnv"
	"sync"

	"github.com/containerd/errdefs"

	"wherry.dev/wherry/internal/rootfs"
)

const (
	// rangeSize is how many ids a container has: enough for every id that images use (0…65535).
	rangeSize = 65536
	// firstBase lies above what login and subuid(5) give out.
	firstBase = 0x10000000
	// ranges end where ids stop fitting in a signed number: older kernels read mount options so (devpts before 6.6), and many programs.
	ranges = (1<<31 - firstBase) / rangeSize
)

// Ranges hands out id ranges, each to one container at a time.
type Ranges struct {
	mu   sync.Mutex // guards what follows
	used map[uint32]bool
	next uint32
}

// NewRanges begins somewhere that follows from the seed, so that engines beside each other do not give out the same ranges first.
func NewRanges(seed string) *Ranges {
	h := fnv.New32a()
	h.Write([]byte(seed))
	return &Ranges{used: map[uint32]bool{}, next: h.Sum32() % (ranges - 1)}
}

// Take gives a range that nobody has.
func (r *Ranges) Take() (rootfs.IDMap, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	m, next := r.free()
	if m.Size > 0 {
		r.used[m.Base], r.next = true, next
		return m, nil
	}
	return m, fmt.Errorf("all %d id ranges are in use: remove containers: %w", ranges-1, errdefs.ErrResourceExhausted)
}

// Next is the range that Take would give now; it stays free. The zero value: none.
func (r *Ranges) Next() rootfs.IDMap {
	r.mu.Lock()
	defer r.mu.Unlock()
	base, _ := r.free()
	return base
}

// free finds the next range that nobody has; the caller holds mu.
func (r *Ranges) free() (m rootfs.IDMap, next uint32) {
	next = r.next
	for range ranges - 1 {
		n := next
		next = (next + 1) % (ranges - 1)
		if base := firstBase + n*rangeSize; !r.used[base] {
			return rootfs.IDMap{Base: base, Size: rangeSize}, next
		}
	}
	return m, r.next
}

// Keep notes that a range is in use since an earlier life.
func (r *Ranges) Keep(m rootfs.IDMap) {
	if m.Size == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.used[m.Base] = true
}

// Give takes a range back.
func (r *Ranges) Give(m rootfs.IDMap) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.used, m.Base)
}
