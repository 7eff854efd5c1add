package ociruntime

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Sizes of the structures of openat2(2) and mount_setattr(2).
const (
	openHowSize   = 24
	mountAttrSize = 32
)

// openHow, mountAttr and propagationAttr are the structures of openat2(2) and mount_setattr(2) as bytes.
func openHow(flags, resolve uint64) []byte {
	how := unix.OpenHow{Flags: flags, Resolve: resolve}
	return append([]byte(nil), unsafe.Slice((*byte)(unsafe.Pointer(&how)), unsafe.Sizeof(how))...)
}

func mountAttr(set uint64) []byte { return attrBytes(unix.MountAttr{Attr_set: set}) }

func propagationAttr(p uint64) []byte { return attrBytes(unix.MountAttr{Propagation: p}) }

func attrBytes(a unix.MountAttr) []byte {
	return append([]byte(nil), unsafe.Slice((*byte)(unsafe.Pointer(&a)), unsafe.Sizeof(a))...)
}

// peer opens a terminal's other side (TIOCGPTPEER, ioctl_tty(2)).
func peer(fd int) (int, error) {
	r, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		return -1, errno
	}
	return int(r), nil
}

// sockFprog is struct sock_fprog (seccomp(2)): a count and a pointer.
func sockFprog(n int, filter uintptr) []byte {
	b := make([]byte, 16)
	*(*uint16)(unsafe.Pointer(&b[0])) = uint16(n)
	*(*uint64)(unsafe.Pointer(&b[8])) = uint64(filter)
	return b
}

// ownCapabilities is this process's bounding set.
func ownCapabilities() uint64 {
	var own uint64
	for c := 0; c <= lastCapability; c++ {
		if have, _, errno := unix.Syscall6(unix.SYS_PRCTL, unix.PR_CAPBSET_READ, uintptr(c), 0, 0, 0, 0); errno == 0 && have == 1 {
			own |= 1 << c
		}
	}
	return own
}

// seccompFilter reads the oldest filter of a process that this thread traces and has stopped (PTRACE_SECCOMP_GET_FILTER, ptrace(2)).
func seccompFilter(pid int) ([]byte, error) {
	const most = 4096 // instructions of a filter
	code := make([]byte, most*8)
	n, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_SECCOMP_GET_FILTER, uintptr(pid), 0, uintptr(unsafe.Pointer(&code[0])), 0, 0)
	if errno != 0 {
		return nil, errno
	}
	return code[:n*8], nil
}
