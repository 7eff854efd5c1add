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

	"wherry.dev/wherry/internal/cgroup"
	"wherry.dev/wherry/internal/ociruntime"
	"wherry.dev/wherry/internal/sysprog"
)

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
	cgroups      texts
	profile      string // AppArmor's
	label        string // SELinux's
	args         []string
	signals      chan os.Signal
}

func (o *execution) parse(f flags) error {
	f.ends = true
	o.defineProcess(f)
	f.yes(&o.detach, "detach d", "do not wait for its end")
	f.yes(&o.tty, "tty t", "give it a terminal")
	f.text(&o.process, "process p", "", "all that the process is: a `FILE` with the specification's JSON")
	f.text(&o.cwd, "cwd", "", "the working `FOLDER`")
	f.text(&o.user, "user u", "", "a `UID[:GID]`")
	f.many(&o.env, "env e", "one more `VARIABLE` of the environment, as NAME=VALUE")
	f.many(&o.caps, "cap c", "one more `CAPABILITY`")
	f.many(&o.groups, "additional-gids g", "one more `GID`")
	f.yes(&o.noNewPrivs, "no-new-privs", "no program gives it more rights")
	f.yes(&o.ignorePaused, "ignore-paused", "also in a paused container")
	f.many(&o.cgroups, "cgroup", "a control `GROUP` inside the container's, as [CONTROLLER,…:]PATH")
	f.text(&o.profile, "apparmor", "", "an AppArmor `PROFILE`")
	f.text(&o.label, "process-label", "", "an SELinux `LABEL`")
	if err := f.parse(); err != nil {
		return err
	}
	if f.NArg() < 1 {
		return f.wrong(`"exec" requires a minimum of 1 argument(s)`)
	}
	if f.NArg() < 2 && o.process == "" {
		return f.wrong("exec args cannot be empty")
	}
	o.id, o.args = f.Arg(0), f.Args()[1:]
	return nil
}

func (o *execution) check() error {
	if err := checkID(o.id); err != nil {
		return err
	}
	return o.creation.check()
}

// exec runs one more process in a container.
func (r *store) exec(ctx context.Context, f flags) error {
	var o execution
	if err := o.parse(f); err != nil {
		return err
	}
	err := r.execute(ctx, &o)
	var code exitCode
	if err == nil || errors.As(err, &code) {
		return err
	}
	r.fail(fmt.Errorf("exec failed: %w", err))
	return exitCode(255) // no program's own code is taken for this
}

func (r *store) execute(ctx context.Context, o *execution) error {
	if err := o.check(); err != nil {
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
	if err := c.require("exec", allowed...); err != nil {
		return err
	}
	if done, err := r.elsewhere(func() (sysprog.Inside, error) { return within(c) }); done {
		return err
	}
	inside, err := c.open()
	if err != nil {
		return err
	}
	defer inside.Close()
	p, err := o.build(c.spec.Process) // by now: its file may be a pipe, which only the last of these processes reads
	if err != nil {
		return err
	}
	if p.Terminal && o.detach && o.consoleSocket == "" {
		return errors.New("a detached process with a terminal needs --console-socket: somebody must hold the terminal")
	}
	if p.Terminal && !o.detach && o.consoleSocket == "" && !atTerminal() { // as runc says it: input that ends would leave the process waiting for ever
		return errors.New("the process is to have a terminal (--tty, or terminal in its file), and oar is at none whose input could go to it: " +
			"run it at a terminal, name a socket that takes the process's one (--console-socket), or ask for none")
	}
	options := ociruntime.ExecOptions{Process: p, PreserveFDs: o.preserve, NoNewKeyring: c.NoNewKeyring, KeepGroups: keepsGroups(c.spec), LineEnds: o.consoleSocket == ""}
	if options.Cgroup, err = o.group(c); err != nil {
		return err
	}
	if !p.Terminal {
		options.Stdio = ociruntime.Stdio{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}
	}
	o.signals = catchSignals()
	r.detail("execute %q in container %s", p.Args, c.ID)
	made, err := inside.Exec(ctx, options)
	if err != nil {
		return err
	}
	return o.follow(made)
}

// follow hands out the terminal and the pid, and waits for the process unless it is to be left alone.
func (o *execution) follow(made *ociruntime.Process) error {
	defer made.Pidfd.Close()
	console := made.Console
	if console != nil && o.consoleSocket != "" {
		if err := send(o.consoleSocket, "console", console); err != nil {
			return errors.Join(err, unix.Kill(made.Pid, unix.SIGKILL))
		}
		console.Close()
		console = nil
	}
	if o.pidfdSocket != "" {
		if err := send(o.pidfdSocket, "pidfd", made.Pidfd); err != nil {
			return errors.Join(err, unix.Kill(made.Pid, unix.SIGKILL))
		}
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
		o.inherit(&p, own)
		return &p, nil
	}
	p = *own
	o.inherit(&p, own)
	p.Args, p.Terminal, p.ConsoleSize = o.args, o.tty, nil
	p.Env = append(append([]string{}, own.Env...), o.env...)
	p.NoNewPrivileges = own.NoNewPrivileges || o.noNewPrivs
	if o.cwd != "" {
		p.Cwd = o.cwd
	}
	p.Capabilities = withCapabilities(own.Capabilities, o.caps)
	return &p, o.setUser(&p)
}

// inherit gives a process what its file leaves out and nobody may be without because of that, and what the options say instead.
func (o *execution) inherit(p, own *specs.Process) {
	if p.Capabilities == nil {
		p.Capabilities = own.Capabilities
	}
	if len(p.Rlimits) == 0 {
		p.Rlimits = own.Rlimits
	}
	if o.profile != "" {
		p.ApparmorProfile = o.profile
	} else if p.ApparmorProfile != "" && !ociruntime.AppArmor() { // as create does
		p.ApparmorProfile = ""
	}
	if o.label != "" {
		p.SelinuxLabel = o.label
	}
}

// group is the control group that the options name inside the container's; nil for that itself.
func (o *execution) group(c *record) (*cgroup.Group, error) {
	if len(o.cgroups) == 0 {
		return nil, nil
	}
	paths := map[string]string{}
	for _, text := range o.cgroups {
		controllers, path, ok := strings.Cut(text, ":")
		if !ok {
			controllers, path = "", text
		}
		for _, name := range strings.Split(controllers, ",") {
			if _, twice := paths[name]; twice || path == "" || ok && name == "" {
				return nil, fmt.Errorf("--cgroup %q: it is a PATH inside the container's group, or CONTROLLER,…:PATH, once for each controller", text)
			}
			paths[name] = path
		}
	}
	g, err := c.openGroup()
	if err != nil {
		return nil, err
	}
	return cgroup.Below(g, paths)
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
	if c.Inheritable != nil { // an ambient one must be inheritable too, which stays the configuration's to say
		c.Ambient = add(c.Ambient)
	}
	return &c
}
