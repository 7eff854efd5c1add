// Package bpf loads programs into the kernel by bpf(2).
package bpf

import (
	"errors"
	"fmt"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// programLoad is the part of union bpf_attr that BPF_PROG_LOAD uses. Here as in every such structure addresses are pointers, of 64 bits on all machines
// that there is a Wherry for: a number would stay what it is when the stack that it points to moves, which it may at each call.
type programLoad struct {
	kind, instructions          uint32
	code, license               unsafe.Pointer
	logLevel, logSize           uint32
	log                         unsafe.Pointer
	kernelVersion, programFlags uint32
	name                        [16]byte
	link, expected              uint32
}

// Load has the kernel check a program of encoded instructions and returns its descriptor, which is closed on exec. kind is a
// BPF_PROG_TYPE_*, expected the BPF_CGROUP_* that it will be attached at, or 0. The error has the last words of the kernel's check.
func Load(kind, expected uint32, code []byte) (int, error) {
	return LoadNamed("", kind, expected, code)
}

// LoadNamed is Load for a program with a name, of 15 bytes at most.
func LoadNamed(name string, kind, expected uint32, code []byte) (int, error) {
	if len(code) == 0 {
		return -1, errors.New("load a BPF program: it has no instructions")
	}
	license := []byte("GPL\x00")
	attr := programLoad{kind: kind, expected: expected, instructions: uint32(len(code) / 8),
		code: unsafe.Pointer(&code[0]), license: unsafe.Pointer(&license[0])}
	copy(attr.name[:15], name)
	fd, err := load(&attr)
	if err != nil {
		log := make([]byte, 64<<10)
		attr.logLevel, attr.logSize, attr.log = 1, uint32(len(log)), unsafe.Pointer(&log[0])
		if fd, again := load(&attr); again == nil { // what was in the way is gone
			unix.Close(fd)
		}
		text, _, _ := strings.Cut(string(log), "\x00")
		lines := strings.Split(strings.TrimSpace(text), "\n")
		err = fmt.Errorf("load a BPF program: %w: %s", err, strings.Join(lines[max(0, len(lines)-4):], "; "))
	}
	return fd, err
}

// load tries again when the check was broken off because a signal arrived (EAGAIN, since Linux 4.20; kernel/bpf/verifier.c): it has
// nothing to do with the program, and this process gets signals all the time, its scheduler sends them.
func load(attr *programLoad) (int, error) {
	for {
		fd, err := Call(unix.BPF_PROG_LOAD, unsafe.Pointer(attr), unsafe.Sizeof(*attr))
		if err != unix.EAGAIN {
			return fd, err
		}
	}
}

// Call is bpf(2): a command and the part of union bpf_attr that it uses, in which addresses are pointers. It returns a descriptor where the command makes one.
func Call(command int, attr unsafe.Pointer, size uintptr) (int, error) {
	r, _, errno := unix.Syscall(unix.SYS_BPF, uintptr(command), uintptr(attr), size)
	if errno != 0 {
		return -1, errno
	}
	return int(r), nil
}
