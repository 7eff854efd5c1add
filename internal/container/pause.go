package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/cgroup"
)

// freezeLimit is how long all processes of a container may take to stand still.
const freezeLimit = 10 * time.Second

// PauseOptions of Pause.
type PauseOptions struct {
	// Held: it is for something that the engine does meanwhile. The engine's end ends it too, as nobody has asked for it.
	Held bool
}

// Pause freezes all processes of a container.
func (s *Service) Pause(ctx context.Context, id string, o PauseOptions) error {
	c, err := s.index.find(id)
	if err != nil {
		return err
	}
	c.op.Lock()
	defer c.op.Unlock()
	r := c.record()
	switch {
	case r.Status == Paused:
		return fail(errdefs.ErrConflict, "Container %s is already paused", r.Name)
	case r.Status == Restarting:
		return fail(errdefs.ErrConflict, "Container %s is restarting, wait until the container is running", r.Name)
	case !r.Status.Alive():
		return notRunning(r)
	}
	l := life{s, c}
	pauseHealth(c)
	if err := l.freeze(ctx, r); err != nil {
		return err
	}
	pauseHealth(c) // also a probe that began meanwhile
	paused, err := c.become(Paused, false, func(r *Record) { r.Held = o.Held })
	if err != nil { // a full disk, or one that is read-only
		return errors.Join(err, thaw(context.WithoutCancel(ctx), l, r))
	}
	s.publish(paused, events.ActionPause)
	return nil
}

func (l life) freeze(ctx context.Context, r *Record) error {
	g, err := cgroup.Open(l.s.o.cgroupPath(r))
	if err != nil {
		return err
	}
	ctx, done := l.s.lives.outlive(ctx)
	defer done()
	ctx, cancel := context.WithTimeoutCause(ctx, freezeLimit, fmt.Errorf("not all have within %s", freezeLimit))
	defer cancel()
	err = g.Freeze(ctx)
	if err != nil && isGone(g) {
		return notRunning(r) // it has just ended
	}
	if err != nil {
		return fmt.Errorf("pause container %s: %w", r.Name, err)
	}
	return nil
}

func thaw(ctx context.Context, l life, r *Record) error {
	g, err := cgroup.Open(l.s.o.cgroupPath(r))
	if err != nil {
		return err
	}
	if err := g.Thaw(ctx); err != nil && !isGone(g) {
		return fmt.Errorf("unpause container %s: %w", r.Name, err)
	}
	return nil
}

// isGone says that the control group has been removed, as it is when a container ends.
func isGone(g *cgroup.Group) bool {
	_, err := g.Populated()
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV)
}

// Unpause lets them go on.
func (s *Service) Unpause(ctx context.Context, id string) error {
	c, err := s.index.find(id)
	if err != nil {
		return err
	}
	c.op.Lock()
	defer c.op.Unlock()
	r := c.record()
	if r.Status != Paused {
		return fail(errdefs.ErrConflict, "Container %s is not paused", r.Name)
	}
	l := life{s, c}
	if err := thaw(ctx, l, r); err != nil {
		return err
	}
	s.publish(noteGoingOn(l), events.ActionUnPause)
	return nil
}

// noteGoingOn records that a container does not stand still any more, in memory also where the disk does not take it: the engine's next life
// sees that its processes run.
func noteGoingOn(l life) *Record {
	note := func(r *Record) { r.Status, r.Held = Running, false }
	r, err := l.c.become(Running, false, note)
	if err == nil {
		return r
	}
	l.s.log(err)
	return l.c.settle(note)
}

// settlePause has a container that was found again stand still as its record says, or go on. An engine that pauses freezes first and records
// then, and one that unpauses, or stops what is paused, thaws first: what it was cut off between the two has not been told to anybody. What
// stands still without a record of that goes on, and so does what does not stand still any more, and what stood still for the engine.
func settlePause(ctx context.Context, l life) error {
	l.c.op.Lock()
	defer l.c.op.Unlock()
	r := l.c.record()
	g, err := cgroup.Open(l.s.o.cgroupPath(r))
	if err != nil || !r.Status.Alive() {
		return err
	}
	frozen := cgroup.Frozen(g)
	if frozen && (r.Status != Paused || r.Held) {
		if err := thaw(ctx, l, r); err != nil {
			return err
		}
		frozen = false
	}
	if r.Status == Paused && !frozen {
		noteGoingOn(l)
	}
	return nil
}
