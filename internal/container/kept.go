package container

import (
	"runtime"
	"slices"
	"sync"

	"github.com/moby/moby/api/types/container"
	"golang.org/x/sync/errgroup"

	"wherry.dev/wherry/internal/archive"
	"wherry.dev/wherry/internal/rootfs"
)

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

// Measured is what the sizes of a container are made of.
type Measured struct {
	Name   string
	Dir    string // all that is the container's
	Rootfs rootfs.Rootfs
	Kept   *Kept // nil: it runs
	Trees  *Trees
}

// Trees are those that are measured, as they were met the last time.
type Trees struct{ All, Layer archive.Tree }

// ownDepth is down to where a container's directories are the engine's alone: rootfs/upper is, what lies in it is not.
const ownDepth = 2

// MeasuredOf says what to measure. That of one that is being removed may have gone in part.
func MeasuredOf(s *Service, id string) (Measured, error) {
	c, err := s.index.find(id)
	if err != nil {
		return Measured{}, err
	}
	r := c.record()
	if r.Status == Removing {
		return Measured{}, busy(r, "being removed")
	}
	return Measured{Name: r.Name, Dir: c.dir, Rootfs: s.o.rootfs(r), Kept: keptNow(c, r), Trees: &c.disk.trees}, nil
}

func keptNow(c *Container, r *Record) *Kept {
	if r.Status == Created || r.Status == Exited {
		return &c.past.kept
	}
	return nil
}

// rowsAtOnce is how many rows of a list one goroutine has at least.
const rowsAtOnce = 16

// Each calls fn for each row of a list, on all processors, until one fails.
func Each(list []container.Summary, fn func(*container.Summary) error) error {
	var g errgroup.Group
	size := max(rowsAtOnce, (len(list)+runtime.GOMAXPROCS(0)-1)/runtime.GOMAXPROCS(0))
	for rows := range slices.Chunk(list, size) {
		g.Go(func() error {
			for i := range rows {
				if err := fn(&rows[i]); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}
