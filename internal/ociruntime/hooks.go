package ociruntime

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	osexec "os/exec"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/sysprog"
)

// createHooks runs the hooks of the creation while the child waits before its pivot: the namespaces and mounts exist, the root file
// system is attached at its path on the host, in the container's mount namespace.
func (s *start) createHooks(ctx context.Context) error {
	if !s.awaitsMounts() {
		return nil
	}
	if s.hasCreateHooks() {
		if err := s.runCreateHooks(ctx); err != nil {
			return err
		}
	}
	_, err := s.toChild.Write([]byte{'h'})
	return err
}

func (s *start) runCreateHooks(ctx context.Context) error {
	state := s.state(specs.StateCreating)
	old := state
	old.Status = specs.StateCreated                                               // what prestart hooks were always told, as of a step that was start's once
	if err := RunHooks(ctx, "prestart", s.spec.Hooks.Prestart, old); err != nil { //nolint:staticcheck // deprecated, not gone
		return err
	}
	if err := RunHooks(ctx, "createRuntime", s.spec.Hooks.CreateRuntime, state); err != nil {
		return err
	}
	return eachHook(ctx, hookList{name: "createContainer", list: s.spec.Hooks.CreateContainer}, state, s.runInside)
}

// awaitsMounts says that the child is waited for, and waits, when its mounts are made.
func (s *start) awaitsMounts() bool { return s.hasCreateHooks() || s.attributes.byParent }

func awaitMounts(s *start, _ context.Context) error {
	if !s.awaitsMounts() {
		return nil
	}
	return s.awaitChild()
}

func (s *start) hasCreateHooks() bool {
	h := s.spec.Hooks
	return h != nil && len(h.Prestart)+len(h.CreateRuntime)+len(h.CreateContainer) > 0 //nolint:staticcheck // as above
}

// awaitHooks: the child says that its mounts are made, and waits for the hooks.
func (w *writer) awaitHooks() error {
	s := w.s
	if !s.awaitsMounts() {
		return nil
	}
	w.Call("say that the mounts are made", unix.SYS_WRITE, descriptor(s.toParent), w.String("h"), 1)
	writeAwait(w.Program, "wait for hooks", descriptor(s.fromParent))
	return nil
}

// RunHooks runs hooks one after another, in this process's namespaces, with the state on their standard input and nothing but their own
// environment. It ends at one that fails.
func RunHooks(ctx context.Context, name string, hooks []specs.Hook, state specs.State) error {
	return eachHook(ctx, hookList{name: name, list: hooks}, state, runOutside(state.Bundle))
}

// PoststopHooks runs those, all of them, and returns each failure: nobody is kept from what another one tidies up (runtime-spec,
// "Lifecycle", 13).
func PoststopHooks(ctx context.Context, hooks *specs.Hooks, state specs.State) error {
	if hooks == nil {
		return nil
	}
	return eachHook(ctx, hookList{name: "poststop", list: hooks.Poststop, all: true}, state, runOutside(state.Bundle))
}

// runOutside runs a hook in this process's namespaces.
func runOutside(bundle string) func(context.Context, specs.Hook, Stdio) error {
	return func(ctx context.Context, h specs.Hook, std Stdio) error {
		cmd := osexec.CommandContext(ctx, h.Path)
		if len(h.Args) > 0 {
			cmd.Args = h.Args
		}
		cmd.Env, cmd.Dir = append([]string{}, h.Env...), bundle
		cmd.Stdin, cmd.Stdout, cmd.Stderr = std.In, std.Out, std.Err
		return cmd.Run()
	}
}

// StartHooks runs the startContainer hooks inside the container, confined as its own processes are, before Start opens the gate. They have
// no environment but their own: that of the program is the image's, and would say what a hook loads and calls.
func (c *Container) StartHooks(ctx context.Context, state specs.State) error {
	if c.spec.Hooks == nil {
		return nil
	}
	return eachHook(ctx, hookList{name: "startContainer", list: c.spec.Hooks.StartContainer}, state, func(ctx context.Context, h specs.Hook, std Stdio) error {
		p := *c.spec.Process
		p.Args, p.Env, p.Cwd, p.Terminal = h.Args, h.Env, "/", false
		if len(h.Args) == 0 {
			p.Args = []string{h.Path}
		}
		made, err := c.Exec(ctx, ExecOptions{Process: &p, Path: h.Path, Stdio: std})
		if err != nil {
			return err
		}
		return reapHook(ctx, made.Pidfd)
	})
}

// hookList are the hooks of one kind.
type hookList struct {
	name string
	list []specs.Hook
	all  bool // also those behind one that fails
}

// eachHook gives every hook its streams and its time. Streams are files in memory: nobody need read along, and no process that a hook
// leaves behind keeps this one waiting.
func eachHook(ctx context.Context, hooks hookList, state specs.State, run func(context.Context, specs.Hook, Stdio) error) error {
	if len(hooks.list) == 0 {
		return nil
	}
	input, err := json.Marshal(state)
	if err != nil {
		return err
	}
	var failed error
	for i, h := range hooks.list {
		if err := oneHook(ctx, h, input, run); err != nil {
			failed = errors.Join(failed, fmt.Errorf("error running %s hook #%d: %s: %w", hooks.name, i, h.Path, err))
		}
		if failed != nil && !hooks.all {
			break
		}
	}
	return failed
}

func oneHook(ctx context.Context, h specs.Hook, input []byte, run func(context.Context, specs.Hook, Stdio) error) error {
	in, err := memoryFile(input)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := memoryFile(nil)
	if err != nil {
		return err
	}
	defer out.Close()
	if h.Timeout != nil {
		var cancel context.CancelFunc
		limit := time.Duration(*h.Timeout) * time.Second
		ctx, cancel = context.WithTimeoutCause(ctx, limit, fmt.Errorf("it did not end within %s and was killed", limit))
		defer cancel()
	}
	err = run(ctx, h, Stdio{In: in, Out: out, Err: out})
	if err == nil {
		return nil
	}
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	said := make([]byte, 4096)
	if n, _ := out.ReadAt(said, 0); n > 0 {
		return fmt.Errorf("%w: %s", err, bytes.TrimSpace(said[:n]))
	}
	return err
}

func memoryFile(content []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate("hook", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "hook")
	if _, err := f.WriteAt(content, 0); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// reapHook waits for a hook that is a child, and kills it when its time is over.
func reapHook(ctx context.Context, pidfd *os.File) error {
	defer pidfd.Close()
	stop := context.AfterFunc(ctx, func() {
		if raw, err := pidfd.SyscallConn(); err == nil {
			_ = raw.Control(func(fd uintptr) { _ = unix.PidfdSendSignal(int(fd), unix.SIGKILL, nil, 0) })
		}
	})
	defer stop()
	status, err := Reap(pidfd)
	switch {
	case err != nil:
	case status.Signal != 0:
		err = fmt.Errorf("signal: %v", unix.Signal(status.Signal))
	case status.Code != 0:
		err = fmt.Errorf("exit status %d", status.Code)
	}
	return err
}

// runInside runs a createContainer hook: the path is the host's, as the child has not pivoted yet, the namespaces are the container's.
func (s *start) runInside(ctx context.Context, h specs.Hook, std Stdio) error {
	args := h.Args
	if len(args) == 0 {
		args = []string{h.Path}
	}
	size := 16 << 10
	for _, list := range [][]string{args, h.Env, {h.Path}} {
		for _, text := range list {
			size += len(text) + 64
		}
	}
	clocks, err := openClocks(s.spec, s.process.Pid, &s.held)
	if err != nil {
		return err
	}
	p, err := newProgram(size, clocks != nil)
	if err != nil {
		return err
	}
	defer p.Close()
	all := unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWNET
	if s.ns.user != nil {
		all |= unix.CLONE_NEWUSER
	}
	if s.ns.sharesMounts() {
		all &^= unix.CLONE_NEWNS
	}
	writeClocks(p, clocks)
	if all, err = s.ns.rights.joinable(s.process.Pid, all); err != nil {
		return err
	}
	if all != 0 {
		p.Call("join the container's namespaces", unix.SYS_SETNS, s.process.Pidfd, all)
	}
	dir, entries, err := openGroup(s.grouping.group, &s.held)
	if err != nil {
		return err
	}
	p.Fork("clone into the container", 0, dir)
	writeEntries(p, entries)
	if !s.ns.sharesMounts() && s.o.Rootfs == nil { // where hooks of bundles find the root file system
		p.Call("go to the root file system", unix.SYS_CHDIR, p.String(s.attachAt()))
	}
	if s.ns.user != nil {
		writeRootInside(p)
	}
	writeStreams(p, processProgram{stdio: std}, nil)
	p.DefaultSignals()
	p.Call("unblock signals", unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, p.Bytes(make([]byte, 8)), nil, 8)
	argv, envp := p.Strings(args), p.Strings(h.Env)
	p.Mark(markExecute)
	p.Call("execute", unix.SYS_EXECVE, p.String(h.Path), argv, envp)
	p.Fail("execute", int(unix.ENOEXEC))
	pr, err := p.Start(0, true)
	if err != nil {
		return err
	}
	if err := pr.Wait(markExecute); err != nil {
		pr.Discard()
		return err
	}
	if err := pr.Release(); err != nil {
		return err
	}
	pidfd, err := sysprog.Pollable(pr.Pidfd)
	if err != nil {
		return errors.Join(err, unix.Close(pr.Pidfd))
	}
	return reapHook(ctx, pidfd)
}
