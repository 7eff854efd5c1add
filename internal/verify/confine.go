package verify

import (
	"fmt"
	"os"
	"runtime/debug"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/seccomp"
)

const nobody = 65534

// limits of the process: what a signature may make it take.
var limits = [...]struct {
	what int
	most uint64
}{
	{unix.RLIMIT_CPU, 20}, // seconds
	{unix.RLIMIT_DATA, 1 << 30},
	{unix.RLIMIT_FSIZE, 0},
	{unix.RLIMIT_CORE, 0},
	{unix.RLIMIT_NOFILE, 16},
}

// calls are all that the process makes from now on: it reads, computes, writes and ends.
var calls = []string{
	"read", "write", "close", "mmap", "munmap", "mprotect", "madvise", "brk", "futex", "clone", "clone3", "exit", "exit_group", "rt_sigaction",
	"rt_sigprocmask", "rt_sigreturn", "sigaltstack", "gettid", "getpid", "tgkill", "sched_yield", "sched_getaffinity", "nanosleep", "clock_nanosleep",
	"clock_gettime", "getrandom", "epoll_create1", "epoll_ctl", "epoll_pwait", "eventfd2", "fcntl", "fstat", "rseq", "set_robust_list", "restart_syscall",
	"timer_create", "timer_settime", "timer_delete", "setitimer", "mincore", "prctl", "getrlimit", "prlimit64",
}

// Confine takes from this process, for ever, what it does not need: files, by a root that is the empty directory it was started in; rights, by
// an id that owns nothing; all system calls but few. What started it gave it namespaces without a network.
func Confine() error {
	debug.SetMemoryLimit(512 << 20)
	for _, l := range limits {
		if err := unix.Setrlimit(l.what, &unix.Rlimit{Cur: l.most, Max: l.most}); err != nil {
			return fmt.Errorf("set limit %d: %w", l.what, err)
		}
	}
	if os.Geteuid() == 0 {
		if err := drop(); err != nil {
			return err
		}
	}
	filter, err := seccomp.Compile(&specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Architectures: native(),
		Syscalls: []specs.LinuxSyscall{{Names: calls, Action: specs.ActAllow}}})
	if err != nil {
		return err
	}
	return install(filter)
}

// drop gives up the file system and root.
func drop() error {
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("change the root directory: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return err
	}
	if err := syscall.Setgroups(nil); err != nil {
		return fmt.Errorf("drop groups: %w", err)
	}
	if err := syscall.Setresgid(nobody, nobody, nobody); err != nil {
		return fmt.Errorf("drop the group: %w", err)
	}
	if err := syscall.Setresuid(nobody, nobody, nobody); err != nil {
		return fmt.Errorf("drop the user: %w", err)
	}
	return nil
}
