package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"

	"wherry.dev/wherry/internal/cgroup"
	"wherry.dev/wherry/internal/rootfs"
	"wherry.dev/wherry/internal/task"
	"wherry.dev/wherry/internal/why"
)

// RemoveOptions: Volumes also removes anonymous volumes.
type RemoveOptions struct{ Force, Volumes bool }

// Remove takes a container away with all it has. Force ends it first.
func (s *Service) Remove(ctx context.Context, id string, o RemoveOptions) error {
	c, err := s.index.find(id)
	if err != nil {
		return err
	}
	return life{s, c}.remove(asking(ctx, why.AskRemove), o)
}

func (l life) remove(ctx context.Context, o RemoveOptions) error {
	ctx, done := l.s.lives.outlive(ctx)
	defer done()
	for range 5 { // somebody may start it again after it has been ended
		done, err := l.removeEnded(ctx, o)
		if done || err != nil {
			return err
		}
		n, err := l.beginStop()
		if n == nil {
			if err != nil && !errdefs.IsNotModified(err) && !errdefs.IsNotFound(err) {
				return err
			}
			continue
		}
		if err := n.kill(ctx); err != nil {
			return fmt.Errorf("remove container %s: %w", n.r.Name, err)
		}
	}
	return busy(l.c.record(), "started again and again while it is to be removed: update its restart policy first")
}

// removeEnded removes a container without a process; false: it has one, and is to be ended first.
func (l life) removeEnded(ctx context.Context, o RemoveOptions) (done bool, err error) {
	c := l.c
	c.op.Lock()
	defer c.op.Unlock()
	r := c.record()
	switch {
	case c.isGone():
		return true, nil
	case r.Status.Alive(), r.Status == Restarting:
		if !o.Force {
			word, hint := "running", "stop the container before removing or force remove"
			if r.Status != Running {
				word = string(r.Status)
			}
			if r.Status == Paused {
				hint = "unpause and stop the container before removing or force remove"
			}
			return false, fail(errdefs.ErrConflict, "cannot remove container %q: container is %s: %s", "/"+r.Name, word, hint)
		}
		return false, nil
	}
	return true, l.removeNow(ctx, o)
}

// removeNow removes a container whose process has ended; the caller holds op. What cannot be removed is dead, and may be tried again.
func (l life) removeNow(ctx context.Context, o RemoveOptions) error {
	ctx, done := l.s.lives.outlive(ctx)
	defer done()
	r, err := intend(l, o)
	if r == nil {
		return err
	}
	if err = l.endLeftovers(ctx, r); err == nil {
		err = giveBack(ctx, l, r, o)
	}
	if err == nil {
		err = clearAway(l, r)
	}
	if err != nil {
		return notRemoved(l, r, err)
	}
	removed(l, r)
	return nil
}

// dispose removes a container with --rm whose task has just told its end, so no process of it is left. Who waits for that is told before what
// nobody waits for is done; where the engine is killed in between, its next life does it (see sweep). The caller holds op.
func (l life) dispose(ctx context.Context, t *task.Task) error {
	o := RemoveOptions{Volumes: true}
	r, err := intend(l, o)
	if r == nil {
		return err
	}
	if err := giveBack(ctx, l, r, o); err != nil {
		return notRemoved(l, r, errors.Join(err, t.Delete(ctx)))
	}
	removed(l, r)
	return later(ctx, l.s, moment, func(ctx context.Context) error {
		defer l.s.blank.hurry()
		if err := errors.Join(t.Delete(ctx), l.endLeftovers(ctx, r)); err != nil {
			return err
		}
		return clearAway(l, r)
	})
}

// later does what nobody waits for in a while, or at once where the engine ends.
func later(ctx context.Context, s *Service, after time.Duration, do func(context.Context) error) error {
	if s.lives.run(ctx, func(ctx context.Context) {
		select {
		case <-time.After(after):
		case <-ctx.Done():
		}
		lasting, done := s.lives.outlive(ctx)
		defer done()
		s.log(do(lasting))
	}) {
		return nil
	}
	return do(ctx)
}

// intend records that a container is being removed: an engine that is killed here goes on with it in its next life. Nil: there is nothing to
// remove, or it may not be.
func intend(l life, o RemoveOptions) (*Record, error) {
	c := l.c
	if c.isGone() {
		return nil, nil
	}
	deathsOf(c) // read before their file goes
	r := c.record()
	if r.Status == Removing {
		return r, nil
	}
	if _, err := r.Status.To(Removing); err != nil {
		return nil, err
	}
	note := func(r *Record) { r.Status, r.WithVolumes = Removing, o.Volumes }
	lasts := !r.HostConfig.AutoRemove
	if lasts || r.Status == Created { // one with --rm that has run is removed in any case
		if intent, err := c.become(Removing, lasts, note); err == nil {
			return intent, nil
		} // a full disk does not take it: removing is what makes room
	}
	return c.settle(note), nil
}

// notRemoved tells why.
func notRemoved(l life, r *Record, err error) error {
	err = fmt.Errorf("remove container %s: %w", r.Name, err)
	l.c.settle(func(r *Record) { r.Status, r.Error = Dead, err.Error() })
	l.c.audience.answer(container.WaitResponse{StatusCode: int64(r.ExitCode), Error: &container.WaitExitError{Message: err.Error()}}, anyone)
	return err
}

// removed tells everybody: nobody finds the container any more.
func removed(l life, r *Record) {
	c, s := l.c, l.s
	s.graves.add(r, deathsOf(c)) // first: who does not find it any more finds this
	s.index.remove(c)
	c.mu.Lock()
	close(c.gone)
	close(c.changed)
	c.changed = make(chan struct{})
	c.mu.Unlock()
	s.publish(r, events.ActionDestroy)
	c.audience.answer(exited(r), anyone)
}

// giveBack gives back what others may want of a container without processes: network, volumes, secrets, files, image, in this order.
func giveBack(ctx context.Context, l life, r *Record, o RemoveOptions) error {
	c, s := l.c, l.s
	if r.bridged() {
		if err := s.o.Networks.Release(ctx, r.ID); err != nil {
			return err
		}
	}
	s.o.releaseVolumes(ctx, r, o.Volumes)
	s.o.releaseSecrets(r.ID)
	remove := rootfs.RemoveTree
	if r.HostConfig.AutoRemove {
		remove = func(dir string) error { return discard(ctx, s, dir) }
	}
	if err := remove(c.dir); err != nil {
		return err
	}
	s.o.Images.Release(ctx, r.ID)
	return nil
}

// clearAway takes away what is the container's alone in the state directory, and gives its ids back.
func clearAway(l life, r *Record) error {
	s := l.s
	if err := removeSharedMemory(s.o.sharedMemory(r.ID)); err != nil {
		return err
	}
	if err := rootfs.RemoveTree(s.o.etcDir(r.ID)); err != nil {
		return err
	}
	l.giveRange(r)
	return nil
}

// discardedSuffix ends the names of folders whose files are being deleted.
const discardedSuffix = ".gone"

// discardAfter is when that begins: who waits for the removal is told first.
const discardAfter = 10 * time.Millisecond

// discard takes a disposable container's folder out of the way; nobody waits until its files are deleted. Where the engine is killed before,
// its next life does it (see sweep).
func discard(ctx context.Context, s *Service, dir string) error {
	gone := dir + discardedSuffix
	if err := os.Rename(dir, gone); err != nil {
		return rootfs.RemoveTree(dir)
	}
	return later(ctx, s, discardAfter, func(context.Context) error { return rootfs.RemoveTree(gone) })
}

// endLeftovers sees to it that no process of the container is left.
func (l life) endLeftovers(ctx context.Context, r *Record) error {
	c, s := l.c, l.s
	if _, err := os.Lstat(c.taskDir); err == nil {
		t, err := task.Open(ctx, c.taskDir)
		if err == nil {
			err = t.Delete(ctx)
		}
		if err != nil && !errdefs.IsNotFound(err) {
			return err
		}
		if err := os.RemoveAll(c.taskDir); err != nil {
			return err
		}
	}
	g, err := cgroup.Open(s.o.cgroupPath(r))
	if err != nil {
		return err
	}
	populated, err := g.Populated()
	if errors.Is(err, os.ErrNotExist) || err == nil && !populated {
		return g.Delete()
	}
	if err := g.Kill(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, killLimit, fmt.Errorf("not dead %s after SIGKILL", killLimit))
	defer cancel()
	if err := g.WaitEmpty(ctx); err != nil {
		return err
	}
	return g.Delete()
}

// giveRange gives the ids back, or to a container that shares them.
func (l life) giveRange(r *Record) {
	s := l.s
	if !r.OwnRange {
		return
	}
	for _, other := range s.index.sharers(r) {
		if _, err := other.change(true, func(r *Record) error {
			if r.Status == Removing { // its folder is going: nothing may be written there
				return busy(r, "being removed")
			}
			r.OwnRange = true
			return nil
		}); err == nil {
			return
		}
	}
	s.ranges.Give(r.IDMap)
}

// untilTime reads a moment as filters give it: so long ago, or a time.
func untilTime(text string) (time.Time, error) {
	if d, err := time.ParseDuration(text); err == nil {
		return time.Now().Add(-d), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02"} {
		if t, err := time.Parse(layout, text); err == nil {
			return t, nil
		}
	}
	var seconds, nanos int64
	if n, _ := fmt.Sscanf(text, "%d.%d", &seconds, &nanos); n >= 1 {
		return time.Unix(seconds, nanos), nil
	}
	return time.Time{}, invalid("until=%s: give a duration such as 24h, or a time such as 2006-01-02T15:04:05", text)
}
