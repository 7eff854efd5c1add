package cgroup

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/bpf"
)

// Return values of a program at bind(2) (linux/bpf.h): bit 0 allows it, bit 1 asks for no CAP_NET_BIND_SERVICE.
const (
	bindAsUsual = 1
	bindFreely  = 3
)

const (
	bpfCall     = 0x85
	bpfUserCall = 15 // bpf_get_current_uid_gid
)

// AllowLowPorts lets a user, by its number on the host, bind the group's sockets to ports below 1024. Root of a user namespace has no capability in a
// network namespace that belongs to another one, as the host's does. errors.ErrUnsupported: the kernel (before 5.13) has no such programs, or the
// group is in no tree of version 2.
func (g *Group) AllowLowPorts(user uint32) error {
	name, ok := g.dirs[unified]
	if !ok {
		return fmt.Errorf("control group %s is in no tree of version 2: %w", g.path, errors.ErrUnsupported)
	}
	dir, err := os.Open(name)
	if err != nil {
		return err
	}
	defer dir.Close()
	for _, at := range []uint32{unix.BPF_CGROUP_INET4_BIND, unix.BPF_CGROUP_INET6_BIND} {
		program, err := bpf.Load(unix.BPF_PROG_TYPE_CGROUP_SOCK_ADDR, at, lowPortsProgram(user))
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EACCES) {
			err = errors.Join(err, errors.ErrUnsupported)
		}
		if err != nil {
			return fmt.Errorf("load the rule of low ports of control group %s: %w", g.path, err)
		}
		err = attachProgram(int(dir.Fd()), program, at)
		unix.Close(program)
		if err != nil {
			return fmt.Errorf("attach the rule of low ports to control group %s: %w", g.path, err)
		}
	}
	return nil
}

func lowPortsProgram(user uint32) []byte {
	return encode([]instruction{
		{op: bpfCall, imm: bpfUserCall}, {op: bpfJumpNe, dst: 0, imm: int32(user), off: 2},
		{op: bpfMove, dst: 0, imm: bindFreely}, {op: bpfExit},
		{op: bpfMove, dst: 0, imm: bindAsUsual}, {op: bpfExit},
	})
}
