package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/ociruntime"
	"wherry.dev/wherry/internal/sysprog"
)

// start opens a created container's gate.
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
		return fmt.Errorf("%w%s", err, c.stop(ctx))
	}
	gate, err := c.gate()
	if err != nil {
		return fmt.Errorf("open the gate of container %s: %w", id, err)
	}
	defer gate.Close()
	if _, err := gate.Write([]byte{'s'}); err != nil {
		return fmt.Errorf("open the gate of container %s: %w", id, err)
	}
	if err := os.Remove(filepath.Join(c.dir, gateFile)); err != nil {
		return err
	}
	if err := awaitExecuted(int(gate.Fd())); err != nil {
		return err
	}
	if err := c.poststart(ctx); err != nil {
		return fmt.Errorf("%w%s", err, c.stop(ctx))
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

// poststart hooks tell of the start: one that fails ends the container (runtime-spec, "Lifecycle", 9).
func (c *record) poststart(ctx context.Context) error {
	if c.spec.Hooks == nil {
		return nil
	}
	return ociruntime.RunHooks(ctx, "poststart", c.spec.Hooks.Poststart, c.ociState(specs.StateRunning))
}

// awaitExecuted waits until the container's process has closed its side of the gate, which its execve does.
func awaitExecuted(gate int) error {
	for {
		poll := []unix.PollFd{{Fd: int32(gate)}} // only POLLERR: a pipe without readers
		if _, err := unix.Poll(poll, -1); err != nil && err != unix.EINTR {
			return err
		} else if err == nil {
			return nil
		}
	}
}
