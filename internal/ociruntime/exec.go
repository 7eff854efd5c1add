package ociruntime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/cgroup"
	"wherry.dev/wherry/internal/sysprog"
)

// ExecOptions describe one more process in a container.
type ExecOptions struct {
	Process *specs.Process // args, env, cwd, user, capabilities, no_new_privs, terminal, consoleSize as in the spec
	// Path is what is executed, a hook, with the environment as it is; empty: the first argument, looked for in PATH.
	Path  string
	Stdio Stdio
	// Cgroup is a group inside the container's, nil for that itself.
	Cgroup *cgroup.Group
	// PreserveFDs are descriptors 3… that the program inherits.
	PreserveFDs int
	// NoNewKeyring leaves the program in the session keyring of its creator.
	NoNewKeyring bool
	// KeepGroups leaves the program the supplementary groups of this process, in place of its configuration's.
	KeepGroups bool
	// LineEnds leaves those that the program writes to its terminal as they are.
	LineEnds bool
}

// Process is a running exec, a child of this process.
type Process struct {
	Pid     int
	Pidfd   *os.File
	Console *os.File
}

// Exec runs a process in the container's namespaces and cgroup with the same confinement as its init; it returns when execve has
// happened, or an *ExecError.
func (c *Container) Exec(ctx context.Context, o ExecOptions) (*Process, error) {
	e := &exec{c: c, o: o, filter: c.filter}
	err := e.prepare()
	if err == nil {
		err = e.write()
	}
	if err != nil {
		e.closeConsole()
		e.close()
		return nil, err
	}
	return e.run()
}

// exec is one Exec under way.
type exec struct {
	c              *Container
	o              ExecOptions
	filter         filter
	listening      sysprog.Word
	gate           *os.File // its write side, where the process waits for a listener to be sent
	program        *sysprog.Program
	execs          execPaths
	held           held
	rights         rights
	console, slave *os.File
	attributes     attributes
	score          *int         // what this process sets; nil: nothing
	scored         sysprog.Word // where the process waits for that
	pipes                       // where this process sets something before the program
}

func (e *exec) close() {
	e.held.close()
	e.pipes.close()
	if e.program != nil {
		e.program.Close()
	}
}

func (e *exec) prepare() (err error) {
	if e.rights, err = readRights(); err != nil {
		return err
	}
	if err := e.rights.checkUser(e.o.Process.User, e.c.spec.Linux); err != nil {
		return err
	}
	if e.o.Path == "" { // a hook has its own
		e.o.Process = e.ownEnvironment()
	}
	owner := e.c.ids.Host(int(e.o.Process.User.UID))
	if e.o.Process.Terminal {
		if e.c.devpts == nil {
			return fmt.Errorf("a terminal is asked for, but the container has no devpts")
		}
		if e.console, e.slave, err = openPty(e.c.devpts, owner, e.o.Process.ConsoleSize); err != nil {
			return err
		}
		e.held.keep(e.slave)
		if e.o.LineEnds {
			KeepLineEnds(e.console)
		}
		e.o.Stdio = Stdio{e.slave, e.slave, e.slave}
	}
	if e.o.Stdio, err = fillStdio(e.o.Stdio, owner, e.held.keep); err != nil {
		return err
	}
	return nil
}

// fillStdio opens /dev/null for streams that are nil, and gives pipes to the process's user, who may then open them again by
// /dev/stdout and /dev/stderr.
func fillStdio(s Stdio, owner int, keep func(*os.File) *os.File) (Stdio, error) {
	for _, f := range []**os.File{&s.In, &s.Out, &s.Err} {
		if *f != nil {
			if err := ownPipe(*f, owner); err != nil {
				return s, err
			}
			continue
		}
		null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
		if err != nil {
			return s, err
		}
		*f = keep(null)
	}
	return s, nil
}

// ownPipe gives a pipe to a user; one of somebody else's stays theirs.
func ownPipe(f *os.File, owner int) error {
	st, err := f.Stat()
	if err != nil || st.Mode().Type() != os.ModeNamedPipe {
		return err
	}
	if err := f.Chown(owner, -1); err != nil && !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("give a stream's pipe to user %d: %w", owner, err)
	}
	return nil
}

// write is the exec's program: join everything that the container's init has, by its pidfd, then become the process.
func (e *exec) write() (err error) {
	size := 64<<10 + len(e.filter.code) + 4*len(e.o.Process.User.AdditionalGids)
	for _, list := range [][]string{e.o.Process.Args, e.o.Process.Env} {
		for _, s := range list {
			size += len(s) + 64
		}
	}
	clocks, err := openClocks(e.c.spec, e.c.Pid(), &e.held)
	if err != nil {
		return err
	}
	if e.program, err = newProgram(size, clocks != nil); err != nil {
		return err
	}
	p := e.program
	pidfd := e.c.process.Pidfd
	all := unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWNET
	groups, err := e.cgroupNamespace()
	if err != nil {
		return err
	}
	if groups == nil {
		all |= unix.CLONE_NEWCGROUP
	}
	if e.c.userns != nil {
		all |= unix.CLONE_NEWUSER // in one call: the right to join is judged by the rights from before
	}
	limits, err := rlimitsOf(e.o.Process.Rlimits)
	if err != nil {
		return err
	}
	writeRaise(p, limits)
	if err := e.writeAttributes(); err != nil {
		return err
	}
	root, err := e.sharedRoot()
	if err != nil {
		return err
	}
	if root != nil {
		all &^= unix.CLONE_NEWNS
	}
	writeClocks(p, clocks)
	if all, err = e.rights.joinable(e.c.Pid(), all); err != nil {
		return err
	}
	if all != 0 {
		p.Call("join the container's namespaces", unix.SYS_SETNS, pidfd, all)
	}
	group := e.group()
	if err := e.rights.checkEntry(group); err != nil {
		return err
	}
	dir, entries, err := openGroup(group, &e.held)
	if err != nil {
		return err
	}
	p.Fork("clone into the container", 0, dir)
	writeEntries(p, entries)
	e.writeMeeting()
	labels, err := labelsOf(e.o.Process, e.c.spec.Process)
	if err != nil {
		return err
	}
	if err := writeLabels(p, labels, &e.held); err != nil {
		return err
	}
	if groups != nil {
		p.Call("join the container's cgroup namespace", unix.SYS_SETNS, descriptor(groups), unix.CLONE_NEWCGROUP)
	}
	if e.c.userns != nil {
		writeRootInside(p)
	}
	if root != nil {
		p.Call("enter the root file system", unix.SYS_FCHDIR, descriptor(root))
		p.Call("change the root", unix.SYS_CHROOT, p.String("."))
	}
	pp := processProgram{process: e.o.Process, stdio: e.o.Stdio, terminal: e.slave, filter: e.filter, rlimits: limits, keyring: !e.o.NoNewKeyring, preserve: e.o.PreserveFDs}
	pp.path, pp.noGroups = e.o.Path, e.rights.noGroups || e.o.KeepGroups
	gate, err := e.openGate(p)
	if err != nil {
		return err
	}
	if e.score = oomScore(e.o.Process.OOMScoreAdj, e.c.oomScore); e.score != nil { // or what it makes at once would keep this process's
		e.scored = sysprog.Stand(p, "wait for its chance to be killed for want of memory")
	}
	if moved := writeStreams(p, pp, gate); gate != nil {
		pp.gate = moved
	}
	written, err := writeProcess(p, pp)
	e.execs, e.listening = written.execPaths, written.listening
	return err
}

// sharedRoot opens the root of a container that lives in this process's mount namespace; nil for all others, whose namespace has it.
func (e *exec) sharedRoot() (*os.File, error) {
	for _, ns := range e.c.spec.Linux.Namespaces {
		if ns.Type == specs.MountNamespace {
			return nil, nil
		}
	}
	root := e.c.rootOf()
	if root == nil {
		return nil, fmt.Errorf("the container's process %d is gone", e.c.Pid())
	}
	return e.held.keep(root), nil
}

// group is the control group that the process begins in.
func (e *exec) group() *cgroup.Group {
	if e.o.Cgroup != nil || e.c.cgroup == nil {
		return e.o.Cgroup
	}
	return cgroup.Entrance(e.c.cgroup, e.c.Pid())
}

// cgroupNamespace opens the namespace that the container's init made for itself. It is joined after the clone into the group: where
// namespaces are borders of delegation (the mount option nsdelegate, which service managers set), nobody is moved across from within.
func (e *exec) cgroupNamespace() (*os.File, error) {
	for _, ns := range e.c.spec.Linux.Namespaces {
		if ns.Type == specs.CgroupNamespace && ns.Path == "" {
			f, err := os.Open("/proc/" + strconv.Itoa(e.c.Pid()) + "/ns/cgroup")
			return e.held.keep(f), err
		}
	}
	return nil, nil
}

// openGate makes the gate at which the process waits until its seccomp listener has been sent; nil where there is none.
func (e *exec) openGate(p *sysprog.Program) (*os.File, error) {
	if e.filter.listener == nil {
		return nil, nil
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	e.gate = e.held.keep(w)
	e.held.keep(r)
	p.Call("close the parent's end", unix.SYS_CLOSE, descriptor(w))
	return r, unix.SetNonblock(descriptor(r), false)
}

// sendListener sends the process's seccomp listener to its agent and lets the process go on.
func (e *exec) sendListener(pr *sysprog.Process) error {
	l := e.filter.listener
	if l == nil {
		return nil
	}
	if err := l.send(pr, e.listening, l.state); err != nil {
		return err
	}
	_, err := e.gate.Write([]byte{'s'})
	return err
}

// run executes the program. What was held for it is given back beside the caller, who has somebody waiting.
func (e *exec) run() (*Process, error) {
	pr, err := e.program.Start(0, true)
	if err != nil {
		e.closeConsole()
		e.close()
		return nil, fmt.Errorf("enter the container: %w", err)
	}
	p, err := e.follow(pr)
	if err != nil {
		defer e.close()
		return nil, e.failed(pr, err)
	}
	go func() {
		_ = pr.Release()
		e.close()
	}()
	return p, nil
}

// follow goes with the process until it executes.
func (e *exec) follow(pr *sysprog.Process) (*Process, error) {
	if e.score != nil {
		setOOMScore(pr.Pid, e.score)
		pr.Pass(e.scored)
	}
	if err := e.meet(pr); err != nil {
		return nil, err
	}
	if err := e.sendListener(pr); err != nil {
		return nil, err
	}
	if err := pr.Wait(markExecute); err != nil {
		return nil, err
	}
	pidfd, err := sysprog.Pollable(pr.Pidfd)
	if err != nil {
		return nil, err
	}
	return &Process{Pid: pr.Pid, Pidfd: pidfd, Console: e.console}, nil
}

// failed ends a process that did not come to its program and says why.
func (e *exec) failed(pr *sysprog.Process, err error) error {
	pr.Discard()
	e.closeConsole()
	root := e.c.rootOf()
	if root != nil {
		defer root.Close()
	}
	return diagnose(err, e.program, e.execs, view{root: root, cwd: e.o.Process.Cwd})
}

func (e *exec) closeConsole() {
	if e.console != nil {
		e.console.Close()
	}
}
