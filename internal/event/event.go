// Package event keeps and hands out what happened in the engine.
//
// The bus holds the last events, for those who ask for the past, and one bounded queue for each subscriber: publishing never
// waits for anyone. An event has all labels of its container, which an image may size: what is held is bounded in bytes, too. A subscriber whose queue is full misses events until it has read what is in it, and is told then how many: as an event of
// its own, type daemon and action lost, which clients print as any other. One that asks for a past that is held no more is told so
// too. Events belong to the owner of what they are about; who may see only their own hears of no others. Nothing is on disk.
package event

import (
	"context"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/moby/moby/api/types/events"

	"wherry.dev/wherry/internal/access"
)

const (
	kept  = 4096 // events for `since`
	queue = 4096 // events that a subscriber may lie behind

	keptBytes  = 16 << 20 // of all that are kept
	queueBytes = 16 << 20 // of those that a subscriber lies behind
)

// Bus hands events to subscribers and keeps the last ones for `events --since`. Safe for many goroutines.
type Bus struct {
	mu          sync.Mutex
	past        []owned // oldest first
	bytes       int     // of past
	missing     uint64  // events that all subscribers together have missed
	dropped     int64   // time of the newest event that is kept no more
	last        time.Time
	subscribers map[*subscriber]struct{}
}

// owned is an event with the owner of what it is about.
type owned struct {
	events.Message
	owner string
	bytes int
}

// sizeOf is about the memory that an event takes.
func sizeOf(m *events.Message) int {
	const message, pair = 256, 64 // without the texts
	n := message + len(m.Action) + len(m.Actor.ID)
	for k, v := range m.Actor.Attributes {
		n += pair + len(k) + len(v)
	}
	return n
}

// subscriber waits for events.
type subscriber struct {
	queue chan owned
	bytes atomic.Int64 // of what is in it
	scope access.Scope

	lost        uint64 // guarded by Bus.mu: events since the queue was full; there are no more in it from then on
	first, last int64  // times of the lost ones
}

// ActionLost is the action of an event that says how many events a reader has missed: attributes lost, from, until.
const ActionLost events.Action = "lost"

// lostEvent tells of events that are missing before it.
func lostEvent(attributes map[string]string) events.Message {
	now := time.Now()
	return events.Message{Type: events.DaemonEventType, Action: ActionLost, Actor: events.Actor{Attributes: attributes}, Scope: "local", Time: now.Unix(), TimeNano: now.UnixNano()}
}

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
	owner := copied[access.OwnerAttribute]
	delete(copied, access.OwnerAttribute)
	m := events.Message{Type: t, Action: a, Actor: events.Actor{ID: id, Attributes: copied}, Scope: "local", Time: now.Unix(), TimeNano: now.UnixNano()}
	o := owned{m, owner, sizeOf(&m)}
	b.keep(o)
	for s := range b.subscribers {
		if s.scope.Sees(owner) {
			b.missing += s.add(o)
		}
	}
}

// keep holds an event for those who ask later; the newest one always. The caller holds mu.
func (b *Bus) keep(o owned) {
	b.past = append(b.past, o)
	b.bytes += o.bytes
	for len(b.past) > kept || b.bytes > keptBytes && len(b.past) > 1 {
		b.dropped = b.past[0].TimeNano
		b.bytes -= b.past[0].bytes
		b.past[0] = owned{} // what it points at is free before the array is
		b.past = b.past[1:]
	}
}

// add never waits. Once the queue was full nothing more goes in, until the reader has come to its end and was told.
func (s *subscriber) add(o owned) (lost uint64) {
	if behind := s.bytes.Load(); s.lost == 0 && (behind == 0 || behind+int64(o.bytes) <= queueBytes) {
		s.bytes.Add(int64(o.bytes))
		select {
		case s.queue <- o:
			return 0
		default:
			s.bytes.Add(-int64(o.bytes))
		}
	}
	if s.lost == 0 {
		s.first = o.TimeNano
	}
	s.lost++
	s.last = o.TimeNano
	return 1
}

// Lost counts the events that subscribers have missed.
func (b *Bus) Lost() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.missing
}

// missed takes over what a subscriber has to be told of, once its queue is empty.
func (b *Bus) missed(s *subscriber) (m events.Message, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s.lost == 0 || len(s.queue) > 0 {
		return m, false
	}
	m = lostEvent(map[string]string{"lost": strconv.FormatUint(s.lost, 10), "from": stamp(s.first), "until": stamp(s.last)})
	s.lost = 0
	return m, true
}

func stamp(nanos int64) string { return time.Unix(0, nanos).UTC().Format(time.RFC3339Nano) }

// subscribe returns the past since a time and, from the same moment on, what is new.
func (b *Bus) subscribe(scope access.Scope, since time.Time) ([]events.Message, *subscriber) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var past []events.Message
	if !since.IsZero() {
		if b.dropped >= since.UnixNano() {
			past = append(past, lostEvent(map[string]string{"lost": "unknown", "from": stamp(since.UnixNano()), "until": stamp(b.dropped)}))
		}
		for _, m := range b.past {
			if m.TimeNano >= since.UnixNano() && scope.Sees(m.owner) {
				past = append(past, m.Message)
			}
		}
	}
	s := &subscriber{queue: make(chan owned, queue), scope: scope}
	b.subscribers[s] = struct{}{}
	return past, s
}

// Subscribers is how many wait for events now.
func (b *Bus) Subscribers() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.subscribers)
}

func (b *Bus) leave(s *subscriber) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.subscribers, s)
}

// Subscribe calls fn for past events since (zero: none) and then for new ones, in order, until ctx ends, until is reached, or fn fails.
// With an until that has passed only the past is told. The end of ctx and reaching until are no errors. A subscriber that falls too far
// behind gets an event of ActionLost in the place of those that it missed; so does one whose since is before what is kept.
func (b *Bus) Subscribe(ctx context.Context, since, until time.Time, fn func(events.Message) error) error {
	past, s := b.subscribe(access.ScopeOf(ctx), since)
	defer b.leave(s)
	for _, m := range past {
		if !until.IsZero() && m.TimeNano > until.UnixNano() && m.Action != ActionLost {
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
		if m, ok := b.missed(s); ok {
			if err := fn(m); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-end:
			return nil
		case o := <-s.queue:
			err := fn(o.Message)
			s.bytes.Add(-int64(o.bytes)) // with the reader it is still held
			if err != nil {
				return err
			}
		}
	}
}
