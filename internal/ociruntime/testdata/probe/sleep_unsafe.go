package main

import (
	"syscall"
	"unsafe"
)

func rawSleep(t *syscall.Timespec) {
	syscall.RawSyscall(syscall.SYS_NANOSLEEP, uintptr(unsafe.Pointer(t)), 0, 0)
}
