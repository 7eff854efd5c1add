package container

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"wherry.dev/wherry/internal/forward"
	"wherry.dev/wherry/internal/logs"
)

// Output of containers with --log-driver journald, syslog, fluentd or gelf is kept as that of all others is, and sent from there:
//
//	shim ──▶ log on the disk ──▶ reader ──▶ lines ──▶ target
//	                                │
//	                                └─ place, noted each second in the container's folder
//
// So nothing waits for a target that is slow or away, logs and attach work with all drivers, and what was not sent is sent by the engine's next life, or when the
// target is back, as long as the log has it. After a kill -9 of the engine the lines of the last second may be sent twice.

// forwardedFile is the note of what has been sent.
const forwardedFile = "forwarded.json"

// How a target that does not answer is treated: tried again, by and by more seldom; after triesHeld of them the log is not held any more.
const (
	retryFirst = 200 * time.Millisecond
	retryLast  = 30 * time.Second
	triesHeld  = 8
	noteEvery  = time.Second
)

// sent is how far a log has been sent.
type sent struct {
	Place logs.Place
	Lines int // that were sent of what is behind Place, where a line had begun and has no end yet
}

// beginSending says whether nobody sends a container's output yet.
func (l *lives) beginSending(id string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sending[id] {
		return false
	}
	if l.sending == nil {
		l.sending = map[string]bool{}
	}
	l.sending[id] = true
	return true
}

// endSending says that nobody does so any more, unless more says that there is reason to go on.
func (l *lives) endSending(id string, more func() bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if more() {
		return false
	}
	delete(l.sending, id)
	return true
}

// sendOutput sends the container's output for as long as it runs, and what is left of earlier lives. The container is not removed before it returns; what it
// prints is read from then on also when it is, however soon.
func sendOutput(ctx context.Context, l life) {
	if !forward.Is(l.c.record().HostConfig.LogConfig.Type) || !l.s.lives.beginSending(l.c.id) {
		return
	}
	f := &forwarding{life: l}
	if b, err := os.ReadFile(f.path()); err == nil {
		_ = json.Unmarshal(b, &f.sent) // a damaged note: all is sent once more
	}
	first := f.open()
	if !l.s.lives.run(ctx, func(ctx context.Context) {
		for reader := first; ; reader = nil {
			exits := exitsOf(l.c)
			f.follow(ctx, reader)
			again := func() bool {
				return ctx.Err() == nil && !l.c.isGone() && (l.c.record().Status.Alive() || exitsOf(l.c) != exits)
			}
			if l.s.lives.endSending(l.c.id, again) {
				return
			}
		}
	}) && first != nil {
		l.c.closeLog(first)
	}
}

// exitsOf is how many lives have ended while this engine runs.
func exitsOf(c *Container) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.past.exits
}

// forwarding is one container's.
type forwarding struct {
	life
	target forward.Target // nil: to be made
	sent   sent
	noted  sent
	when   time.Time // of the last note
	piece  int       // numbers long lines
	told   bool      // that the target is away
}

func (f *forwarding) path() string { return filepath.Join(f.c.dir, forwardedFile) }

// follow sends one life's output, or what is there of ended ones, by a reader, or one that it opens (nil). It returns at the end of that, of the engine, or
// of the container.
func (f *forwarding) follow(ctx context.Context, reader *logs.Reader) {
	over, cancel := f.c.untilOver(ctx)
	defer cancel()
	if !f.c.record().Status.Alive() {
		cancel()
	}
	defer func() {
		f.drop()
		f.note(ctx, true)
	}()
	for {
		if reader == nil {
			f.alone(ctx, func() { reader = f.open() })
		}
		if reader == nil { // it is gone, or cannot be read now
			f.rest(ctx)
			return
		}
		err := f.pump(ctx, over, reader)
		f.c.closeLog(reader)
		reader = nil
		if err == nil || ctx.Err() != nil {
			return
		}
		for f.dial() != nil { // nothing is held for it meanwhile
			if f.rest(ctx); ctx.Err() != nil {
				return
			}
			if f.c.isGone() {
				f.s.log(fmt.Errorf("container %s is removed, and what of its output could not be sent is lost: %w", f.c.record().Name, err))
				return
			}
		}
	}
}

// rest waits a while, unless there is no more to wait for.
func (f *forwarding) rest(ctx context.Context) {
	select {
	case <-time.After(retryLast):
	case <-ctx.Done():
	case <-f.c.gone:
	}
}

// alone calls fn while nothing else is done to the container; not where it is gone, or the engine ends.
func (f *forwarding) alone(ctx context.Context, fn func()) {
	for !f.c.op.TryLock() {
		if f.c.isGone() || ctx.Err() != nil {
			return
		}
		time.Sleep(time.Millisecond)
	}
	defer f.c.op.Unlock()
	if !f.c.isGone() {
		fn()
	}
}

// open begins to read where sending is to begin; nil where that cannot be. The container is not removed meanwhile: its folder would be made anew.
func (f *forwarding) open() *logs.Reader {
	reader, err := f.c.openLog(logs.ReadOptions{Follow: &f.s.followers, Lives: true, From: f.sent.Place})
	if err != nil {
		f.s.log(err)
		return nil
	}
	if reader.Lost(f.sent.Place) {
		f.s.log(fmt.Errorf("output of container %s was rotated away before it was sent: its target was away for too long", f.c.record().Name))
		f.sent = sent{}
	}
	return reader
}

func (f *forwarding) dial() (err error) {
	if f.target == nil {
		r := f.c.record()
		f.target, err = forward.Dial(r.HostConfig.LogConfig.Type, r.HostConfig.LogConfig.Config, about(r))
	}
	return err
}

func (f *forwarding) drop() {
	if f.target != nil {
		_ = f.target.Close()
		f.target = nil
	}
}

// deliver sends a message, by as many connections as it takes; an error says that the target is away for long.
func (f *forwarding) deliver(ctx context.Context, m *forward.Message) error {
	pause := retryFirst
	for tries := 1; ; tries++ {
		err := f.dial()
		if err == nil {
			if err = f.target.Send(m); err == nil {
				f.told = false
				return nil
			}
			f.drop()
		}
		if tries == 2 && !f.told {
			f.told = true
			f.s.log(fmt.Errorf("send the output of container %s: %w: it is kept, and tried again", f.c.record().Name, err))
		}
		if tries > triesHeld {
			return err
		}
		select {
		case <-time.After(pause):
			pause = min(2*pause, retryLast)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// pump sends lines until the log's end, once over has ended. An error is the target's.
func (f *forwarding) pump(ctx, over context.Context, reader *logs.Reader) error {
	var split logs.Splitter
	lines, skip := 0, f.sent.Lines
	line := func(line logs.Line) error {
		if lines++; lines <= skip {
			return nil
		}
		if err := f.send(ctx, line); err != nil {
			return err
		}
		f.sent.Lines = lines
		return nil
	}
	for {
		e, err := reader.Next(over)
		if err != nil {
			if ctx.Err() == nil && (errors.Is(err, io.EOF) || over.Err() != nil) {
				if err := split.Flush(line); err != nil {
					return err
				}
				f.sent = sent{Place: reader.Place()}
			} else if ctx.Err() == nil {
				f.s.log(fmt.Errorf("read the output of container %s, to send it: %w", f.c.record().Name, err))
				f.rest(ctx)
			}
			return nil
		}
		if err := split.Add(e, line); err != nil {
			return err
		}
		if !split.Pending() {
			f.sent, lines, skip = sent{Place: reader.Place()}, 0, 0
		}
		f.note(ctx, false)
	}
}

// send sends a line, in pieces where it is long.
func (f *forwarding) send(ctx context.Context, line logs.Line) error {
	text := bytes.TrimSuffix(line.Text, []byte("\n"))
	m := forward.Message{Time: line.Time, Stderr: line.Stream == logs.Stderr}
	if len(text) <= forward.MostText {
		m.Text = text
		return f.deliver(ctx, &m)
	}
	f.piece++
	id := fmt.Sprintf("%.12s-%d-%d", f.c.id, line.Time.UnixNano(), f.piece)
	for n := 1; len(text) > 0; n++ {
		m.Text = text[:min(len(text), forward.MostText)]
		text = text[len(m.Text):]
		m.Partial = &forward.Partial{ID: id, Ordinal: n, Last: len(text) == 0}
		if err := f.deliver(ctx, &m); err != nil {
			return err
		}
	}
	return nil
}

// note writes down what has been sent, once a second, or now. Nobody removes the container meanwhile.
func (f *forwarding) note(ctx context.Context, now bool) {
	if f.sent == f.noted || !now && time.Since(f.when) < noteEvery {
		return
	}
	write := func() {
		f.when = time.Now()
		b, err := json.Marshal(f.sent)
		if err == nil {
			err = os.WriteFile(f.path()+".new", b, 0o600)
		}
		if err == nil {
			err = os.Rename(f.path()+".new", f.path())
		}
		if err != nil {
			f.s.log(fmt.Errorf("note what output of container %s was sent: %w", f.c.record().Name, err))
			return
		}
		f.noted = f.sent
	}
	switch {
	case now:
		f.alone(context.WithoutCancel(ctx), write)
	case f.c.op.TryLock(): // else the next second's
		if !f.c.isGone() {
			write()
		}
		f.c.op.Unlock()
	}
}

// about is what messages and tags say of a container.
func about(r *Record) forward.About {
	return forward.About{FullID: r.ID, Name: r.Name, ImageFullID: r.Image.ID.String(), ImageName: r.Config.Image, Command: strings.Join(r.command(), " "),
		Created: r.Created, Labels: r.Config.Labels, Env: r.Config.Env}
}
