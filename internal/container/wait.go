package container

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/moby/moby/api/types/container"

	"wherry.dev/wherry/internal/awake"
)

// waiter is somebody who waits for an exit, or for the removal.
type waiter struct {
	removal bool
	after   int                         // how often the container had ended when the wait began
	answer  chan container.WaitResponse // has room for the one answer
}

// audience are those who wait for what a container does.
type audience struct {
	mu       sync.Mutex // guards what follows; taken below a container's
	waiters  []waiter
	attached map[chan struct{}]bool // clients, closed when they have got all that was printed; true: the life that they follow is over
}

func exited(r *Record) container.WaitResponse {
	return container.WaitResponse{StatusCode: int64(r.ExitCode)}
}

// Wait's channel yields one answer. It is armed when Wait returns (so: wait, then start). Who starts first and then waits for a container that
// removes itself, as Ansible does, is answered also when it is gone by then.
func (s *Service) Wait(ctx context.Context, id string, condition container.WaitCondition) (<-chan container.WaitResponse, error) {
	w := waiter{removal: condition == container.WaitConditionRemoved, answer: make(chan container.WaitResponse, 1)}
	c, err := s.index.find(id)
	if err != nil {
		if r, ok := s.graves.disposed(id); ok && condition != container.WaitConditionNextExit {
			w.answer <- exited(r)
			return w.answer, nil
		}
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	w.after = c.past.exits
	r := c.rec.Load()
	ended := !r.Status.Alive() && r.Status != Restarting
	if c.isGone() || ended && condition != container.WaitConditionRemoved && condition != container.WaitConditionNextExit {
		c.audience.tell(exited(r), w)
		return w.answer, nil
	}
	context.AfterFunc(ctx, c.audience.add(w))
	return w.answer, nil
}

// add returns the function that ends the wait.
func (a *audience) add(w waiter) (leave func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.waiters = append(a.waiters, w)
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.waiters = slices.DeleteFunc(a.waiters, func(x waiter) bool { return x.answer == w.answer })
	}
}

// attach adds a client that gets what is printed; the function that it returns says that it has got all.
func (a *audience) attach() (got func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	done := make(chan struct{})
	if a.attached == nil {
		a.attached = map[chan struct{}]bool{}
	}
	a.attached[done] = false
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.attached, done)
		close(done)
	}
}

func anyone(waiter) bool         { return true }
func waitsForExit(w waiter) bool { return !w.removal }

// over is called when a life has ended.
func (a *audience) over() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for done := range a.attached {
		a.attached[done] = true
	}
}

// waited says that somebody waits.
func (a *audience) waited() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.waiters) > 0
}

// answer tells those who are meant.
func (a *audience) answer(r container.WaitResponse, meant func(waiter) bool) {
	a.mu.Lock()
	var told []waiter
	a.waiters = slices.DeleteFunc(a.waiters, func(w waiter) bool {
		if meant(w) {
			told = append(told, w)
			return true
		}
		return false
	})
	a.mu.Unlock()
	a.tell(r, told...)
}

// tell answers when those who are attached have got what was printed: clients take the answer for the end of it.
func (a *audience) tell(r container.WaitResponse, waiters ...waiter) {
	a.mu.Lock()
	var attached []chan struct{}
	for done, over := range a.attached {
		if over {
			attached = append(attached, done)
		}
	}
	a.mu.Unlock()
	now := func() {
		for _, w := range waiters {
			w.answer <- r
		}
	}
	if len(waiters) == 0 || len(attached) == 0 {
		now()
		return
	}
	go func() { // ends with the limit
		defer now()
		limit := time.After(slowReader)
		for _, done := range attached {
			select {
			case <-done:
			case <-limit:
				return
			}
		}
	}()
}

// slowReader is how long those who wait for an exit wait for a client that is attached and does not read.
const slowReader = time.Second

// answerExit tells those who have waited since before the last exit; who came after its record waits for the next one.
func (c *Container) answerExit(a container.WaitResponse) {
	c.mu.Lock()
	exits := c.past.exits
	c.mu.Unlock()
	c.audience.answer(a, func(w waiter) bool { return !w.removal && w.after < exits })
}

// waitExit waits until the container has ended more often than n times; false: it has not within the limit (0: none). A time in which the host
// stood still does not count: the container has not run either.
func (c *Container) waitExit(ctx context.Context, n int, limit time.Duration) bool {
	late := make(chan struct{})
	if limit > 0 {
		defer awake.After(limit, func() { close(late) }).Stop()
	}
	for {
		c.mu.Lock()
		exits, changed := c.past.exits, c.changed
		c.mu.Unlock()
		if exits > n {
			return true
		}
		select {
		case <-changed:
		case <-late:
			return false
		case <-ctx.Done():
			return false
		}
	}
}
