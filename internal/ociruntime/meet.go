package ociruntime

import (
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/sysprog"
)

// writeAttributes begins an exec's program with what needs the rights of this process.
func (e *exec) writeAttributes() (err error) {
	first := e.c.spec.Process
	if first == nil {
		first = &specs.Process{}
	}
	if e.attributes, err = attributesOf(e.c.spec.Linux, e.o.Process, first, e.c.userns != nil); err != nil {
		return err
	}
	if err = e.attributes.affinity(e.o.Process, first); err != nil {
		return err
	}
	if err = e.attributes.joinClass(e.c.spec.Linux, e.c.Pid()); err != nil {
		return err
	}
	e.attributes.writeEarly(e.program)
	if !e.attributes.byParent && e.oomScore() == ownOOMScore() {
		return nil
	}
	if e.fromParent, e.toChild, err = os.Pipe(); err != nil || !e.attributes.byParent {
		return err
	}
	e.fromChild, e.toParent, err = os.Pipe()
	return err
}

// writeMeeting appends what depends on the control groups, and the wait for what this process sets: what the program begins would have the
// engine's score otherwise.
func (e *exec) writeMeeting() {
	e.attributes.writeLate(e.program)
	if e.fromParent == nil {
		return
	}
	p := e.program
	p.Call("close the parent's end", unix.SYS_CLOSE, descriptor(e.toChild))
	_ = unix.SetNonblock(descriptor(e.fromParent), false) // the child has no poller
	if e.attributes.byParent {
		p.Call("close the parent's end", unix.SYS_CLOSE, descriptor(e.fromChild))
		p.Call("say that the groups are entered", unix.SYS_WRITE, descriptor(e.toParent), p.String("a"), 1)
	}
	writeAwait(p, "wait for what the parent sets", descriptor(e.fromParent))
}

// meet sets what the child may not set itself. A child that does not come as far says why.
func (e *exec) meet(pr *sysprog.Process) error {
	if e.fromParent == nil {
		return nil
	}
	e.fromParent.Close()
	setOOMScore(pr.Pid, e.oomScore())
	if e.attributes.byParent {
		e.toParent.Close()
		if n, _ := e.fromChild.Read(make([]byte, 1)); n == 0 {
			return pr.Wait(markExecute)
		}
		if err := e.attributes.setByParent(pr.Pid); err != nil {
			return err
		}
	}
	_, _ = e.toChild.Write([]byte{'a'}) // nobody reads it: the child is gone, and is asked next
	return nil
}

func (e *exec) oomScore() int { return oomScore(e.o.Process.OOMScoreAdj, e.c.oomScore) }

func (p *pipes) close() {
	for _, f := range []*os.File{p.toChild, p.fromParent, p.fromChild, p.toParent} {
		if f != nil {
			f.Close()
		}
	}
}
