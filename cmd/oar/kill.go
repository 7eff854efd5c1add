package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/cgroup"
)

// kill sends a signal to a container's first process, or to all of them.
func (r *store) kill(_ context.Context, args []string) error {
	f := newFlags("kill", "usage: oar kill [--all] ID [SIGNAL]")
	var all bool
	f.bothBool(&all, "all", "a")
	if err := f.parse(args); err != nil {
		return err
	}
	if f.NArg() < 1 || f.NArg() > 2 {
		return errors.New(f.usage)
	}
	name := "TERM"
	if f.NArg() == 2 {
		name = f.Arg(1)
	}
	signal, err := parseSignal(name)
	if err != nil {
		return err
	}
	if err := checkID(f.Arg(0)); err != nil {
		return err
	}
	c, err := r.load(f.Arg(0))
	if err != nil {
		return err
	}
	if all {
		return c.signalAll(signal)
	}
	pidfd, alive := c.process()
	if !alive {
		return fmt.Errorf("container %s is not running", c.ID)
	}
	defer pidfd.Close()
	if err := unix.PidfdSendSignal(int(pidfd.Fd()), signal, nil, 0); err != nil {
		return fmt.Errorf("signal container %s: %w", c.ID, err)
	}
	return c.wake(signal)
}

// wake lets a frozen container die where its freezer holds even SIGKILL back (v1).
func (c *record) wake(signal unix.Signal) error {
	g, err := c.group()
	if err != nil || signal != unix.SIGKILL || !cgroup.Frozen(g) {
		return nil
	}
	if _, v2 := g.Dir(); v2 {
		return nil
	}
	return g.Thaw(context.Background())
}

// signalAll reaches every process of the control group, also those that outlive the first one.
func (c *record) signalAll(signal unix.Signal) error {
	g, err := c.group()
	if err != nil {
		return err
	}
	if signal == unix.SIGKILL {
		return errors.Join(g.Kill(), c.wake(signal))
	}
	pids, err := g.Procs()
	if err != nil {
		return fmt.Errorf("container %s: %w", c.ID, err)
	}
	for _, pid := range pids {
		if err := unix.Kill(pid, signal); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("signal process %d: %w", pid, err)
		}
	}
	return nil
}

// parseSignal reads "9", "KILL", "SIGKILL" in any case, and "RTMIN+2" and "RTMAX-1".
func parseSignal(text string) (unix.Signal, error) {
	if n, err := strconv.Atoi(text); err == nil && n >= 0 && n <= 64 {
		return unix.Signal(n), nil
	}
	name := strings.TrimPrefix(strings.ToUpper(text), "SIG")
	if s := unix.SignalNum("SIG" + name); s != 0 {
		return s, nil
	}
	for base, n := range map[string]int{"RTMIN": 34, "RTMAX": 64} {
		if rest, ok := strings.CutPrefix(name, base); ok {
			offset, err := strconv.Atoi(rest)
			if s := n + offset; (err == nil || rest == "") && s >= 34 && s <= 64 {
				return unix.Signal(s), nil
			}
		}
	}
	return 0, fmt.Errorf("signal %q is not one: give a number or a name as in kill -l", text)
}

// running are the statuses of a container whose program runs, or could.
func running() []specs.ContainerState {
	return []specs.ContainerState{specs.StateCreated, specs.StateRunning, statusPaused}
}
