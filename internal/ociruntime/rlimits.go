package ociruntime

import (
	"encoding/binary"
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/sysprog"
)

var rlimitNumbers = map[string]int{"RLIMIT_AS": unix.RLIMIT_AS, "RLIMIT_CORE": unix.RLIMIT_CORE, "RLIMIT_CPU": unix.RLIMIT_CPU,
	"RLIMIT_DATA": unix.RLIMIT_DATA, "RLIMIT_FSIZE": unix.RLIMIT_FSIZE, "RLIMIT_LOCKS": unix.RLIMIT_LOCKS, "RLIMIT_MEMLOCK": unix.RLIMIT_MEMLOCK,
	"RLIMIT_MSGQUEUE": unix.RLIMIT_MSGQUEUE, "RLIMIT_NICE": unix.RLIMIT_NICE, "RLIMIT_NOFILE": unix.RLIMIT_NOFILE, "RLIMIT_NPROC": unix.RLIMIT_NPROC,
	"RLIMIT_RSS": unix.RLIMIT_RSS, "RLIMIT_RTPRIO": unix.RLIMIT_RTPRIO, "RLIMIT_RTTIME": unix.RLIMIT_RTTIME,
	"RLIMIT_SIGPENDING": unix.RLIMIT_SIGPENDING, "RLIMIT_STACK": unix.RLIMIT_STACK}

// rlimit is one resource limit, and what this process has, which the child begins with.
type rlimit struct {
	name      string
	nr        int
	want, own unix.Rlimit
}

func rlimitsOf(limits []specs.POSIXRlimit) ([]rlimit, error) {
	var out []rlimit
	for _, l := range limits {
		nr, ok := rlimitNumbers[l.Type]
		if !ok {
			return nil, fmt.Errorf("resource limit %q is unknown", l.Type)
		}
		r := rlimit{name: l.Type, nr: nr, want: unix.Rlimit{Cur: l.Soft, Max: l.Hard}}
		if r.want.Cur > r.want.Max {
			return nil, fmt.Errorf("%s: the soft limit %d is above the hard one %d", l.Type, l.Soft, l.Hard)
		}
		if err := unix.Getrlimit(nr, &r.own); err != nil {
			return nil, fmt.Errorf("read %s: %w", l.Type, err)
		}
		out = append(out, r)
	}
	return out, nil
}

func rlimitBytes(l unix.Rlimit) []byte {
	return binary.NativeEndian.AppendUint64(binary.NativeEndian.AppendUint64(nil, l.Cur), l.Max)
}

// writeRaise raises hard limits while the child still has the rights of this process: inside a user namespace nobody may.
func writeRaise(p *sysprog.Program, limits []rlimit) {
	for _, l := range limits {
		if l.want.Max > l.own.Max {
			raised := unix.Rlimit{Cur: l.own.Cur, Max: l.want.Max}
			op := p.Call("raise "+l.name, unix.SYS_PRLIMIT64, 0, l.nr, p.Bytes(rlimitBytes(raised)), nil)
			p.Tolerate(op, 0, unix.EPERM)
		}
	}
}

// writeRlimits sets resource limits; without CAP_SYS_RESOURCE a hard limit above the inherited one becomes the inherited one.
func writeRlimits(p *sysprog.Program, limits []rlimit) {
	for _, l := range limits {
		name := fmt.Sprintf("set %s to %d:%d", l.name, l.want.Cur, l.want.Max)
		op := p.Call(name, unix.SYS_PRLIMIT64, 0, l.nr, p.Bytes(rlimitBytes(l.want)), nil)
		if l.want.Max <= l.own.Max {
			continue
		}
		done := p.Store(op)
		p.Tolerate(op, 0, unix.EPERM)
		p.JumpIfEqual(done, 0, 1)
		least := unix.Rlimit{Cur: min(l.want.Cur, l.own.Max), Max: l.own.Max}
		p.Call(name, unix.SYS_PRLIMIT64, 0, l.nr, p.Bytes(rlimitBytes(least)), nil)
	}
}
