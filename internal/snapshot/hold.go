package snapshot

import (
	"errors"
	"slices"
	"sync"
)

// holds are those who may have mounted a directory of changes that becomes an image meanwhile: a builder reads what it has written before and
// after it is committed, by the same mount.
type holds struct {
	mu   sync.Mutex // guards what follows
	n    int
	left []string // ids of layers whose directory is to go
}

// Hold leaves directories of changes that become images where they are until all who hold have called what this returns.
func Hold(s *Snapshotter) (release func() error) {
	s.holds.mu.Lock()
	s.holds.n++
	s.holds.mu.Unlock()
	return sync.OnceValue(func() error {
		var errs []error
		for _, id := range s.holds.end() {
			errs = append(errs, s.dropDirectory(id))
		}
		return errors.Join(errs...)
	})
}

// end is the end of one hold, and with the last one what is to go.
func (h *holds) end() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.n--; h.n > 0 {
		return nil
	}
	left := h.left
	h.left = nil
	return left
}

// leave notes directories for later; false where nobody holds any.
func (h *holds) leave(ids ...string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.n == 0 {
		return false
	}
	for _, id := range ids {
		if !slices.Contains(h.left, id) {
			h.left = append(h.left, id)
		}
	}
	return true
}
