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
	"strconv"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/ociruntime"
	"wherry.dev/wherry/internal/rootfs"
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
	if err := protectBinary(spec); err != nil {
		return err
	}
	o := ociruntime.CreateOptions{ID: flags.Arg(0), Bundle: dir, Spec: spec, Trace: step}
	if spec.Process != nil && !spec.Process.Terminal {
		o.Stdio = ociruntime.Stdio{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}
	}
	signals := catchSignals()
	c, err := ociruntime.Create(ctx, o)
	if err != nil {
		return err
	}
	defer c.Close()
	status, err := runCreated(c, signals, step)
	step("remove the control group")
	removeGroup(ctx, c)
	step("")
	var notRun *ociruntime.ExecError
	if errors.As(err, &notRun) {
		fmt.Fprintf(os.Stderr, "oar: %s\n", err)
		return exitCode(notRun.ExitCode())
	}
	if err != nil {
		return err
	}
	return exitCode(status.Code)
}

// protectBinary sees to it that a container whose root is the host's cannot write to this binary through /proc/PID/exe of a process that
// has not executed the container's program yet: it executes the binary again, from a read-only mount of its own (CVE-2019-5736). In a
// user namespace the file's owner is nobody that the container could be.
func protectBinary(spec *specs.Spec) error {
	if spec.Linux != nil {
		for _, ns := range spec.Linux.Namespaces {
			if ns.Type == specs.UserNamespace {
				return nil
			}
		}
	}
	const self = "/proc/self/exe"
	var st unix.Statfs_t
	if err := unix.Statfs(self, &st); err != nil {
		return fmt.Errorf("look at the runtime's own binary: %w", err)
	}
	if st.Flags&unix.ST_RDONLY != 0 {
		return nil
	}
	program, err := rootfs.Bind(self, rootfs.BindOptions{Set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV})
	if err != nil {
		return fmt.Errorf("make a read-only mount of the runtime's own binary: %w", err)
	}
	return fmt.Errorf("execute the runtime's own binary again: %w", unix.Exec("/proc/self/fd/"+strconv.Itoa(int(program.Fd())), os.Args, os.Environ()))
}

func runCreated(c *ociruntime.Container, signals <-chan os.Signal, step func(string)) (ociruntime.Status, error) {
	step("start the program")
	if err := c.Start(); err != nil {
		_ = unix.Kill(c.Pid(), unix.SIGKILL)
		_, _ = ociruntime.Reap(c.Pidfd())
		return ociruntime.Status{}, err
	}
	step("let the program run")
	forwardSignals(signals, c.Pid())
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

// catchSignals takes signals from now on: one that comes while the container is made must not end this process and leave the container.
func catchSignals() chan os.Signal {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2)
	return signals
}

// forwardSignals gives them to the container's process, until this process ends with it.
func forwardSignals(signals <-chan os.Signal, pid int) {
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
