package sysprog

import (
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// unixCloneArgs is struct clone_args (clone3(2)).
type unixCloneArgs struct {
	flags, pidfd, childTid, parentTid, exitSignal, stack, stackSize, tls, setTid, setTidSize, cgroup uint64
}

const cloneArgsSize = 88

func (a *unixCloneArgs) bytes() []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(a)), cloneArgsSize)
}

func (p *Program) base() uintptr { return uintptr(unsafe.Pointer(&p.arena[0])) }

func (p *Program) header(offset uintptr) uintptr { return p.base() + offset }

// at is a pointer into the arena, which the garbage collector neither moves nor frees.
func (p *Program) at(address uintptr) *uint64 {
	return (*uint64)(unsafe.Pointer(&p.arena[address-p.base()]))
}

func (p *Program) load(address uintptr) uint64     { return atomic.LoadUint64(p.at(address)) }
func (p *Program) store(address uintptr, v uint64) { atomic.StoreUint64(p.at(address), v) }

// put writes one word of an operation.
func (p *Program) put(op Op, word int, v uintptr) {
	p.store(p.header(headerSize)+uintptr(op)*OpSize+uintptr(word)*8, uint64(v))
}

// bytes copies b to 8-byte aligned memory of the program.
func (p *Program) bytes(b []byte) uintptr {
	if room(p) < len(b)+7 {
		p.fail(unix.E2BIG)
		return 0
	}
	at := (p.data - len(b)) &^ 7
	p.data = at
	copy(p.arena[at:], b)
	return p.base() + uintptr(at)
}

func (p *Program) words(list []uint64) uintptr {
	return p.bytes(unsafe.Slice((*byte)(unsafe.Pointer(&list[0])), len(list)*8))
}

// cloneAndRun makes the child (clone3) and has it interpret the operations; it returns in the parent only.
//
//go:noescape
func cloneAndRun(args *unixCloneArgs, size, ops, header uintptr) (result uintptr)

// headerPidfd is where the kernel writes the child's pidfd. Never to a variable of Go's: its stack may move between the taking of an
// address and the call.
const headerPidfd = 48

// headerMask and the word behind it are the signal mask of the clone, and the caller's (cloneAndRun).
const headerMask = 56

func (p *Program) spawn(args *unixCloneArgs, pidfd *int32) (pid int, err error) {
	p.store(p.header(headerPidfd), 1<<64-1)
	p.store(p.header(headerMask), 1<<64-1)
	args.pidfd = uint64(p.header(headerPidfd))
	defer func() { *pidfd = int32(p.load(p.header(headerPidfd))) }()
	result := cloneAndRun(args, cloneArgsSize, p.header(headerSize), p.base())
	if int(result) < 0 {
		return 0, unix.Errno(-int(result))
	}
	return int(result), nil
}

// futexWait sleeps while the low half of the word has the value.
func futexWait(address uintptr, value uint32) {
	_, _, _ = unix.Syscall6(unix.SYS_FUTEX, address, 0 /* FUTEX_WAIT */, uintptr(value), 0, 0, 0)
}

func futexWake(address uintptr) {
	_, _, _ = unix.Syscall6(unix.SYS_FUTEX, address, 1 /* FUTEX_WAKE */, 1, 0, 0, 0)
}

// futexWaitAWhile is futexWait for at most 2 ms.
func futexWaitAWhile(address uintptr, value uint32) {
	limit := unix.Timespec{Nsec: 2e6}
	_, _, _ = unix.Syscall6(unix.SYS_FUTEX, address, 0, uintptr(value), uintptr(unsafe.Pointer(&limit)), 0, 0)
}

// status is si_status of a SIGCHLD: the exit code, or the signal.
func status(info *unix.Siginfo) int32 {
	return *(*int32)(unsafe.Pointer(uintptr(unsafe.Pointer(info)) + 24))
}

// The kernel's struct sigaction on amd64 and arm64: handler, flags, restorer, mask.
const (
	sigactionSize = 32
	lastSignal    = 64
)

// ignored says whether this process ignores a signal.
func ignored(sig int) bool {
	var old [sigactionSize / 8]uint64
	_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), 0, uintptr(unsafe.Pointer(&old)), 8, 0, 0)
	return errno == 0 && old[0] == 1 // SIG_IGN
}
