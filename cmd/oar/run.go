package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/ociruntime"
	"wherry.dev/wherry/internal/version"
)

func printVersion(context.Context, []string) error {
	fmt.Printf("oar version %s\nspec: %s\n", version.Version, specs.Version)
	return nil
}

// run creates and starts a container from a bundle, waits for its end and removes what was made.
func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("run", flag.ContinueOnError)
	bundle := flags.String("bundle", ".", "the bundle's `folder`")
	flags.StringVar(bundle, "b", ".", "the bundle's `folder`")
	trace := flags.Bool("trace", false, "print each step with its microseconds")
	if err := flags.Parse(args); err != nil || flags.NArg() != 1 {
		return errors.New("usage: oar run [--bundle FOLDER] [--trace] ID")
	}
	step := func(string) {}
	if *trace {
		step = traceSteps()
	}
	step("read the configuration")
	dir, err := filepath.Abs(*bundle)
	if err != nil {
		return err
	}
	spec, err := readSpec(dir)
	if err != nil {
		return err
	}
	o := ociruntime.CreateOptions{ID: flags.Arg(0), Bundle: dir, Spec: spec, Trace: step}
	if spec.Process != nil && !spec.Process.Terminal {
		o.Stdio = ociruntime.Stdio{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}
	}
	c, err := ociruntime.Create(ctx, o)
	if err != nil {
		return err
	}
	defer c.Close()
	status, err := runCreated(c, step)
	step("remove the control group")
	removeGroup(ctx, c)
	step("")
	if err != nil {
		return err
	}
	return exitCode(status.Code)
}

func runCreated(c *ociruntime.Container, step func(string)) (ociruntime.Status, error) {
	step("start the program")
	if err := c.Start(); err != nil {
		_ = unix.Kill(c.Pid(), unix.SIGKILL)
		_, _ = ociruntime.Reap(c.Pidfd())
		return ociruntime.Status{}, err
	}
	step("let the program run")
	forwardSignals(c.Pid())
	if console := c.Console(); console != nil {
		go copyConsole(console)
	}
	return ociruntime.Reap(c.Pidfd())
}

func removeGroup(ctx context.Context, c *ociruntime.Container) {
	if g := c.Cgroup(); g != nil {
		_ = g.Kill()
		_ = g.WaitEmpty(ctx)
		_ = g.Delete()
	}
}

func readSpec(bundle string) (*specs.Spec, error) {
	b, err := os.ReadFile(filepath.Join(bundle, "config.json"))
	if err != nil {
		return nil, fmt.Errorf("the bundle %s: %w", bundle, err)
	}
	var spec specs.Spec
	if err := json.Unmarshal(b, &spec); err != nil {
		return nil, fmt.Errorf("%s/config.json: %w", bundle, err)
	}
	return &spec, nil
}

func traceSteps() func(string) {
	last, name := time.Now(), ""
	return func(step string) {
		now := time.Now()
		if name != "" {
			fmt.Fprintf(os.Stderr, "%8d µs  %s\n", now.Sub(last).Microseconds(), name)
		}
		last, name = now, step
	}
}

func forwardSignals(pid int) {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2)
	go func() {
		for s := range signals {
			_ = unix.Kill(pid, s.(unix.Signal))
		}
	}()
}

func copyConsole(console *os.File) {
	go func() { _, _ = console.ReadFrom(os.Stdin) }()
	buf := make([]byte, 32<<10)
	for {
		n, err := console.Read(buf)
		if n > 0 {
			_, _ = os.Stdout.Write(buf[:n])
		}
		if err != nil {
			return
		}
	}
}
