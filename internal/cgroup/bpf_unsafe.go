package cgroup

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/bpf"
)

// The parts of union bpf_attr (bpf(2)) that attaching uses.
type programAttach struct{ target, program, attachType, flags uint32 }

type programQuery struct {
	target, attachType, flags, attachFlags uint32
	ids                                    unsafe.Pointer
	count                                  uint32
}

type programByID struct{ id, next, flags uint32 }

func attachProgram(group, program int, at uint32) error {
	attr := programAttach{target: uint32(group), program: uint32(program), attachType: at, flags: unix.BPF_F_ALLOW_MULTI}
	_, err := bpf.Call(unix.BPF_PROG_ATTACH, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	return err
}

func detachProgram(group, program int) error {
	attr := programAttach{target: uint32(group), program: uint32(program), attachType: unix.BPF_CGROUP_DEVICE}
	_, err := bpf.Call(unix.BPF_PROG_DETACH, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	return err
}

// attachedPrograms opens the device programs that are attached to a group itself.
func attachedPrograms(group int) ([]int, error) {
	ids := make([]uint32, 64)
	attr := programQuery{target: uint32(group), attachType: unix.BPF_CGROUP_DEVICE, ids: unsafe.Pointer(&ids[0]), count: uint32(len(ids))}
	_, err := bpf.Call(unix.BPF_PROG_QUERY, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	if err != nil {
		return nil, err
	}
	fds := make([]int, 0, attr.count)
	for _, id := range ids[:attr.count] {
		by := programByID{id: id}
		fd, err := bpf.Call(unix.BPF_PROG_GET_FD_BY_ID, unsafe.Pointer(&by), unsafe.Sizeof(by))
		if err == nil { // one that was detached meanwhile is gone
			fds = append(fds, fd)
		}
	}
	return fds, nil
}
