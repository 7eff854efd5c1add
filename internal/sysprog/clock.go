package sysprog

import (
	"time"

	"golang.org/x/sys/unix"
)

// Clock has a program note when its parts begin. A nil Clock adds nothing to a program.
type Clock struct {
	p      *Program
	begins []begin
}

// begin is where a child notes the time (struct timespec) at which a part begins.
type begin struct {
	name string
	at   uintptr
}

// Part is one part of a program and how long the child took for it.
type Part struct {
	Name string
	Took time.Duration
}

// NewClock makes a clock for a program.
func NewClock(p *Program) *Clock { return &Clock{p: p} }

// Begin appends that a part of the program begins.
func (c *Clock) Begin(name string) {
	if c == nil {
		return
	}
	at := c.p.words([]uint64{0, 0})
	c.p.Call("look at the clock", unix.SYS_CLOCK_GETTIME, unix.CLOCK_MONOTONIC, at)
	c.begins = append(c.begins, begin{name, at})
}

// Parts are those that the child has come to an end of. The caller knows that it runs the program no more.
func (c *Clock) Parts() []Part {
	if c == nil {
		return nil
	}
	var out []Part
	for i := 1; i < len(c.begins) && c.read(i) != 0; i++ {
		out = append(out, Part{Name: c.begins[i-1].name, Took: c.read(i) - c.read(i-1)})
	}
	return out
}

func (c *Clock) read(i int) time.Duration {
	at := c.begins[i].at
	return time.Duration(c.p.load(at))*time.Second + time.Duration(c.p.load(at+8))
}
