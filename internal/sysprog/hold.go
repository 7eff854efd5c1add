package sysprog

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Holder is a process that does nothing: it stands where a place must not be empty. It ends with the process that made it.
type Holder struct {
	Pid     int
	process *Process
	program *Program
	pipe    *os.File
}

// Hold clones one. It has no descriptor but the end of a pipe, which tells it of this process's end.
func Hold() (*Holder, error) {
	if err := Protect(); err != nil {
		return nil, err
	}
	program, err := New(64)
	if err != nil {
		return nil, err
	}
	read, write, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, program.Close())
	}
	defer read.Close()
	fd := int(read.Fd())
	if fd > 0 {
		program.Call("close what it inherits", unix.SYS_CLOSE_RANGE, 0, fd-1, 0)
	}
	program.Call("close what it inherits", unix.SYS_CLOSE_RANGE, fd+1, uintptr(^uint32(0)), 0)
	program.Call("wait for the end of its maker", unix.SYS_READ, fd, program.Bytes(make([]byte, 8)), 1)
	program.Call("end", unix.SYS_EXIT_GROUP, 0)
	process, err := program.Start(0, false)
	if err != nil {
		write.Close()
		return nil, errors.Join(fmt.Errorf("start a process that holds a place: %w", err), program.Close())
	}
	return &Holder{Pid: process.Pid, process: process, program: program, pipe: write}, nil
}

// Release ends it.
func (h *Holder) Release() {
	h.process.Discard()
	h.pipe.Close()
	_ = h.program.Close()
}
