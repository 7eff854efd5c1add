package main

import "syscall"

const (
	cloneNewUser = 0x10000000
	keyctlNumber = 250
	renameNumber = 316
)

func attempts() []attempt {
	return []attempt{{"unshare(user)", 272, cloneNewUser, 0, 0}, {"unshare(mount)", 272, 0x20000, 0, 0}, {"mount", 165, 0, 0, 0}, {"bpf", 321, 0, 0, 0},
		{"keyctl", 250, 0, 0, 0}, {"add_key", 248, 0, 0, 0}, {"io_uring_setup", 425, 1, 0, 0}, {"userfaultfd", 323, 0, 0, 0}, {"perf_event_open", 298, 0, 0, 0},
		{"ptrace(GETREGS)", 101, 12, 0, 0}, {"reboot", 169, 0, 0, 0}, {"init_module", 175, 0, 0, 0}, {"kexec_load", 246, 0, 1, 0}, {"open_by_handle_at", 304, 0, 0, 0},
		{"chroot", 161, 0, 0, 0}, {"sethostname", 170, 0, 0, 0}, {"settimeofday", 164, 0, 0, 0}, {"pivot_root", 155, 0, 0, 0}, {"setns", 308, 0, 0, 0},
		{"syslog", 103, 3, 0, 0}, {"clone3", 435, 0, 0, 0}, {"personality(ADDR_NO_RANDOMIZE)", 135, 0x40000, 0, 0}, {"x32 getpid", 0x40000000 | 39, 0, 0, 0},
		{"number 9999", 9999, 0, 0, 0}}
}

func socket(family, kind int) (int, syscall.Errno) {
	fd, _, errno := syscall.RawSyscall(syscall.SYS_SOCKET, uintptr(family), uintptr(kind), 0)
	return int(fd), errno
}
