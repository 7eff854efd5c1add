// Package awake limits waiting by time in which this process ran.
//
// A host that stood still (a virtual machine that was paused and taken up again, a stopped engine) has let everybody stand still: the clock that
// timers go by went on, but a container that was given ten seconds to end has had none of them. State is a Limit's own; its methods are safe for use
// by several goroutines.
package awake

import (
	"sync"
	"time"
)

const (
	// slices is how many parts a limit is waited for in. Of a standstill no more than the part is counted that it fell into.
	slices = 16
	// longest is the longest part, and thus what a standstill can take away.
	longest = time.Second
	// shortest keeps short limits cheap.
	shortest = 5 * time.Millisecond
)

// Limit is a time limit that has begun.
type Limit struct {
	mu    sync.Mutex // guards what follows
	left  time.Duration
	slice time.Duration
	timer *time.Timer
	over  bool // passed, or stopped
	then  func()
}

// After calls then in a goroutine of its own once this process has run for d.
func After(d time.Duration, then func()) *Limit {
	l := &Limit{left: d, slice: min(max(d/slices, shortest), longest), then: then}
	l.mu.Lock() // the first part may pass before its timer is written down
	defer l.mu.Unlock()
	l.timer = time.AfterFunc(l.next(), l.passed)
	return l
}

// next takes a part off what is left. A part counts as long as it was to be, however late its timer comes.
func (l *Limit) next() time.Duration {
	part := min(l.left, l.slice)
	l.left -= part
	return part
}

func (l *Limit) passed() {
	l.mu.Lock()
	if l.over {
		l.mu.Unlock()
		return
	}
	if l.left > 0 {
		l.timer.Reset(l.next())
		l.mu.Unlock()
		return
	}
	l.over = true
	l.mu.Unlock()
	l.then()
}

// Stop ends the limit; what it calls may have been called already.
func (l *Limit) Stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = true
	l.timer.Stop()
}
