package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/ociruntime"
	"wherry.dev/wherry/internal/sysprog"
)

// start opens a created container's gate. A hook that fails is its end: the container is removed (runtime-spec, "Lifecycle", 7 and 9).
func (r *store) start(ctx context.Context, f flags) error {
	id, err := f.id()
	if err != nil {
		return err
	}
	c, err := r.load(id)
	if err != nil {
		return err
	}
	if hasStartHooks(c) { // which run inside
		if done, err := r.elsewhere(func() (sysprog.Inside, error) { return within(c) }); done {
			return err
		}
	}
	release, err := c.lockCreated()
	if err != nil {
		return err
	}
	defer release()
	if err := c.require("start", specs.StateCreated); err != nil {
		return err
	}
	if err := c.startHooks(ctx); err != nil {
		return errors.Join(err, c.destroy(context.WithoutCancel(ctx)))
	}
	gate, err := c.gate()
	if err != nil {
		return fmt.Errorf("open the gate of container %s: %w", id, err)
	}
	defer gate.Close()
	root, err := os.OpenFile("/proc/"+strconv.Itoa(c.Pid)+"/root", unix.O_PATH|unix.O_DIRECTORY, 0)
	if err == nil {
		defer root.Close()
	}
	if _, err := gate.Write([]byte{'s'}); err != nil {
		return fmt.Errorf("open the gate of container %s: %w", id, err)
	}
	if err := os.Remove(filepath.Join(c.dir, gateFile)); err != nil {
		return err
	}
	if err := awaitExecuted(c.spec, gate, root); err != nil {
		return err
	}
	if err := c.poststart(ctx); err != nil {
		return errors.Join(err, c.destroy(context.WithoutCancel(ctx)))
	}
	return nil
}

func hasStartHooks(c *record) bool {
	return c.spec.Hooks != nil && len(c.spec.Hooks.StartContainer) > 0
}

// startHooks runs the startContainer hooks, inside.
func (c *record) startHooks(ctx context.Context) error {
	if !hasStartHooks(c) {
		return nil
	}
	inside, err := c.open()
	if err != nil {
		return err
	}
	defer inside.Close()
	return inside.StartHooks(ctx, c.ociState(specs.StateCreated))
}

// poststart hooks tell of the start.
func (c *record) poststart(ctx context.Context) error {
	if c.spec.Hooks == nil {
		return nil
	}
	return ociruntime.RunHooks(ctx, "poststart", c.spec.Hooks.Poststart, c.ociState(specs.StateRunning))
}

// awaitExecuted waits until the container's process has closed its side of the gate, which its execve does. When that fails the process leaves
// in the gate why, and ends.
func awaitExecuted(spec *specs.Spec, gate, root *os.File) error {
	for {
		poll := []unix.PollFd{{Fd: int32(gate.Fd())}} // only POLLERR: a pipe without readers
		_, err := unix.Poll(poll, -1)
		if err == nil {
			break
		}
		if err != unix.EINTR {
			return err
		}
	}
	left, err := unix.Open("/proc/self/fd/"+strconv.Itoa(int(gate.Fd())), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(left)
	told := make([]byte, unix.PathMax)
	n, _ := unix.Read(left, told) // nothing: it was executed
	return ociruntime.NotExecuted(spec, root, told[:max(n, 0)])
}
