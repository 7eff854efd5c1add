package container

import "sync"

// Kept is what was measured of a container that does not run: nobody but package files changes it then, until its record changes. It goes
// with either. Safe for many goroutines.
type Kept struct {
	mu     sync.Mutex // guards what follows
	values map[string]int64
	writes int // how often something was forgotten
}

// Of is a value that is kept, or else measured; nil keeps nothing. What changes while it is measured is not kept.
func (k *Kept) Of(name string, measure func() (int64, error)) (int64, error) {
	if k == nil {
		return measure()
	}
	k.mu.Lock()
	n, ok := k.values[name]
	before := k.writes
	k.mu.Unlock()
	if ok {
		return n, nil
	}
	n, err := measure()
	if err != nil {
		return 0, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.writes == before {
		if k.values == nil {
			k.values = map[string]int64{}
		}
		k.values[name] = n
	}
	return n, nil
}

// Forget is to be called before and after a change.
func (k *Kept) Forget() {
	if k == nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.writes++
	k.values = nil
}

// KeptOf is what is kept of a container; nil: it runs, or is not there.
func KeptOf(s *Service, id string) *Kept {
	c, err := s.index.find(id)
	if err != nil {
		return nil
	}
	return keptNow(c, c.record())
}

func keptNow(c *Container, r *Record) *Kept {
	if r.Status == Created || r.Status == Exited {
		return &c.past.kept
	}
	return nil
}
