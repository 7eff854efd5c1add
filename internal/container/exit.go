package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"

	"wherry.dev/wherry/internal/task"
)

const (
	firstBackoff = 100 * time.Millisecond
	maxBackoff   = time.Minute
	// steady is how long a container has to run for its restarts to begin anew.
	steady = 10 * time.Second
)

// watch waits for a task's end.
func (l life) watch(ctx context.Context, t *task.Task) {
	exit, err := t.Follow(ctx, func(o task.OOM) { noteShortage(l, o) })
	if err != nil {
		return // the engine closes; its next life finds the task again
	}
	l.c.op.Lock()
	defer l.c.op.Unlock()
	l.ended(ctx, t, exit)
}

// ended records an exit and does what follows from it; the caller holds op. t is nil where no task is left.
func (l life) ended(ctx context.Context, t *task.Task, exit task.Exit) {
	c, s := l.c, l.s
	c.mu.Lock()
	if c.task != t {
		c.mu.Unlock()
		return
	}
	c.task = nil
	c.mu.Unlock()
	ctx, done := s.lives.outlive(ctx)
	defer done()
	l.stopHealth()
	before := c.record()
	if before.bridged() {
		s.log(s.o.Networks.Release(ctx, c.id))
	}
	idleVolumes(ctx, s, before)
	s.log(c.pinOutput())
	s.log(remember(l, before, exit))
	next, wait := Exited, time.Duration(0)
	anew := c.isKept() // by who is waiting for this end
	if s.halting.Load() {
		anew = true // the next boot's engine starts what is to run
	}
	if after, again := againAfter(c, before.Stopped || anew); again {
		next, wait = Restarting, after
	} else if !anew && before.wantsAgain(exit.Code) {
		next, wait = Restarting, c.nextBackoff(exit.At.Sub(before.StartedAt))
	}
	settleHealth(c, next == Restarting)
	r, unwritten := c.settleAndTell(func(r *Record) {
		r.Status, r.Pid, r.ExitCode, r.FinishedAt = next, 0, exit.Code, exit.At.UTC()
		r.OOMKilled, r.OOMVictim, r.Health = exit.OOMKilled, exit.OOMVictim, c.healthState()
		if exit.Lost {
			r.Error = "its supervisor was gone: the container was ended, how its program did is not known"
		}
	}, func(r *Record) { tellEnd(s, r, exit) })
	c.answerExit(exited(r))
	if exit.OutputLost > 0 {
		s.log(fmt.Errorf("%d bytes of what container %s printed last are missing in its log, which could not be written", exit.OutputLost, r.Name))
	}
	switch {
	case t == nil:
	case unwritten != nil: // its folder says how it has ended, to an engine's next life
		s.log(errors.Join(unwritten, t.Close()))
	case next != Restarting && r.HostConfig.AutoRemove && !c.isKept():
		s.log(l.dispose(ctx, t))
		return
	default:
		s.log(t.Delete(ctx))
	}
	s.log(removeSharedMemory(s.o.sharedMemory(c.id)))
	switch {
	case next == Restarting:
		l.restartAfter(ctx, wait)
	case r.HostConfig.AutoRemove && !c.isKept():
		s.log(l.removeNow(ctx, RemoveOptions{Volumes: true}))
	}
}

// noteShortage records and publishes that the kernel has killed a process of a container that lives on, for now.
func noteShortage(l life, o task.OOM) {
	l.c.settleAndTell(func(r *Record) { r.OOMKilled, r.OOMVictim = true, o.Victim },
		func(r *Record) { l.s.publish(r, events.ActionOOM, "victim", r.OOMVictim) })
}

// tellEnd publishes an end, and that memory was short where nobody has said so yet.
func tellEnd(s *Service, r *Record, exit task.Exit) {
	if exit.OOMUntold {
		s.publish(r, events.ActionOOM, "victim", r.OOMVictim)
	}
	tellVolumes(s, r, events.ActionUnmount)
	s.publish(r, events.ActionDie, "exitCode", strconv.Itoa(r.ExitCode), "execDuration", strconv.Itoa(int(r.FinishedAt.Sub(r.StartedAt).Seconds())))
}

// wantsAgain says whether the restart policy wants another start after an exit.
func (r *Record) wantsAgain(code int) bool {
	p := r.HostConfig.RestartPolicy
	switch {
	case r.Stopped:
		return false
	case p.IsAlways(), p.IsUnlessStopped():
		return true
	case p.IsOnFailure():
		return code != 0 && (p.MaximumRetryCount == 0 || r.RestartCount < p.MaximumRetryCount)
	}
	return false
}

// policy is what is in memory of a container's restarts; Container.mu guards it.
type policy struct {
	pending func()        // ends the wait for the next start; nil without one
	backoff time.Duration // the last wait
	keep    bool          // an exit does not remove the container: it is being restarted

	again     bool          // it is being ended because it is unhealthy, to be started again
	unhealthy time.Duration // the last wait for that; 0: it has been healthy since
}

// nextBackoff is how long to wait for the next start.
func (c *Container) nextBackoff(ran time.Duration) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if ran >= steady || c.policy.backoff == 0 {
		c.policy.backoff = firstBackoff
	} else {
		c.policy.backoff = min(2*c.policy.backoff, maxBackoff)
	}
	return c.policy.backoff
}

// cancelRestart ends the wait of a restart policy; false when there was none.
func (c *Container) cancelRestart() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.policy.backoff, c.policy.unhealthy = 0, 0
	if c.policy.pending == nil {
		return false
	}
	c.policy.pending()
	c.policy.pending = nil
	return true
}

func (c *Container) isKept() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.policy.keep
}

func (c *Container) setKept(keep bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.policy.keep = keep
}

// restartAfter starts a container that is Restarting after a while, unless somebody decides otherwise meanwhile.
func (l life) restartAfter(ctx context.Context, wait time.Duration) {
	c := l.c
	cancelled := make(chan struct{})
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.policy.pending != nil {
		return
	}
	c.policy.pending = sync.OnceFunc(func() { close(cancelled) })
	l.s.lives.run(ctx, func(ctx context.Context) {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-cancelled:
			return
		case <-ctx.Done():
			return
		}
		select {
		case <-l.s.opened: // starts wait until what is left of earlier lives is known
		case <-ctx.Done():
			return
		}
		c.op.Lock()
		defer c.op.Unlock()
		select {
		case <-cancelled:
		default:
			l.restartByPolicy(ctx)
		}
	})
}

// restartByPolicy starts a container that its policy wants running. A start that fails is tried again like a program that does.
func (l life) restartByPolicy(ctx context.Context) {
	c := l.c
	c.mu.Lock()
	c.policy.pending = nil
	c.mu.Unlock()
	if c.record().Status != Restarting || l.s.halting.Load() {
		return
	}
	err := l.start(ctx, startOptions{byPolicy: true})
	if err == nil || errors.Is(err, errClosed) { // the next life tries again
		return
	}
	r := c.record()
	l.s.log(fmt.Errorf("restart container %s: %w", r.Name, err))
	if r.wantsAgain(r.ExitCode) {
		l.restartAfter(ctx, c.nextBackoff(0))
		return
	}
	r = c.settle(func(r *Record) { r.Status = Exited })
	c.audience.answer(exited(r), waitsForExit)
}

// settle changes the record for what has happened already: in memory also where the disk does not take it. Of a container with --rm it is
// in memory only: an engine that finds its record removes it in any case.
func (c *Container) settle(fn func(*Record)) *Record {
	r, _ := c.settleAndTell(fn, nil)
	return r
}

// settleAndTell is settle with what is to be published of it (see set). The error is that of writing the record.
func (c *Container) settleAndTell(fn, tell func(*Record)) (*Record, error) {
	c.disk.Lock()
	defer c.disk.Unlock()
	next := *c.rec.Load()
	fn(&next)
	var err error
	if !next.HostConfig.AutoRemove {
		if err = next.write(c.dir, false); errors.Is(err, os.ErrNotExist) {
			err = nil
		}
		if c.disk.stale = err; err != nil {
			next.Error = err.Error()
		}
	}
	c.set(&next, tell)
	return &next, err
}

func (c *Container) isGone() bool {
	select {
	case <-c.gone:
		return true
	default:
		return false
	}
}

func busy(r *Record, what string) error {
	return fail(errdefs.ErrConflict, "container %s is %s", r.Name, what)
}
