package ociruntime

import (
	"errors"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/sysprog"
)

// Start lets the init process execute the user's program and returns when execve has happened, or an *ExecError when it did not.
func (c *Container) Start() error {
	if c.gate == nil {
		return errors.New("the container was created with a gate of its caller's")
	}
	_, gone := c.gate.Write([]byte{'s'})
	if err := c.WaitExecuted(); err != nil {
		return err // a process that did not come as far as its gate says why
	}
	return gone
}

// Keep lets a process that waits at a gate of the caller's outlive this one: it can be found now.
func (c *Container) Keep() error {
	if c.gate == nil {
		return nil
	}
	_, err := c.gate.Write([]byte{'k'})
	err = errors.Join(err, c.gate.Close())
	c.gate = nil
	return err
}

// WaitExecuted returns when the init process has executed the user's program, or an *ExecError. It is called once.
func (c *Container) WaitExecuted() error {
	if err := c.process.Wait(markExecute); err != nil {
		err = diagnose(err, c.program, c.execs, c.files)
		go release(c.process, c.program)
		return err
	}
	c.told.times = c.told.clock.Parts()
	if c.gate != nil {
		c.gate.Close()
		c.gate = nil
	}
	c.files.root.Close()
	c.files.root = nil
	c.files.close()
	parts := c.files.parts
	c.files.parts = held{}
	go func() { // nobody needs to wait for that
		release(c.process, c.program)
		parts.close()
	}()
	return nil
}

// Times are the stages of the child's program and how long each took, up to the execve; empty without CreateOptions.Measure.
func (c *Container) Times() []sysprog.Part { return c.told.times }

// release gives a program's memory back when nobody shares it any more.
func release(pr *sysprog.Process, p *sysprog.Program) {
	_ = pr.Release()
	_ = p.Close()
}

// rootOf opens the container's root as it is now; nil where its first process has gone: the number may be another's by then.
func (c *Container) rootOf() *os.File {
	f, err := os.OpenFile("/proc/"+strconv.Itoa(c.Pid())+"/root", unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil
	}
	if err := unix.PidfdSendSignal(c.process.Pidfd, 0, nil, 0); err != nil {
		f.Close()
		return nil
	}
	return f
}

// oomScore is what a process gets that would not have it from this one; nil: it has it.
func oomScore(want *int, otherwise int) *int {
	if want == nil {
		want = &otherwise
	}
	if *want == ownOOMScore() {
		return nil
	}
	return want
}

// setOOMScore sets what the kernel permits: without CAP_SYS_RESOURCE a value below the inherited one is refused and left.
func setOOMScore(pid int, score *int) {
	if score != nil {
		_ = os.WriteFile("/proc/"+strconv.Itoa(pid)+"/oom_score_adj", []byte(strconv.Itoa(*score)), 0)
	}
}

// ownOOMScore is this process's, which its children have from their beginning.
func ownOOMScore() int {
	b, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		return 0
	}
	adj, _ := strconv.Atoi(strings.TrimSpace(string(b)))
	return adj
}

// Status is how a process ended.
type Status struct {
	Code   int // exit code; 128+n for signal n
	Signal int // 0: it exited by itself
}

// Reap waits until a child is dead, by its pidfd, and takes its status. A ptrace stop is not an end: only exits are waited for.
func Reap(pidfd *os.File) (Status, error) {
	code, signal, err := sysprog.Status(pidfd)
	if err != nil {
		return Status{}, err
	}
	if signal != 0 {
		code = 128 + signal
	}
	return Status{Code: code, Signal: signal}, nil
}
