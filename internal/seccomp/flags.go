package seccomp

import (
	"fmt"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// The newest of the kernel's SECCOMP_FILTER_FLAG_* and its neighbour, which x/sys does not name on all architectures.
const (
	flagTsyncESRCH       = 1 << 4
	flagWaitKillableRecv = 1 << 5
)

var filterFlags = map[specs.LinuxSeccompFlag]int{
	"SECCOMP_FILTER_FLAG_TSYNC": unix.SECCOMP_FILTER_FLAG_TSYNC, specs.LinuxSeccompFlagLog: unix.SECCOMP_FILTER_FLAG_LOG,
	specs.LinuxSeccompFlagSpecAllow: unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW, specs.LinuxSeccompFlagWaitKillableRecv: flagWaitKillableRecv,
}

// Flags are those of seccomp(2) with which a profile's filter is loaded.
func Flags(p *specs.LinuxSeccomp) (int, error) {
	flags := 0
	for _, name := range p.Flags {
		f, ok := filterFlags[name]
		if !ok {
			return 0, fmt.Errorf("seccomp flag %q is unknown", name)
		}
		flags |= f
	}
	if !Notifies(p) {
		return flags &^ flagWaitKillableRecv, nil // how a listener is waited for: the kernel refuses it without one
	}
	flags |= unix.SECCOMP_FILTER_FLAG_NEW_LISTENER
	if flags&unix.SECCOMP_FILTER_FLAG_TSYNC != 0 {
		flags |= flagTsyncESRCH // the result is the listener's descriptor and cannot be a thread's number too
	}
	return flags, nil
}

// KnownFlags are the names that a profile may list.
func KnownFlags() []string {
	var out []string
	for name := range filterFlags {
		out = append(out, string(name))
	}
	slices.Sort(out)
	return out
}

// Notifies says that a profile asks somebody outside about system calls.
func Notifies(p *specs.LinuxSeccomp) bool {
	for _, sc := range p.Syscalls {
		if sc.Action == specs.ActNotify {
			return true
		}
	}
	return p.DefaultAction == specs.ActNotify
}
