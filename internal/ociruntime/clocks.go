package ociruntime

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/sysprog"
)

// newProgram makes a program whose child may join a time namespace, where it is to: that takes memory of its own.
func newProgram(size int, apart bool) (*sysprog.Program, error) {
	if apart {
		return sysprog.NewApart(size)
	}
	return sysprog.New(size)
}

func (n *namespaces) newProgram(size int) (*sysprog.Program, error) {
	return newProgram(size, n.joins(unix.CLONE_NEWTIME) || n.forkFlags() != 0)
}

// forkFlags are those of the container's first process: before Linux 6.2 one that is to enter a new time namespace shares no memory.
func (n *namespaces) forkFlags() uint64 {
	if n.create&unix.CLONE_NEWTIME == 0 || kernelIs(6, 2) {
		return 0
	}
	return sysprog.ForkApart
}

// kernelIs says that the kernel is of that version or a later one.
func kernelIs(major, minor int) bool {
	var u unix.Utsname
	var a, b int
	if unix.Uname(&u) == nil {
		_, _ = fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &a, &b)
	}
	return a > major || a == major && b >= minor
}

// makeTime makes the time namespace and sets its clocks, before anybody is in it: its first process is the user's program, at its execve.
func (w *writer) makeTime() error {
	text, err := clockOffsets(w.s.spec.Linux.TimeOffsets)
	if err != nil {
		return err
	}
	if w.s.ns.create&unix.CLONE_NEWTIME == 0 {
		if text != "" {
			return errors.New("linux.timeOffsets: they need a new time namespace (linux.namespaces)")
		}
		return nil
	}
	w.Call("make a time namespace", unix.SYS_UNSHARE, unix.CLONE_NEWTIME)
	if text == "" {
		return nil
	}
	f := w.Store(w.Call("open the clocks", unix.SYS_OPENAT, here, w.String("/proc/self/timens_offsets"), unix.O_WRONLY|unix.O_CLOEXEC, 0))
	w.Call("set the clocks to "+strings.ReplaceAll(strings.TrimSpace(text), "\n", ", "), unix.SYS_WRITE, f, w.String(text), len(text))
	w.Call("close the clocks", unix.SYS_CLOSE, f)
	return nil
}

// clockOffsets is what the kernel reads from /proc/PID/timens_offsets (time_namespaces(7)).
func clockOffsets(offsets map[string]specs.LinuxTimeOffset) (string, error) {
	for clock := range offsets {
		if clock != "monotonic" && clock != "boottime" {
			return "", fmt.Errorf("linux.timeOffsets: %q is no clock with an offset: there are monotonic and boottime", clock)
		}
	}
	var text strings.Builder
	for _, clock := range []string{"monotonic", "boottime"} {
		if o, ok := offsets[clock]; ok {
			fmt.Fprintf(&text, "%s %d %d\n", clock, o.Secs, o.Nanosecs)
		}
	}
	return text.String(), nil
}

// openClocks opens a container's time namespace; nil for one that has the runtime's. Its first process is in it only from its execve on.
func openClocks(spec *specs.Spec, pid int, h *held) (*os.File, error) {
	for _, ns := range spec.Linux.Namespaces {
		if ns.Type == specs.TimeNamespace {
			f, err := os.Open("/proc/" + strconv.Itoa(pid) + "/ns/time_for_children")
			return h.keep(f), err
		}
	}
	return nil, nil
}

func writeClocks(p *sysprog.Program, clocks *os.File) {
	if clocks != nil {
		p.Call("join the container's time namespace", unix.SYS_SETNS, descriptor(clocks), unix.CLONE_NEWTIME)
	}
}
