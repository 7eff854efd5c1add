package cgroup

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The parts of union bpf_attr (bpf(2)) that loading and attaching use.
type programLoad struct {
	programType, instructions   uint32
	code, license               uint64
	logLevel, logSize           uint32
	log                         uint64
	kernelVersion, programFlags uint32
	name                        [16]byte
	link, expected              uint32
}

type programAttach struct{ target, program, attachType, flags uint32 }

func loadProgram(kind, expected uint32, code []byte) (int, error) {
	license := []byte("GPL\x00")
	attr := programLoad{programType: kind, expected: expected, instructions: uint32(len(code) / 8),
		code: uint64(uintptr(unsafe.Pointer(&code[0]))), license: uint64(uintptr(unsafe.Pointer(&license[0])))}
	fd, err := bpf(unix.BPF_PROG_LOAD, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	runtime.KeepAlive(code)
	runtime.KeepAlive(license)
	return fd, err
}

type programQuery struct {
	target, attachType, flags, attachFlags uint32
	ids                                    uint64
	count                                  uint32
}

type programByID struct{ id, next, flags uint32 }

func attachProgram(group, program int, at uint32) error {
	attr := programAttach{target: uint32(group), program: uint32(program), attachType: at, flags: unix.BPF_F_ALLOW_MULTI}
	_, err := bpf(unix.BPF_PROG_ATTACH, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	return err
}

func detachProgram(group, program int) error {
	attr := programAttach{target: uint32(group), program: uint32(program), attachType: unix.BPF_CGROUP_DEVICE}
	_, err := bpf(unix.BPF_PROG_DETACH, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	return err
}

// attachedPrograms opens the device programs that are attached to a group itself.
func attachedPrograms(group int) ([]int, error) {
	ids := make([]uint32, 64)
	attr := programQuery{target: uint32(group), attachType: unix.BPF_CGROUP_DEVICE, ids: uint64(uintptr(unsafe.Pointer(&ids[0]))), count: uint32(len(ids))}
	_, err := bpf(unix.BPF_PROG_QUERY, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	runtime.KeepAlive(ids)
	if err != nil {
		return nil, err
	}
	fds := make([]int, 0, attr.count)
	for _, id := range ids[:attr.count] {
		by := programByID{id: id}
		fd, err := bpf(unix.BPF_PROG_GET_FD_BY_ID, unsafe.Pointer(&by), unsafe.Sizeof(by))
		if err == nil { // one that was detached meanwhile is gone
			fds = append(fds, fd)
		}
	}
	return fds, nil
}

func bpf(command int, attr unsafe.Pointer, size uintptr) (int, error) {
	r, _, errno := unix.Syscall(unix.SYS_BPF, uintptr(command), uintptr(attr), size)
	if errno != 0 {
		return -1, errno
	}
	return int(r), nil
}
