// Package event keeps and hands out what happened in the engine.
package event

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"
)

// kept is how many past events are remembered; a subscriber may fall as many behind.
const kept = 4096

// Bus hands events to subscribers and keeps the last ones for `events --since`. Safe for many goroutines.
type Bus struct {
	mu      sync.Mutex // guards what follows
	ring    []events.Message
	first   uint64        // number of ring[0] since the engine's start
	changed chan struct{} // closed and replaced at each event
}

// New makes an empty bus.
func New() *Bus { return &Bus{changed: make(chan struct{})} }

// Publish never blocks. Time is filled in.
func (b *Bus) Publish(t events.Type, a events.Action, id string, attributes map[string]string) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	m := events.Message{Type: t, Action: a, Actor: events.Actor{ID: id, Attributes: attributes}, Scope: "local", Time: now.Unix(), TimeNano: now.UnixNano()}
	if len(b.ring) == kept {
		b.ring, b.first = append(b.ring[:0:0], b.ring[kept/4:]...), b.first+kept/4
	}
	b.ring = append(b.ring, m)
	close(b.changed)
	b.changed = make(chan struct{})
}

// Subscribe calls fn for past events since (zero: none) and then for new ones, in order, until ctx ends, until is reached, or fn fails.
// A subscriber that falls too far behind is told so by an error.
func (b *Bus) Subscribe(ctx context.Context, since, until time.Time, fn func(events.Message) error) error {
	b.mu.Lock()
	next := b.first + uint64(len(b.ring))
	b.mu.Unlock()
	if !since.IsZero() {
		next = 0
	}
	var deadline <-chan time.Time
	if !until.IsZero() {
		timer := time.NewTimer(time.Until(until))
		defer timer.Stop()
		deadline = timer.C
	}
	for {
		list, changed, after, err := b.from(next, since)
		if err != nil {
			return err
		}
		next = after
		for _, m := range list {
			if at := time.Unix(0, m.TimeNano); at.Before(since) {
				continue
			} else if !until.IsZero() && at.After(until) {
				return nil
			}
			if err := fn(m); err != nil {
				return err
			}
		}
		if !until.IsZero() && !time.Now().Before(until) {
			return nil
		}
		select {
		case <-changed:
		case <-deadline:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// from copies the events from a number on.
func (b *Bus) from(next uint64, since time.Time) ([]events.Message, chan struct{}, uint64, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if next < b.first {
		if since.IsZero() {
			return nil, nil, 0, fmt.Errorf("%d events were lost: the client reads too slowly: %w", b.first-next, errdefs.ErrDataLoss)
		}
		next = b.first
	}
	list := append([]events.Message(nil), b.ring[next-b.first:]...)
	return list, b.changed, b.first + uint64(len(b.ring)), nil
}
