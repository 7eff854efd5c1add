package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/ociruntime"
	"wherry.dev/wherry/internal/resctrl"
)

// killTimeout bounds how long a killed container's processes may take to be gone.
const killTimeout = 10 * time.Second

// signalGrace is how long delete waits for a container that still runs.
const signalGrace = 100 * time.Millisecond

// delete removes what create made. A running container only goes with --force.
func (r *store) delete(ctx context.Context, f flags) error {
	var force bool
	f.yes(&force, "force f", "end what runs, and take what is not there")
	id, err := f.id()
	if err != nil {
		return err
	}
	c, err := r.load(id)
	if err != nil {
		return r.deleteDamaged(id, force, err)
	}
	status := c.status()
	if status == specs.StateCreating && !force {
		return fmt.Errorf("container %s is being created: wait for that, or delete it with --force", id)
	}
	if status == specs.StateCreating { // its creator holds the lock until it has ended, or been ended
		if g, err := c.openGroup(); err == nil {
			_ = g.Kill()
		}
	}
	release, err := c.lock()
	if errors.Is(err, fs.ErrNotExist) {
		return r.deleteDamaged(id, force, err)
	}
	if err != nil {
		return err
	}
	defer release()
	if c, err = r.load(id); err != nil { // what was read before may be what a creation had begun with
		return r.deleteDamaged(id, force, err)
	}
	c.locked = true
	if !force {
		c.awaitSignalled(ctx)
	}
	if status := c.status(); !force && status != specs.StateStopped && status != specs.StateCreated {
		return fmt.Errorf("cannot delete container %s that is not stopped: it is %s; stop it first (kill), or delete it with --force", id, status)
	}
	return c.destroy(ctx)
}

// awaitSignalled gives a process that has just been sent its last signal a moment to end.
func (c *record) awaitSignalled(ctx context.Context) {
	pidfd, alive := c.process()
	if !alive || c.status() != specs.StateRunning {
		return
	}
	defer pidfd.Close()
	ctx, cancel := context.WithTimeout(ctx, signalGrace)
	defer cancel()
	_ = awaitEnd(ctx, int(pidfd.Fd()))
}

// deleteDamaged: what does not exist is deleted, by force; a record that cannot be read goes with its folder, and so does a folder without one,
// whose creator was killed before he had made anything.
func (r *store) deleteDamaged(id string, force bool, why error) error {
	if !force || errors.Is(why, fs.ErrPermission) { // another user's folder is not ours to take away either
		return why
	}
	if (&record{dir: r.dir(id)}).creating() {
		return nil // as of the moment when it was looked for
	}
	return os.RemoveAll(r.dir(id))
}

// destroy ends every process of the container, removes its control group and its folder, and runs the poststop hooks.
func (c *record) destroy(ctx context.Context) error {
	if err := c.end(ctx); err != nil {
		return err
	}
	if err := os.RemoveAll(c.dir); err != nil {
		return err
	}
	if err := ociruntime.PoststopHooks(ctx, c.spec.Hooks, c.ociState(specs.StateStopped)); err != nil {
		c.warn("%v", err)
	}
	return nil
}

// end kills what is left and says so only when nothing is.
func (c *record) end(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, killTimeout, fmt.Errorf("they did not end within %s of SIGKILL", killTimeout))
	defer cancel()
	if c.Cgroup == "" && c.Delegated == "" { // its creation did not come as far as its control group
		return stopScope(ctx, c.Scope)
	}
	g, err := c.openGroup()
	if err != nil {
		return err
	}
	pidfd, alive := c.process()
	err = c.signalAll(unix.SIGKILL) // by the first process the others may have to be found
	if alive {
		defer pidfd.Close()
		_ = unix.PidfdSendSignal(int(pidfd.Fd()), unix.SIGKILL, nil, 0)
	}
	if err != nil {
		return err
	}
	if err := g.WaitEmpty(ctx); err != nil {
		return err
	}
	if alive {
		if err := awaitEnd(ctx, int(pidfd.Fd())); err != nil {
			return fmt.Errorf("container %s: %w", c.ID, err)
		}
	}
	return errors.Join(g.Delete(), stopScope(ctx, c.Scope), removeClass(c))
}

// removeClass takes away what was made for the container in the classes of service (Intel RDT).
func removeClass(c *record) error {
	if c.spec.Linux == nil || c.spec.Linux.IntelRdt == nil {
		return nil
	}
	root, err := resctrl.Find()
	if err != nil {
		return nil // unmounted since: the kernel has removed all of them
	}
	return root.Remove(c.ID, c.spec.Linux.IntelRdt)
}

// awaitEnd waits for a process that need not be a child.
func awaitEnd(ctx context.Context, pidfd int) error {
	for !ended(pidfd) {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(time.Millisecond):
		}
	}
	return nil
}
