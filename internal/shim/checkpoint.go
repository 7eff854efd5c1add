package shim

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Checkpoint is what is made of a container that runs: a folder with its processes.
type Checkpoint struct {
	Dir  string `json:"dir"`  // is written to, and there already
	Into string `json:"into"` // its name once all is on the disk; before that no process has gone on or ended

	LeaveRunning bool   `json:"leaveRunning,omitempty"`
	Criu         string `json:"criu"` // the program's path
}

// Restore is the checkpoint that a container goes on from.
type Restore struct {
	Dir  string `json:"dir"`
	Criu string `json:"criu"`
}

// Pipes are the kernel's names of the pipes that are the container's standard streams; empty for what is none.
type Pipes [3]string

func (s *Server) checkpoint(ctx context.Context, r Request) error {
	s.mu.Lock()
	c, started, out := s.life.container, s.life.started, s.life.output
	s.mu.Unlock()
	switch {
	case c == nil || !started || s.hasEnded():
		return errors.New("the container does not run")
	case r.Checkpoint == nil:
		return errors.New("nothing is said of the checkpoint")
	case c.Console() != nil:
		return errors.New("the container has a terminal, whose other side is held outside of it: only containers without one can be checkpointed")
	}
	return c.Checkpoint(ctx, *r.Checkpoint, out.names())
}

// names are those of the pipes, whichever process of the container holds them.
func (o *output) names() (names Pipes) {
	files := [3]*os.File{o.stdin}
	for i, p := range o.pipes {
		if !p.terminal && i < 2 {
			files[i+1] = p.from
		}
	}
	for i, f := range files {
		if f == nil {
			continue
		}
		raw, err := f.SyscallConn()
		if err != nil {
			continue // closed: nobody writes to the container any more
		}
		_ = raw.Control(func(fd uintptr) {
			var st unix.Stat_t
			if unix.Fstat(int(fd), &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFIFO {
				names[i] = fmt.Sprintf("pipe:[%d]", st.Ino)
			}
		})
	}
	return names
}
