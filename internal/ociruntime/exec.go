package ociruntime

import (
	"context"
	"fmt"
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/sysprog"
)

// ExecOptions describe one more process in a container.
type ExecOptions struct {
	Process *specs.Process // args, env, cwd, user, capabilities, no_new_privs, terminal, consoleSize as in the spec
	Stdio   Stdio
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
	filter, err := filterOf(c.spec)
	if err != nil {
		return nil, err
	}
	e := &exec{c: c, o: o, filter: filter}
	defer e.close()
	if err := e.prepare(); err != nil {
		return nil, err
	}
	if err := e.write(); err != nil {
		return nil, err
	}
	return e.run()
}

// exec is one Exec under way.
type exec struct {
	c               *Container
	o               ExecOptions
	filter          []byte
	program         *sysprog.Program
	execs           execPaths
	files           []*os.File
	console, slave  *os.File
	gateIn, gateOut *os.File
}

func (e *exec) close() {
	for _, f := range e.files {
		f.Close()
	}
	if e.program != nil {
		e.program.Close()
	}
}

func (e *exec) keep(f *os.File) *os.File {
	e.files = append(e.files, f)
	return f
}

func (e *exec) prepare() (err error) {
	if e.o.Process.Terminal {
		if e.c.devpts == nil {
			return fmt.Errorf("a terminal is asked for, but the container has no devpts")
		}
		owner := e.c.hostID(int(e.o.Process.User.UID))
		if e.console, e.slave, err = openPty(e.c.devpts, owner, e.o.Process.ConsoleSize); err != nil {
			return err
		}
		e.keep(e.slave)
		e.o.Stdio = Stdio{e.slave, e.slave, e.slave}
	}
	if e.o.Stdio, err = fillStdio(e.o.Stdio, e.keep); err != nil {
		return err
	}
	if e.gateIn, e.gateOut, err = os.Pipe(); err != nil {
		return err
	}
	e.keep(e.gateIn)
	e.keep(e.gateOut)
	return nil
}

// fillStdio opens /dev/null for streams that are nil.
func fillStdio(s Stdio, keep func(*os.File) *os.File) (Stdio, error) {
	for _, f := range []**os.File{&s.In, &s.Out, &s.Err} {
		if *f != nil {
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

// write is the exec's program: join everything that the container's init has, by its pidfd, then become the process.
func (e *exec) write() (err error) {
	size := 64<<10 + len(e.filter)
	for _, list := range [][]string{e.o.Process.Args, e.o.Process.Env} {
		for _, s := range list {
			size += len(s) + 64
		}
	}
	if e.program, err = sysprog.New(size); err != nil {
		return err
	}
	p := e.program
	pidfd := e.c.process.Pidfd
	all := unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWNET | unix.CLONE_NEWCGROUP
	if e.c.userns != nil {
		all |= unix.CLONE_NEWUSER // in one call: the right to join is judged by the rights from before
	}
	p.Call("join the container's namespaces", unix.SYS_SETNS, pidfd, all)
	group := -1
	if e.c.cgroup != nil {
		if dir, ok := e.c.cgroup.Dir(); ok {
			f, err := os.Open(dir)
			if err != nil {
				return err
			}
			group = int(e.keep(f).Fd())
		}
	}
	p.Fork("clone into the container", 0, group)
	p.Call("close the parent's end", unix.SYS_CLOSE, descriptor(e.gateOut))
	writeAwait(p, "wait for the control group", int(e.gateIn.Fd()))
	if e.c.userns != nil {
		p.Call("become root of the user namespace", unix.SYS_SETRESGID, 0, 0, 0)
		p.Call("become root of the user namespace", unix.SYS_SETRESUID, 0, 0, 0)
	}
	pp := processProgram{process: e.o.Process, stdio: e.o.Stdio, terminal: e.slave, filter: e.filter, keyring: true}
	writeStreams(p, pp, nil)
	e.execs, err = writeProcess(p, pp)
	return err
}

func (e *exec) run() (*Process, error) {
	pr, err := e.program.Start(0, true)
	if err != nil {
		e.closeConsole()
		return nil, fmt.Errorf("enter the container: %w", err)
	}
	err = e.release(pr)
	if err == nil {
		err = pr.Wait(markExecute)
	}
	if err != nil {
		return nil, e.failed(pr, err)
	}
	pidfd, err := sysprog.Pollable(pr.Pidfd)
	if err != nil {
		return nil, e.failed(pr, err)
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
	return diagnose(err, e.program, e.execs, root)
}

// release puts the process into its control groups and limits, and lets it go on.
func (e *exec) release(pr *sysprog.Process) error {
	if e.c.cgroup != nil {
		if err := e.c.cgroup.Add(pr.Pid); err != nil {
			return err
		}
	}
	if err := setRlimits(pr.Pid, e.o.Process.Rlimits); err != nil {
		return err
	}
	setOOMScore(pr.Pid, e.o.Process.OOMScoreAdj, e.c.oomScore)
	_, err := e.gateOut.Write([]byte{'p'})
	return err
}

func (e *exec) closeConsole() {
	if e.console != nil {
		e.console.Close()
	}
}
