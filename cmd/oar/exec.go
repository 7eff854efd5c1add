package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/ociruntime"
)

const execUsage = "usage: oar exec [--detach] [--tty] [--console-socket SOCKET] [--pid-file FILE] [--process FILE | --cwd --env --user --additional-gids --cap " +
	"--no-new-privs] [--preserve-fds N] [--ignore-paused] ID COMMAND …"

// execution are the options of exec.
type execution struct {
	creation
	process      string
	tty          bool
	cwd, user    string
	env, caps    texts
	groups       texts
	noNewPrivs   bool
	ignorePaused bool
	cgroup       string
	label        string // of a security module
	args         []string
	signals      <-chan os.Signal
}

func (o *execution) parse(args []string) error {
	f := newFlags("exec", execUsage)
	f.bothBool(&o.detach, "detach", "d")
	f.bothBool(&o.tty, "tty", "t")
	f.StringVar(&o.pidFile, "pid-file", "", "")
	f.StringVar(&o.consoleSocket, "console-socket", "", "")
	f.IntVar(&o.preserve, "preserve-fds", 0, "")
	f.both(&o.process, "process", "p", "")
	f.StringVar(&o.cwd, "cwd", "", "")
	f.both(&o.user, "user", "u", "")
	for _, row := range []struct {
		to          *texts
		long, short string
	}{{&o.env, "env", "e"}, {&o.caps, "cap", "c"}, {&o.groups, "additional-gids", "g"}} {
		f.Var(row.to, row.long, "")
		f.Var(row.to, row.short, "")
	}
	f.BoolVar(&o.noNewPrivs, "no-new-privs", false, "")
	f.BoolVar(&o.ignorePaused, "ignore-paused", false, "")
	f.StringVar(&o.cgroup, "cgroup", "", "")
	f.StringVar(&o.label, "apparmor", "", "")
	f.StringVar(&o.label, "process-label", "", "")
	if err := f.parse(args); err != nil {
		return err
	}
	if f.NArg() < 1 || f.NArg() < 2 && o.process == "" {
		return errors.New(f.usage)
	}
	o.id, o.args = f.Arg(0), f.Args()[1:]
	return o.check()
}

func (o *execution) check() error {
	switch {
	case o.cgroup != "":
		return errors.New("--cgroup: oar runs further processes in the container's own control group; leave the option out")
	case o.label != "":
		return errors.New("--apparmor and --process-label are not supported: oar confines by namespaces, capabilities and seccomp")
	}
	if err := checkID(o.id); err != nil {
		return err
	}
	return o.creation.check(&store{})
}

// exec runs one more process in a container.
func (r *store) exec(ctx context.Context, args []string) error {
	var o execution
	if err := o.parse(args); err != nil {
		return err
	}
	c, err := r.load(o.id)
	if err != nil {
		return err
	}
	allowed := []specs.ContainerState{specs.StateCreated, specs.StateRunning}
	if o.ignorePaused {
		allowed = running()
	}
	if _, err := c.require("execute a process in", allowed...); err != nil {
		return err
	}
	p, err := o.build(c.spec.Process)
	if err != nil {
		return err
	}
	if p.Terminal && o.detach && o.consoleSocket == "" {
		return errors.New("a detached process with a terminal needs --console-socket: somebody must hold the terminal")
	}
	inside, err := c.open()
	if err != nil {
		return err
	}
	defer inside.Close()
	options := ociruntime.ExecOptions{Process: p, PreserveFDs: o.preserve, NoNewKeyring: c.NoNewKeyring}
	if !p.Terminal {
		options.Stdio = ociruntime.Stdio{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}
	}
	o.signals = catchSignals()
	made, err := inside.Exec(ctx, options)
	if err != nil {
		return fmt.Errorf("exec failed: %w", err)
	}
	return o.follow(made)
}

// follow hands out the terminal and the pid, and waits for the process unless it is to be left alone.
func (o *execution) follow(made *ociruntime.Process) error {
	defer made.Pidfd.Close()
	console := made.Console
	if console != nil && o.consoleSocket != "" {
		if err := sendConsole(o.consoleSocket, console); err != nil {
			return errors.Join(err, unix.Kill(made.Pid, unix.SIGKILL))
		}
		console.Close()
		console = nil
	}
	if err := writePid(o.pidFile, made.Pid); err != nil {
		return errors.Join(err, unix.Kill(made.Pid, unix.SIGKILL))
	}
	if o.detach {
		return nil
	}
	status, err := attend(made.Pidfd, console, o.signals)
	if err != nil {
		return err
	}
	return exitCode(status.Code)
}

// build is the process to run: from a file, or the container's own with what the options change.
func (o *execution) build(own *specs.Process) (*specs.Process, error) {
	var p specs.Process
	if o.process != "" {
		b, err := os.ReadFile(o.process)
		if err != nil {
			return nil, err
		}
		if err := json.Unmarshal(b, &p); err != nil {
			return nil, fmt.Errorf("%s: %w", o.process, err)
		}
		if len(p.Args) == 0 || p.Cwd == "" {
			return nil, fmt.Errorf("%s: args and cwd must be set", o.process)
		}
		p.Terminal = p.Terminal || o.tty
		return &p, nil
	}
	p = *own
	p.Args, p.Terminal, p.ConsoleSize = o.args, o.tty, nil
	p.Env = append(append([]string{}, own.Env...), o.env...)
	p.NoNewPrivileges = own.NoNewPrivileges || o.noNewPrivs
	if o.cwd != "" {
		p.Cwd = o.cwd
	}
	p.Capabilities = withCapabilities(own.Capabilities, o.caps)
	return &p, o.setUser(&p)
}

// setUser reads "uid[:gid]" and further groups; names mean nothing here, as the container's files are not consulted.
func (o *execution) setUser(p *specs.Process) error {
	if o.user != "" {
		uid, gid, both := strings.Cut(o.user, ":")
		n, err := strconv.ParseUint(uid, 10, 32)
		if err != nil {
			return fmt.Errorf("--user %q: it is a number, or two with a colon", o.user)
		}
		p.User = specs.User{UID: uint32(n), Umask: p.User.Umask}
		if both {
			if n, err = strconv.ParseUint(gid, 10, 32); err != nil {
				return fmt.Errorf("--user %q: it is a number, or two with a colon", o.user)
			}
			p.User.GID = uint32(n)
		}
	}
	for _, g := range o.groups {
		n, err := strconv.ParseUint(g, 10, 32)
		if err != nil {
			return fmt.Errorf("--additional-gids %q: it is a number", g)
		}
		p.User.AdditionalGids = append(p.User.AdditionalGids[:len(p.User.AdditionalGids):len(p.User.AdditionalGids)], uint32(n))
	}
	return nil
}

// withCapabilities adds to what a process may have and has.
func withCapabilities(own *specs.LinuxCapabilities, more []string) *specs.LinuxCapabilities {
	if len(more) == 0 {
		return own
	}
	var c specs.LinuxCapabilities
	if own != nil {
		c = *own
	}
	add := func(list []string) []string { return append(append([]string{}, list...), more...) }
	c.Bounding, c.Effective, c.Permitted = add(c.Bounding), add(c.Effective), add(c.Permitted)
	return &c
}
