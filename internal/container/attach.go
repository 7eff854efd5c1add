package container

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"

	"wherry.dev/wherry/internal/logs"
	"wherry.dev/wherry/internal/task"
)

// AttachOptions of Attach. Streams that are nil are not attached. With a terminal all output goes to Stdout. Streams outlive the call
// where the client lets go before the container ends: reads and writes must then fail.
type AttachOptions struct {
	Stdin          io.Reader // read until EOF, then (StdinOnce) the container's stdin is closed
	Stdout, Stderr io.Writer
	Logs, Stream   bool   // replay what is there; follow what comes
	DetachKeys     string // "": ctrl-p,ctrl-q
	Ready          func() // called when attached: nothing printed after that is missed
	Drain          func() // waits, a moment at most, until the client has read what was written; nil: that it is written is enough
}

// attachment is one client of a container's streams.
type attachment struct {
	s      *Service
	c      *Container
	o      AttachOptions
	keys   []byte
	reader *logs.Reader
}

// Attach returns at the container's exit, at detach, or when ctx ends. Of a container that does not run, the next life is waited for. A
// client that reads slowly is waited for too, and nobody else waits for it: it reads the log.
func (s *Service) Attach(ctx context.Context, id string, o AttachOptions) error {
	c, err := s.index.find(id)
	if err != nil {
		return err
	}
	a := &attachment{s: s, c: c, o: o}
	if a.keys, err = parseDetachKeys(o.DetachKeys); err != nil {
		return err
	}
	over, cancel := c.untilOver(ctx)
	r := c.record()
	switch r.Status {
	case Paused:
		cancel()
		return fail(errdefs.ErrConflict, "container %s is paused, unpause the container before attach", r.ID)
	case Restarting:
		cancel()
		return fail(errdefs.ErrConflict, "container %s is restarting, wait until the container is running", r.ID)
	}
	reading := logs.ReadOptions{FromEnd: !o.Logs, Lives: true} // clients ask for the exit code when their stream ends: the record says it by then
	if o.Stream {
		reading.Follow = &s.followers
	}
	if a.reader, err = c.openLog(reading); err != nil {
		cancel()
		return err
	}
	got := c.audience.attach() // before anybody can start the container for it
	if o.Ready != nil {
		o.Ready()
	}
	if o.Stream {
		s.publish(r, events.ActionAttach)
	}
	moved := make(chan error, 1)
	ok := s.lives.run(ctx, func(life context.Context) {
		defer context.AfterFunc(life, cancel)()
		defer got()
		err := a.move(over)
		if err == nil && o.Drain != nil {
			o.Drain()
		}
		moved <- err
	})
	if !ok {
		got()
		cancel()
		c.closeLog(a.reader)
		return errClosed
	}
	defer cancel()
	return a.serve(ctx, moved)
}

// serve waits for the end of the output, or for what the client decides.
func (a *attachment) serve(ctx context.Context, moved chan error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	config := a.c.record().Config
	var typed chan error
	if a.o.Stream && a.o.Stdin != nil && config.OpenStdin {
		typed = make(chan error, 1)
		go func() { typed <- a.feed(ctx) }() // ends with the client's connection, which the caller closes
	}
	for {
		select {
		case err := <-moved:
			if err == nil {
				err = context.Cause(ctx) // a client that left ends the moving too
			}
			return err
		case err := <-typed:
			switch {
			case errors.Is(err, errDetached):
				a.s.publish(a.c.record(), events.ActionDetach)
				return nil
			case err == nil && (config.Tty || !config.StdinOnce):
				return nil // as Docker: who has said all to a container that goes on listening leaves
			}
			typed = nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// move passes output on until the container's life is over and all of it was passed on.
func (a *attachment) move(over context.Context) error {
	defer a.c.closeLog(a.reader)
	for {
		e, err := a.reader.Next(over)
		if errors.Is(err, io.EOF) || err != nil && over.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		w := a.o.Stdout
		if e.Stream == logs.Stderr {
			w = a.o.Stderr
		}
		if w == nil {
			continue
		}
		if _, err := w.Write(e.Data); err != nil {
			return err
		}
	}
}

// feed copies the client's input to the container, once that runs. nil: the client has closed its side.
func (a *attachment) feed(ctx context.Context) error {
	t, err := a.c.whenRunning(ctx)
	if err != nil {
		return err
	}
	stdin, err := t.Stdin(ctx)
	if err != nil || stdin == nil {
		return errors.Join(errNoStdin, err)
	}
	defer context.AfterFunc(ctx, func() { stdin.Close() })()
	defer stdin.Close()
	config := a.c.record().Config
	if config.Tty {
		_, err = io.Copy(stdin, newDetacher(a.o.Stdin, a.keys))
		return err
	}
	if _, err = io.Copy(stdin, a.o.Stdin); err != nil || !config.StdinOnce {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	return t.CloseStdin(ctx)
}

var errNoStdin = errors.New("the container's stdin is closed")

// whenRunning waits for the container's task.
func (c *Container) whenRunning(ctx context.Context) (*task.Task, error) {
	for {
		changed := c.next()
		if t, _, err := c.running(); err == nil {
			return t, nil
		}
		select {
		case <-changed:
		case <-c.gone:
			return nil, noSuchContainer(c.id)
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// untilOver returns a context that ends when the life that the container has, or has next, is over; also when its start fails, or it is
// removed. By then all of its output is in the log.
func (c *Container) untilOver(ctx context.Context) (context.Context, context.CancelFunc) {
	over, cancel := context.WithCancel(ctx)
	c.mu.Lock()
	before, exits, changed := c.rec.Load(), c.past.exits, c.changed
	c.mu.Unlock()
	go func() { // ends with over
		defer cancel()
		for {
			select {
			case <-changed:
			case <-c.gone:
				return
			case <-over.Done():
				return
			}
			c.mu.Lock()
			now, ended := c.rec.Load(), c.past.exits > exits
			changed = c.changed
			c.mu.Unlock()
			if ended || now.startFailed(before) {
				return
			}
		}
	}()
	return over, cancel
}

// startFailed says that since an earlier record a start was tried in vain.
func (r *Record) startFailed(before *Record) bool {
	return !r.Status.Alive() && r.Error != "" && r != before && r.Name == before.Name && r.HostConfig == before.HostConfig
}
