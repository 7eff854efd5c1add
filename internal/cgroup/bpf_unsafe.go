package cgroup

import (
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
}

type programAttach struct{ target, program, attachType, flags uint32 }

func loadDeviceProgram(code []byte) (int, error) {
	license := []byte("GPL\x00")
	attr := programLoad{programType: unix.BPF_PROG_TYPE_CGROUP_DEVICE, instructions: uint32(len(code) / 8),
		code: uint64(uintptr(unsafe.Pointer(&code[0]))), license: uint64(uintptr(unsafe.Pointer(&license[0])))}
	fd, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	if errno != 0 {
		return -1, errno
	}
	return int(fd), nil
}

func attachProgram(group, program int) error {
	attr := programAttach{target: uint32(group), program: uint32(program), attachType: unix.BPF_CGROUP_DEVICE, flags: unix.BPF_F_ALLOW_MULTI}
	if _, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_ATTACH, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr)); errno != 0 {
		return errno
	}
	return nil
}
