package container

import (
	"context"
	"errors"
	"io"
	"os"
	"sync/atomic"
	"time"

	"github.com/moby/moby/api/types/events"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/ready"
	"wherry.dev/wherry/internal/task"
)

const (
	// execDrain is how long an exec's output is waited for after its process has exited: what it left behind may hold its pipes for ever.
	execDrain = 300 * time.Millisecond
	// maxPipe bounds what is still read from a pipe after that: what was in it.
	maxPipe = 1 << 20
)

// session is a running exec: its process and its streams. It outlives the client's request; what moves output belongs to the service.
type session struct {
	s       *Service
	e       *execution
	process *task.Process
	in      io.Reader // the client's input
	stdin   *os.File  // the process's; the terminal with one
	outlets []*outlet
	ready   *ready.List   // which of the outlets, where they are pipes; nil: there are none, or a terminal
	waited  chan struct{} // closed when the process has exited, or the engine closes
	drained chan struct{} // closed when the process's own output has been passed on
}

// outlet moves one stream of a process to the client for as long as there is one, and to nowhere afterwards: a process never waits for a
// client that has gone.
type outlet struct {
	from *os.File
	to   io.Writer
	gone atomic.Bool
}

func newOutlet(from *os.File, to io.Writer) *outlet {
	o := &outlet{from: from, to: to}
	o.gone.Store(to == nil)
	return o
}

func (n *session) stdout(o ExecStreams) io.Writer {
	if o.Detach || !n.e.request.AttachStdout && !n.e.request.Tty {
		return nil
	}
	return o.Stdout
}

// open makes the pipes of what is attached; the process's ends are the caller's to close. A terminal is made by the shim.
func (n *session) open(o ExecStreams) (theirs [3]*os.File, err error) {
	q := n.e.request
	if q.AttachStdin && !o.Detach {
		n.in = o.Stdin
	}
	if q.Tty {
		return theirs, nil
	}
	if n.in != nil {
		if theirs[0], n.stdin, err = os.Pipe(); err != nil {
			return theirs, err
		}
	}
	to := [3]io.Writer{1: n.stdout(o)}
	if q.AttachStderr && !o.Detach {
		to[2] = o.Stderr
	}
	var pipes []*os.File
	for i := 1; i <= 2; i++ {
		if to[i] == nil {
			continue
		}
		var from *os.File
		if from, theirs[i], err = ready.Pipe(); err != nil {
			return theirs, err
		}
		n.outlets = append(n.outlets, newOutlet(from, to[i]))
		pipes = append(pipes, from)
	}
	if len(pipes) > 0 {
		n.ready, err = ready.New(pipes...)
	}
	return theirs, err
}

// close gives up streams whose process does not run.
func (n *session) close() {
	if n.stdin != nil {
		n.stdin.Close()
	}
	for _, o := range n.outlets {
		o.from.Close()
	}
	if n.ready != nil {
		n.ready.Close()
	}
}

// run starts what follows the process to its end; false: the service is closed.
func (n *session) run(ctx context.Context) bool {
	move := func(context.Context) { close(n.drained) }
	switch {
	case n.ready != nil:
		move = n.move
	case len(n.outlets) > 0:
		move = n.moveTerminal
	}
	if !n.s.lives.run(ctx, move) {
		return false
	}
	return n.s.lives.run(ctx, n.wait)
}

// wait notes the exec's end.
func (n *session) wait(ctx context.Context) {
	defer close(n.waited)
	code, err := n.process.Wait(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return // the engine closes: its next life finds the exec again
		}
		code = 137 // the container has ended, and its shim with it
	}
	n.giveUp(time.Now().Add(execDrain))
	n.e.end(n.s, code)
}

// serve moves the client's input until the process has exited and all output was passed on, or the client lets go.
func (n *session) serve(ctx context.Context) error {
	defer n.letGo()
	var typed chan error
	if n.in != nil && n.stdin != nil {
		typed = make(chan error, 1)
		go func() { typed <- n.feed() }() // ends with the client's connection, which the caller closes
	}
	ends := []chan struct{}{n.waited, n.drained}
	for len(ends) > 0 {
		select {
		case <-ends[0]:
			ends = ends[1:]
		case err := <-typed:
			if errors.Is(err, errDetached) {
				n.s.publish(n.e.c.record(), events.ActionExecDetach, "execID", n.e.id)
				return nil
			}
			typed = nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// feed copies the client's input; its end is the end of the process's, but on a terminal, where the process goes on.
func (n *session) feed() error {
	if n.e.request.Tty {
		_, err := io.Copy(n.stdin, newDetacher(n.in, n.e.keys))
		return err
	}
	defer n.stdin.Close()
	_, err := io.Copy(n.stdin, n.in)
	return err
}

// letGo forgets the client: the process goes on without input, and its output leads nowhere.
func (n *session) letGo() {
	for _, o := range n.outlets {
		o.gone.Store(true)
	}
	if n.stdin != nil && !n.e.request.Tty {
		n.stdin.Close()
	}
}

// giveUp ends the reading of output at that time; the zero time: not at all.
func (n *session) giveUp(at time.Time) {
	if n.ready != nil {
		n.ready.GiveUp(at)
		return
	}
	for _, o := range n.outlets {
		_ = o.from.SetReadDeadline(at)
	}
}

// move passes on what comes through the pipes, in the order of the writes as far as that is to be known, until their end, or until the process has
// exited and the drain is over. Then a process that was left behind is read from for as long as it lives: it is not ended by SIGPIPE.
func (n *session) move(ctx context.Context) {
	stop := context.AfterFunc(ctx, n.ready.Close)
	defer func() {
		stop()
		n.ready.Close()
		for _, o := range n.outlets {
			o.from.Close()
		}
	}()
	buf := make([]byte, 32<<10)
	n.pass(buf, n.ready.Next)
	held := n.ready.Left()
	if held { // what a slow client has kept in the pipes past the deadline
		total := 0
		n.pass(buf, func() (int, bool) {
			if total++; total > len(n.outlets)*maxPipe/len(buf) {
				return 0, false
			}
			return n.ready.Now()
		})
	}
	close(n.drained)
	if held {
		for _, o := range n.outlets {
			o.gone.Store(true)
		}
		n.giveUp(time.Time{})
		n.pass(buf, n.ready.Next)
	}
}

// pass moves output for as long as next names an outlet.
func (n *session) pass(buf []byte, next func() (int, bool)) {
	for {
		i, ok := next()
		if !ok {
			return
		}
		o := n.outlets[i]
		count, err := ready.Read(o.from, buf)
		switch {
		case err == unix.EAGAIN: // what was announced has been read already
			continue
		case err != nil || count == 0:
			n.ready.End(i)
			continue
		}
		o.write(buf[:count])
		if count == len(buf) || n.ready.Hung(i) {
			n.ready.Again(i)
		}
	}
}

// moveTerminal is move of what comes from the one outlet that a terminal is.
func (n *session) moveTerminal(ctx context.Context) {
	o := n.outlets[0]
	defer o.from.Close()
	stop := context.AfterFunc(ctx, func() { o.from.Close() })
	defer stop()
	buf := make([]byte, 32<<10)
	err := o.pass(buf)
	held := errors.Is(err, os.ErrDeadlineExceeded)
	if held {
		o.rest(buf)
	}
	close(n.drained)
	if held {
		n.giveUp(time.Time{})
		_, _ = io.Copy(io.Discard, o.from)
	}
}

// pass moves output until nothing more can be read.
func (o *outlet) pass(buf []byte) error {
	for {
		n, err := o.from.Read(buf)
		o.write(buf[:n])
		if err != nil {
			return err
		}
	}
}

// rest moves what is in the terminal: a slow client has kept it there past the deadline.
func (o *outlet) rest(buf []byte) {
	raw, err := o.from.SyscallConn()
	if err != nil {
		return
	}
	for total := 0; total < maxPipe; {
		n := 0
		if raw.Control(func(fd uintptr) { n, err = unix.Read(int(fd), buf) }) != nil || err != nil || n <= 0 {
			return
		}
		o.write(buf[:n])
		total += n
	}
}

func (o *outlet) write(p []byte) {
	if len(p) == 0 || o.gone.Load() {
		return
	}
	if _, err := o.to.Write(p); err != nil {
		o.gone.Store(true)
	}
}
