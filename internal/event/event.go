// Package event keeps and hands out what happened in the engine.
//
// The bus holds the last events in a ring, for those who ask for the past, and one bounded queue for each subscriber: publishing never
// waits for anyone. A subscriber whose queue is full is cut off with an error, never silently short of an event. Nothing is on disk.
package event

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"
)

const (
	kept  = 4096 // events for `since`
	queue = 4096 // events that a subscriber may lie behind
)

// Bus hands events to subscribers and keeps the last ones for `events --since`. Safe for many goroutines.
type Bus struct {
	mu          sync.Mutex
	ring        []events.Message // oldest at next once it is full
	next        int
	last        time.Time
	subscribers map[*subscriber]struct{}
}

// subscriber waits for events. Its channel is closed when the subscriber fell behind.
type subscriber struct{ queue chan events.Message }

// New returns a bus without events.
func New() *Bus { return &Bus{subscribers: map[*subscriber]struct{}{}} }

// Publish never blocks. Time is filled in; of two events the later one's is never the smaller.
func (b *Bus) Publish(t events.Type, a events.Action, id string, attributes map[string]string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	if !now.After(b.last) { // the clock was set back
		now = b.last.Add(1)
	}
	b.last = now
	copied := make(map[string]string, len(attributes))
	for k, v := range attributes {
		copied[k] = v
	}
	m := events.Message{Type: t, Action: a, Actor: events.Actor{ID: id, Attributes: copied}, Scope: "local", Time: now.Unix(), TimeNano: now.UnixNano()}
	if len(b.ring) < kept {
		b.ring = append(b.ring, m)
	} else {
		b.ring[b.next] = m
		b.next = (b.next + 1) % kept
	}
	for s := range b.subscribers {
		select {
		case s.queue <- m:
		default:
			close(s.queue)
			delete(b.subscribers, s)
		}
	}
}

// subscribe returns the past since a time and, from the same moment on, what is new.
func (b *Bus) subscribe(since time.Time) ([]events.Message, *subscriber) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var past []events.Message
	if !since.IsZero() {
		for i := range b.ring {
			m := b.ring[(b.next+i)%len(b.ring)]
			if m.TimeNano >= since.UnixNano() {
				past = append(past, m)
			}
		}
	}
	s := &subscriber{queue: make(chan events.Message, queue)}
	b.subscribers[s] = struct{}{}
	return past, s
}

func (b *Bus) leave(s *subscriber) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.subscribers, s)
}

// Subscribe calls fn for past events since (zero: none) and then for new ones, in order, until ctx ends, until is reached, or fn fails.
// With an until that has passed only the past is told. The end of ctx and reaching until are no errors. A subscriber that falls too far
// behind is told so by an error (errdefs.ErrResourceExhausted).
func (b *Bus) Subscribe(ctx context.Context, since, until time.Time, fn func(events.Message) error) error {
	past, s := b.subscribe(since)
	defer b.leave(s)
	for _, m := range past {
		if !until.IsZero() && m.TimeNano > until.UnixNano() {
			return nil
		}
		if err := fn(m); err != nil {
			return err
		}
	}
	var end <-chan time.Time
	if !until.IsZero() {
		left := time.Until(until)
		if left <= 0 {
			return nil
		}
		timer := time.NewTimer(left)
		defer timer.Stop()
		end = timer.C
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-end:
			return nil
		case m, ok := <-s.queue:
			if !ok {
				return fmt.Errorf("events: more than %d came while the last one was being handled, some are lost to this reader: %w", queue, errdefs.ErrResourceExhausted)
			}
			if err := fn(m); err != nil {
				return err
			}
		}
	}
}
