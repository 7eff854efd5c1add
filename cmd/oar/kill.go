package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/cgroup"
)

// kill sends a signal to a container's first process, or to all of them.
func (r *store) kill(_ context.Context, f flags) error {
	f.ends = true
	var all bool
	f.yes(&all, "all a", "to all processes of the container")
	if err := f.parseCount(1, 2); err != nil {
		return err
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
	if all || signal == unix.SIGKILL && !c.ownsPids() {
		return c.killAll(signal, all)
	}
	pidfd, alive := c.process()
	if !alive {
		return c.notRunning()
	}
	defer pidfd.Close()
	if endsByDefault(signal) && c.status() == specs.StateCreated {
		signal = unix.SIGKILL // the first process of a pid namespace that handles no signals is reached by no other
	}
	if err := unix.PidfdSendSignal(int(pidfd.Fd()), signal, nil, 0); err != nil {
		return fmt.Errorf("signal container %s: %w", c.ID, err)
	}
	return c.wake(signal)
}

// endsByDefault says that a process which does nothing about a signal is ended by it (signal(7), "Standard signals").
func endsByDefault(signal unix.Signal) bool {
	switch signal {
	case 0, unix.SIGCHLD, unix.SIGURG, unix.SIGWINCH, unix.SIGCONT, unix.SIGSTOP, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU:
		return false
	}
	return true
}

// notRunning has words that callers look for.
func (c *record) notRunning() error {
	return fmt.Errorf("container not running: %s is %s", c.ID, c.status())
}

// ownsPids says that the kernel ends all processes of the container with its first one.
func (c *record) ownsPids() bool {
	return c.spec.Linux != nil && slices.ContainsFunc(c.spec.Linux.Namespaces, func(ns specs.LinuxNamespace) bool {
		return ns.Type == specs.PIDNamespace && ns.Path == ""
	})
}

// killAll signals every process of a container. That there is none is an error, unless the caller asked for whatever there is.
func (c *record) killAll(signal unix.Signal, whatever bool) error {
	pids, err := processesOf(c)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("container %s: %w", c.ID, err)
	}
	pidfd, alive := c.process()
	if alive {
		defer pidfd.Close()
	}
	if len(pids) == 0 && !alive && !whatever {
		return c.notRunning()
	}
	if alive && !slices.Contains(pids, c.Pid) {
		if err := unix.PidfdSendSignal(int(pidfd.Fd()), signal, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("signal container %s: %w", c.ID, err)
		}
	}
	if len(pids) == 0 {
		return nil
	}
	return c.signalAll(signal)
}

// wake lets a frozen container die where its freezer holds even SIGKILL back (v1).
func (c *record) wake(signal unix.Signal) error {
	g, err := c.openGroup()
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
	g, err := c.openGroup()
	if err != nil {
		return err
	}
	if signal == unix.SIGKILL && cgroup.Exists(g) {
		return errors.Join(g.Kill(), c.wake(signal))
	}
	pids, err := processesOf(c)
	if err != nil {
		return fmt.Errorf("container %s: %w", c.ID, err)
	}
	if cgroup.Exists(g) {
		if _, err = cgroup.Signal(g, signal); err != nil {
			return fmt.Errorf("container %s: %w", c.ID, err)
		}
		return nil
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
	return 0, fmt.Errorf("unknown signal %q: give a number or a name as in kill -l", text)
}

// running are the statuses of a container whose program runs, or could.
func running() []specs.ContainerState {
	return []specs.ContainerState{specs.StateCreated, specs.StateRunning, statusPaused}
}
