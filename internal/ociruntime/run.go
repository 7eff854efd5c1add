package ociruntime

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/sysprog"
)

// Start lets the init process execute the user's program and returns when execve has happened, or an *ExecError when it did not.
func (c *Container) Start() error {
	if c.gate == nil {
		return errors.New("the container was created with a gate of its caller's")
	}
	if _, err := c.gate.Write([]byte{'s'}); err != nil {
		return fmt.Errorf("open the gate: %w", err)
	}
	return c.WaitExecuted()
}

// WaitExecuted returns when the init process has executed the user's program, or an *ExecError.
func (c *Container) WaitExecuted() error {
	if err := c.process.Wait(markExecute); err != nil {
		return diagnose(err, c.program, c.execs, c.files)
	}
	if c.gate != nil {
		c.gate.Close()
		c.gate = nil
	}
	c.files.root.Close()
	c.files.root = nil
	c.files.close()
	return c.program.Close()
}

// rootOf opens the container's root as it is now.
func (c *Container) rootOf() *os.File {
	f, err := os.OpenFile("/proc/"+strconv.Itoa(c.Pid())+"/root", unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil
	}
	return f
}

// setOOMScore sets what the kernel permits: without CAP_SYS_RESOURCE a value below the inherited one is refused and left.
func setOOMScore(pid int, want *int, otherwise int) {
	adj := otherwise
	if want != nil {
		adj = *want
	}
	_ = os.WriteFile("/proc/"+strconv.Itoa(pid)+"/oom_score_adj", []byte(strconv.Itoa(adj)), 0)
}

var rlimitNumbers = map[string]int{"RLIMIT_AS": unix.RLIMIT_AS, "RLIMIT_CORE": unix.RLIMIT_CORE, "RLIMIT_CPU": unix.RLIMIT_CPU,
	"RLIMIT_DATA": unix.RLIMIT_DATA, "RLIMIT_FSIZE": unix.RLIMIT_FSIZE, "RLIMIT_LOCKS": unix.RLIMIT_LOCKS, "RLIMIT_MEMLOCK": unix.RLIMIT_MEMLOCK,
	"RLIMIT_MSGQUEUE": unix.RLIMIT_MSGQUEUE, "RLIMIT_NICE": unix.RLIMIT_NICE, "RLIMIT_NOFILE": unix.RLIMIT_NOFILE, "RLIMIT_NPROC": unix.RLIMIT_NPROC,
	"RLIMIT_RSS": unix.RLIMIT_RSS, "RLIMIT_RTPRIO": unix.RLIMIT_RTPRIO, "RLIMIT_RTTIME": unix.RLIMIT_RTTIME,
	"RLIMIT_SIGPENDING": unix.RLIMIT_SIGPENDING, "RLIMIT_STACK": unix.RLIMIT_STACK}

// setRlimits sets resource limits; without CAP_SYS_RESOURCE a hard limit above the inherited one becomes the inherited one.
func setRlimits(pid int, limits []specs.POSIXRlimit) error {
	for _, l := range limits {
		nr, ok := rlimitNumbers[l.Type]
		if !ok {
			return fmt.Errorf("resource limit %q is unknown", l.Type)
		}
		want := unix.Rlimit{Cur: l.Soft, Max: l.Hard}
		err := unix.Prlimit(pid, nr, &want, nil)
		if errors.Is(err, unix.EPERM) {
			var have unix.Rlimit
			if err := unix.Prlimit(pid, nr, nil, &have); err != nil {
				return err
			}
			want.Max = min(want.Max, have.Max)
			want.Cur = min(want.Cur, want.Max)
			err = unix.Prlimit(pid, nr, &want, nil)
		}
		if err != nil {
			return fmt.Errorf("set %s to %d:%d: %w", l.Type, l.Soft, l.Hard, err)
		}
	}
	return nil
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
