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
	if !e.attributes.byParent {
		return nil
	}
	if e.fromParent, e.toChild, err = os.Pipe(); err != nil {
		return err
	}
	e.fromChild, e.toParent, err = os.Pipe()
	return err
}

// writeMeeting appends what depends on the control groups, and the wait for what this process sets.
func (e *exec) writeMeeting() {
	e.attributes.writeLate(e.program)
	if !e.attributes.byParent {
		return
	}
	p := e.program
	p.Call("close the parent's end", unix.SYS_CLOSE, descriptor(e.toChild))
	p.Call("close the parent's end", unix.SYS_CLOSE, descriptor(e.fromChild))
	_ = unix.SetNonblock(descriptor(e.fromParent), false) // the child has no poller
	p.Call("say that the groups are entered", unix.SYS_WRITE, descriptor(e.toParent), p.String("a"), 1)
	writeAwait(p, "wait for the scheduler", descriptor(e.fromParent))
}

// meet sets what the child may not set itself. A child that does not come as far says why.
func (e *exec) meet(pr *sysprog.Process) error {
	if !e.attributes.byParent {
		return nil
	}
	e.fromParent.Close()
	e.toParent.Close()
	if n, _ := e.fromChild.Read(make([]byte, 1)); n == 0 {
		return pr.Wait(markExecute)
	}
	if err := e.attributes.setByParent(pr.Pid); err != nil {
		return err
	}
	_, err := e.toChild.Write([]byte{'a'})
	return err
}

func (p *pipes) close() {
	for _, f := range []*os.File{p.toChild, p.fromParent, p.fromChild, p.toParent} {
		if f != nil {
			f.Close()
		}
	}
}
