package container

import (
	"context"
	"slices"
	"time"

	"github.com/moby/moby/api/types/container"
)

// waiter is somebody who waits for an exit, or for the removal.
type waiter struct {
	removal bool
	after   int                         // how often the container had ended when the wait began
	answer  chan container.WaitResponse // has room for the one answer
}

func exited(r *Record) container.WaitResponse {
	return container.WaitResponse{StatusCode: int64(r.ExitCode)}
}

// Wait's channel yields one answer. It is armed when Wait returns (so: wait, then start).
func (s *Service) Wait(ctx context.Context, id string, condition container.WaitCondition) (<-chan container.WaitResponse, error) {
	c, err := s.index.find(id)
	if err != nil {
		return nil, err
	}
	w := waiter{removal: condition == container.WaitConditionRemoved, answer: make(chan container.WaitResponse, 1)}
	c.mu.Lock()
	defer c.mu.Unlock()
	w.after = c.past.exits
	r := c.rec.Load()
	ended := !r.Status.Alive() && r.Status != Restarting
	if c.isGone() || ended && condition != container.WaitConditionRemoved && condition != container.WaitConditionNextExit {
		w.answer <- exited(r)
		return w.answer, nil
	}
	c.waiters = append(c.waiters, w)
	context.AfterFunc(ctx, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.waiters = slices.DeleteFunc(c.waiters, func(x waiter) bool { return x.answer == w.answer })
	})
	return w.answer, nil
}

func anyone(waiter) bool         { return true }
func waitsForExit(w waiter) bool { return !w.removal }

// answer tells those who are meant.
func (c *Container) answer(a container.WaitResponse, meant func(waiter) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiters = slices.DeleteFunc(c.waiters, func(w waiter) bool {
		if meant(w) {
			w.answer <- a
			return true
		}
		return false
	})
}

// answerExit tells those who have waited since before the last exit; who came after its record waits for the next one.
func (c *Container) answerExit(a container.WaitResponse) {
	c.mu.Lock()
	exits := c.past.exits
	c.mu.Unlock()
	c.answer(a, func(w waiter) bool { return !w.removal && w.after < exits })
}

// waitExit waits until the container has ended more often than n times; false: it has not within the limit (0: none).
func (c *Container) waitExit(ctx context.Context, n int, limit time.Duration) bool {
	var late <-chan time.Time
	if limit > 0 {
		timer := time.NewTimer(limit)
		defer timer.Stop()
		late = timer.C
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
