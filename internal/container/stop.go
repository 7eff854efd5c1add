package container

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"

	"wherry.dev/wherry/internal/cgroup"
	"wherry.dev/wherry/internal/spec"
	"wherry.dev/wherry/internal/task"
	"wherry.dev/wherry/internal/why"
)

const (
	defaultTimeout = 10 * time.Second
	// killLimit is how long a container may take to be dead after SIGKILL before somebody is told.
	killLimit = 30 * time.Second
	// answerLimit is how long a shim may take to answer.
	answerLimit = 3 * time.Second
	// abandonAfter is how long a shim may take to tell of a container whose processes are all dead.
	abandonAfter = 3 * time.Second
	sigkill      = 9
	sigterm      = 15
)

// StopOptions: a nil Timeout is the container's own (else 10 s), -1 waits for ever; an empty Signal is the container's own.
type StopOptions struct {
	Signal  string
	Timeout *int
}

// stopping is one end of a container that somebody asked for.
type stopping struct {
	life
	r     *Record
	task  *task.Task // nil while the shim of an earlier engine's life has not answered
	exits int        // how often it had ended before
}

// Stop ends a container: its stop signal, and SIGKILL after the timeout. errdefs.ErrNotModified when it does not run.
func (s *Service) Stop(ctx context.Context, id string, o StopOptions) error {
	c, err := s.index.find(id)
	if err != nil {
		return err
	}
	r, err := life{s, c}.stop(asking(ctx, why.AskStop), o)
	if err == nil {
		s.publish(r, events.ActionStop)
	}
	if err == nil || errdefs.IsNotModified(err) && r.Status == Exited {
		err = cmp.Or(c.remembered(), err)
	}
	return err
}

// remembered is an error where the engine's next life would not know that the container was stopped, and start it: neither its record nor the mark
// beside its shim could be written.
func (c *Container) remembered() error {
	c.disk.Lock()
	defer c.disk.Unlock()
	r := c.record()
	if p := r.HostConfig.RestartPolicy; c.disk.stale != nil && (p.IsUnlessStopped() || p.IsOnFailure()) && !exists(c.stoppedMark()) {
		return plain(fmt.Errorf("container %s is stopped, and that could not be written down: its restart policy %s will start it again with the engine, unless it is stopped once more when its record can be written: %w",
			r.Name, p.Name, c.disk.stale))
	}
	return nil
}

func (l life) stop(ctx context.Context, o StopOptions) (*Record, error) {
	signal, timeout, err := stopRules(l.c.record(), o)
	if err != nil {
		return nil, err
	}
	n, err := l.beginStop()
	if n == nil {
		return l.c.record(), err
	}
	if timeout >= 0 { // a client that has gone does not leave the container half stopped
		lasting, done := l.s.lives.outlive(ctx)
		defer done()
		ctx = lasting
	}
	return n.end(ctx, signal, timeout)
}

// end sends a signal, and SIGKILL after the timeout.
func (n *stopping) end(ctx context.Context, signal int, timeout time.Duration) (*Record, error) {
	n.signal(ctx, signal)
	if n.r.Status == Paused { // it can only answer the signal when it runs
		if g, err := cgroup.Open(n.s.o.cgroupPath(n.r)); err == nil {
			n.s.log(g.Thaw(ctx))
		}
	}
	if timeout != 0 && n.c.waitExit(ctx, n.exits, max(timeout, 0)) {
		return n.c.record(), nil
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return n.c.record(), n.kill(ctx)
}

// stopRules are the signal and the timeout: 0 kills at once, negative waits for ever.
func stopRules(r *Record, o StopOptions) (signal int, timeout time.Duration, err error) {
	text := o.Signal
	if text == "" {
		text = r.Config.StopSignal
	}
	signal = sigterm
	if text != "" {
		if signal, err = spec.ParseSignal(text); err != nil {
			return 0, 0, err
		}
	}
	timeout = defaultTimeout
	if t := r.Config.StopTimeout; t != nil {
		timeout = time.Duration(*t) * time.Second
	}
	if o.Timeout != nil {
		timeout = time.Duration(*o.Timeout) * time.Second
	}
	return signal, timeout, nil
}

// beginStop notes that the user wants the container stopped, so that its policy lets it be. A nil stopping: there is nothing to wait for.
func (l life) beginStop() (*stopping, error) {
	c := l.c
	c.op.Lock()
	defer c.op.Unlock()
	r := c.record()
	switch {
	case c.isGone():
		return nil, noSuchContainer(r.ID)
	case r.Status == Restarting:
		c.cancelRestart()
		r = l.noteStopped(func(r *Record) { r.Status = Exited })
		c.audience.answer(exited(r), waitsForExit)
		return nil, nil
	case !r.Status.Alive():
		if r.Status == Exited && !r.HostConfig.RestartPolicy.IsNone() && (!r.Stopped || c.remembered() != nil) {
			l.noteStopped(nil)
		}
		return nil, fmt.Errorf("container %s is not running: %w", r.Name, errdefs.ErrNotModified)
	}
	r = l.noteStopped(nil)
	c.mu.Lock()
	defer c.mu.Unlock()
	return &stopping{life: l, r: r, task: c.task, exits: c.past.exits}, nil
}

// alive is the container's present run.
func (l life) alive() (*stopping, error) {
	l.c.mu.Lock()
	defer l.c.mu.Unlock()
	r := l.c.rec.Load()
	if l.c.task == nil || !r.Status.Alive() {
		return nil, notRunning(r)
	}
	return &stopping{life: l, r: r, task: l.c.task, exits: l.c.past.exits}, nil
}

// noteStopped records the user's wish: on the disk where a policy would start the container again after a power cut. Who has a container
// started anew does not want it stopped: an engine that is killed in the middle of that leaves it to its policy, then and later.
func (l life) noteStopped(more func(*Record)) *Record {
	anew := l.c.isKept()
	if anew && more == nil {
		return l.c.record()
	}
	note := func(r *Record) error {
		r.Stopped = r.Stopped || !anew
		if more != nil {
			more(r)
		}
		return nil
	}
	r, err := l.c.change(!l.c.record().HostConfig.RestartPolicy.IsNone(), note)
	if err != nil { // a full disk stops nobody from stopping
		l.s.log(errors.Join(err, os.WriteFile(l.c.stoppedMark(), nil, 0o600)))
		r = l.c.settle(func(r *Record) { _ = note(r) })
	}
	return r
}

// stoppedMark is there, beside what its shim knows of its end, where the user wants the container stopped and its record does not say it.
func (c *Container) stoppedMark() string { return filepath.Join(c.taskDir, "stopped") }

// signal says whether the shim has taken the signal, or the container has ended.
func (n *stopping) signal(ctx context.Context, signal int) bool {
	if n.task == nil {
		return false
	}
	n.note(ctx, signal)
	limited, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	err := n.task.Kill(limited, signal, signal == sigkill)
	if err != nil && n.c.waitExit(ctx, n.exits, time.Second) {
		return true
	}
	if err != nil {
		n.s.log(fmt.Errorf("signal container %s: %w", n.r.Name, err))
	}
	n.s.publish(n.r, events.ActionKill, "signal", strconv.Itoa(signal))
	return err == nil
}

// kill ends the container for sure, through its control group where the shim does not answer, and waits for it.
func (n *stopping) kill(ctx context.Context) error {
	if n.signal(ctx, sigkill) && n.c.waitExit(ctx, n.exits, killLimit/3) {
		return nil
	}
	g, err := cgroup.Open(n.s.o.cgroupPath(n.r))
	if err == nil {
		err = g.Kill()
	}
	if err == nil {
		limited, cancel := context.WithTimeout(ctx, killLimit)
		err = g.WaitEmpty(limited)
		cancel()
	}
	if err == nil && !n.c.waitExit(ctx, n.exits, abandonAfter) {
		err = task.Abandon(n.c.taskDir, n.r.Pid) // all are dead, and their shim does not say so
	}
	n.s.log(err)
	if n.c.waitExit(ctx, n.exits, killLimit/3) {
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return fmt.Errorf("container %s is not dead %s after SIGKILL: a process of it may hang in the kernel (see the state in ps), or its shim is stopped", n.r.Name, killLimit)
}

// Kill sends a signal to the container's first process. SIGKILL goes to all and is waited for.
func (s *Service) Kill(ctx context.Context, id, text string) error {
	c, err := s.index.find(id)
	if err != nil {
		return err
	}
	signal := sigkill
	if text != "" {
		if signal, err = spec.ParseSignal(text); err != nil {
			return err
		}
	}
	return life{s, c}.signalled(asking(ctx, why.AskKill), signal)
}

func (l life) signalled(ctx context.Context, signal int) error {
	stop, _, err := stopRules(l.c.record(), StopOptions{})
	if err != nil {
		return err
	}
	if signal == sigkill || signal == stop {
		n, err := l.beginStop()
		switch {
		case errdefs.IsNotModified(err):
			return notRunning(l.c.record())
		case n == nil:
			return err
		case signal == sigkill:
			return cmp.Or(n.kill(ctx), l.c.remembered())
		}
		return n.deliver(ctx, signal)
	}
	n, err := l.alive()
	if err != nil {
		return err
	}
	return n.deliver(ctx, signal)
}

func (n *stopping) deliver(ctx context.Context, signal int) error {
	if n.task == nil {
		return fail(errdefs.ErrUnavailable, "the shim of container %s does not answer (yet): try again, or remove the container by force", n.r.Name)
	}
	n.note(ctx, signal)
	err := n.task.Kill(ctx, signal, false)
	if err != nil && n.c.waitExit(ctx, n.exits, time.Second) {
		return notRunning(n.r) // it has just ended
	}
	if err != nil {
		return fmt.Errorf("send signal %d to container %s: %w", signal, n.r.Name, err)
	}
	n.s.publish(n.r, events.ActionKill, "signal", strconv.Itoa(signal))
	return nil
}

// Restart stops a container that runs, and starts it.
func (s *Service) Restart(ctx context.Context, id string, o StopOptions) error {
	c, err := s.index.find(id)
	if err != nil {
		return err
	}
	l := life{s, c}
	c.setKept(true)
	stopped, err := l.stop(asking(ctx, why.AskRestart), o)
	if err == nil {
		s.publish(stopped, events.ActionStop)
	}
	if err == nil || errdefs.IsNotModified(err) {
		err = l.startByUser(ctx, startOptions{})
	}
	c.setKept(false)
	if err != nil && !errdefs.IsNotModified(err) {
		return errors.Join(err, l.removeKept(ctx))
	}
	r := c.record()
	s.publish(r, events.ActionRestart, "restart", r.layerWord())
	return nil
}

// removeKept removes a container with --rm that has ended while its exit was not to remove it.
func (l life) removeKept(ctx context.Context) error {
	l.c.op.Lock()
	defer l.c.op.Unlock()
	if r := l.c.record(); !r.HostConfig.AutoRemove || r.Status != Exited || l.c.isGone() {
		return nil
	}
	return l.removeNow(ctx, RemoveOptions{Volumes: true})
}
