package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/ociruntime"
	"wherry.dev/wherry/internal/sysprog"
	"wherry.dev/wherry/internal/version"
)

func printVersion(context.Context, flags) error {
	commit := "unknown"
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				commit = s.Value
			}
		}
	}
	fmt.Printf("%s version %s\ncommit: %s\nspec: %s\ngo: %s\n", programName(), version.Version, commit, specs.Version, runtime.Version())
	return nil
}

// run creates and starts a container from a bundle, waits for its end and removes what was made.
func (r *store) run(ctx context.Context, f flags) error {
	o := creation{trace: r.step}
	o.define(f)
	f.yes(&o.detach, "detach d", "do not wait for its end")
	keep := f.Bool("keep", false, "leave the stopped container to be looked at and deleted")
	trace := f.Bool("trace", false, "print each step with the time that it took")
	f.Bool("no-subreaper", false, "do not become the parent of the container's orphans (oar never does)")
	var err error
	if o.id, err = f.id(); err != nil {
		return err
	}
	o.takeSockets(r)
	if done, err := r.elsewhere(o.where); done {
		return err
	}
	if *trace {
		o.trace, o.measure = traceSteps(), true
	}
	o.trace("read the configuration")
	o.limitless = limitsOptional(r)
	c, err := r.newRecord(o)
	if err != nil {
		return err
	}
	signals := catchSignals()
	made, err := c.makeOrRemove(ctx, o)
	if err != nil {
		return err
	}
	defer made.Close()
	status, err := o.runCreated(ctx, c, made, signals)
	if err == nil && o.detach {
		return nil
	}
	if err == nil && *keep {
		return exitCode(status.Code)
	}
	o.trace("remove the control group")
	if err := errors.Join(err, c.destroy(ctx)); err != nil {
		return err
	}
	o.trace("")
	return exitCode(status.Code)
}

// runCreated starts the container and, unless it is to be left alone, waits for its end.
func (o *creation) runCreated(ctx context.Context, c *record, made *ociruntime.Container, signals chan os.Signal) (ociruntime.Status, error) {
	o.trace("start the program")
	if err := o.hand(c, made); err != nil {
		return ociruntime.Status{}, err
	}
	if console := o.ownConsole(made); console != nil && !o.detach {
		ociruntime.KeepLineEnds(console)
	}
	if err := made.StartHooks(ctx, c.ociState(specs.StateCreated)); err != nil {
		return ociruntime.Status{}, err
	}
	if err := made.Start(); err != nil {
		return ociruntime.Status{}, err
	}
	o.trace("let the program run")
	traceStages(made.Times())
	if err := c.poststart(ctx); err != nil {
		return ociruntime.Status{}, err
	}
	if o.detach {
		return ociruntime.Status{}, nil
	}
	return attend(made.Pidfd(), o.ownConsole(made), signals)
}

// ownConsole is the terminal that this process itself copies: none where a socket has taken it.
func (o *creation) ownConsole(made *ociruntime.Container) *os.File {
	if o.consoleSocket != "" {
		return nil
	}
	return made.Console()
}

// catchSignals takes the signals that people and service managers send, from now on: one that ended this process while the container is
// made would leave it behind.
func catchSignals() chan os.Signal {
	signals := make(chan os.Signal, 64)
	signal.Notify(signals, unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2, unix.SIGWINCH, unix.SIGPIPE)
	return signals
}

// allSignalsAfter is how long a program runs before all other signals are taken too: to take all 64 costs the Go runtime 1.5 ms, which a
// program that ends at once need not wait for.
const allSignalsAfter = 20 * time.Millisecond

// attend passes signals and a terminal's bytes on until the process, a child, has ended.
func attend(pidfd, console *os.File, signals chan os.Signal) (ociruntime.Status, error) {
	copied := make(chan struct{})
	if console == nil {
		close(copied)
	} else {
		defer attachConsole(console, copied)()
	}
	done := make(chan struct{})
	defer close(done)
	go func() {
		all := time.After(allSignalsAfter)
		for {
			select {
			case <-all:
				signal.Notify(signals)
			case s := <-signals:
				passSignal(pidfd, console, s.(unix.Signal))
			case <-done:
				return
			}
		}
	}()
	status, err := ociruntime.Reap(pidfd)
	select {
	case <-copied: // the last output
	case <-time.After(time.Second): // somebody else holds the terminal
	}
	return status, err
}

func passSignal(pidfd, console *os.File, s unix.Signal) {
	switch s {
	case unix.SIGCHLD, unix.SIGURG, unix.SIGPIPE: // SIGURG is how the Go runtime interrupts itself
	case unix.SIGWINCH:
		if console != nil {
			copySize(console)
		}
	default:
		if raw, err := pidfd.SyscallConn(); err == nil {
			_ = raw.Control(func(fd uintptr) { _ = unix.PidfdSendSignal(int(fd), s, nil, 0) })
		}
	}
}

// traceSteps prints each step with the time that it took, when the next one begins.
func traceSteps() func(string) {
	last, name := time.Now(), ""
	return func(step string) {
		now := time.Now()
		if name != "" {
			traceLine("", now.Sub(last), name)
		}
		last, name = now, step
	}
}

func traceLine(indent string, took time.Duration, name string) {
	fmt.Fprintf(os.Stderr, "%8.1f µs  %s%s\n", float64(took.Nanoseconds())/1000, indent, name)
}

// traceStages prints what the container's process did meanwhile.
func traceStages(stages []sysprog.Part) {
	if len(stages) > 0 {
		fmt.Fprintln(os.Stderr, "             of which the container's process, at the same time:")
	}
	for _, st := range stages {
		traceLine("  ", st.Took, st.Name)
	}
}
