// Package sysprog runs a program of system calls in a freshly cloned child, without executing anything in between.
//
// A Go process cannot do what a new container needs between clone and execve: it has many threads, and joining a user namespace wants
// one. A child that shares the parent's memory and touches no stack can: it interprets an array of operations, each a system call with
// its arguments, in registers only (clone_amd64.s), until execve or until an operation fails. The operations have names, so a start is
// a list of steps that can be printed.
//
// A Program is built and run by one goroutine at a time. While a child lives before its execve it shares this process's memory: the
// process must not be dumpable then (Protect), or a process that may trace the child could read it.
package sysprog

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Op is one operation's number in its program.
type Op int

// Word is the address of a machine word in the program's memory: operations store results there and later ones take arguments from it.
type Word uintptr

// Pseudo-operations of the interpreter, beside the numbers of system calls.
const (
	opJumpEqual = ^uintptr(0)     // if *a0 == a1 go on at jump
	opSet       = ^uintptr(0) - 1 // *a0 = a1
	opFork      = ^uintptr(0) - 2 // clone3(a0, a1): the child goes on, the parent stores the pid and exits
	opFail      = ^uintptr(0) - 3 // fail with error number a0
)

// The layout of the program's memory: a header, the operations from there on upwards, data from the end downwards.
const (
	headerFailed = 0  // address of the failed operation, 0: none
	headerErrno  = 8  // its error number
	headerPid    = 16 // pid of the process that Fork made, in the parent's pid namespace
	headerAlive  = 24 // 1 until the child has executed a program or exited (the kernel clears it)
	headerMark   = 32 // the last Mark that was passed
	headerFork   = 40 // 1 until Fork has happened, or the child that should have forked is gone
	headerSize   = 80

	opWords = 11 // nr, a0…a5, store, tolerated errors, jump, indirect arguments
	fewOps  = 1024
)

// OpSize is what an operation takes of its program's memory.
const OpSize = opWords * 8

// descriptorRoom is a descriptor that no program comes to: tables of descriptors double from 64.
const descriptorRoom = 511

// Program is an array of operations in memory that the Go heap does not know.
type Program struct {
	arena []byte
	data  int // where it begins
	ops   int
	names []string
	err   error
	apart bool // its child has memory of its own
	group int  // descriptor of the control group (version 2) that its child begins in; 0: this process's
}

// New makes an empty program with room for a thousand operations, and for data bytes more: strings, filters and the like, further operations.
func New(data int) (*Program, error) { return newProgram(data, unix.MAP_PRIVATE) }

func newProgram(data, sharing int) (*Program, error) {
	size := (headerSize + fewOps*OpSize + data + 4095) &^ 4095
	arena, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, sharing|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("map %d bytes for a program of system calls: %w", size, err)
	}
	return &Program{arena: arena, data: len(arena)}, nil
}

// Close gives the memory back. It may only be called when no child shares it: after Wait, or when Start failed.
func (p *Program) Close() error {
	if p.arena == nil {
		return nil
	}
	err := unix.Munmap(p.arena)
	p.arena = nil
	return err
}

// Call appends a system call. Arguments are uintptr, int, Word (its content when the operation runs) or nil (0).
func (p *Program) Call(name string, nr uintptr, args ...any) Op { return p.add(name, nr, args) }

// Fail appends an operation that ends the program with an error number (a number or a Word).
func (p *Program) Fail(name string, errno any) Op { return p.add(name, opFail, []any{errno}) }

// Mark appends a note of how far the program has come (see Marked).
func (p *Program) Mark(n int) Op { return p.add("mark", opSet, []any{p.header(headerMark), n}) }

// DefaultSignals appends that every signal which this process ignores has its default effect again: ignored ones stay so across an
// execve (the clone resets only those with a handler).
func (p *Program) DefaultSignals() {
	action := p.Bytes(make([]byte, sigactionSize))
	for sig := 1; sig <= lastSignal; sig++ {
		if ignored(sig) {
			p.add(fmt.Sprintf("reset signal %d", sig), unix.SYS_RT_SIGACTION, []any{sig, action, nil, 8})
		}
	}
}

// JumpIfEqual appends a jump of skip operations forward when the word has the value.
func (p *Program) JumpIfEqual(w Word, value, skip int) Op {
	op := p.add("jump", opJumpEqual, []any{uintptr(w), value})
	p.put(op, 9, uintptr(skip+1))
	return op
}

// Fork appends a clone3 with flags (without an exit signal: CLONE_PARENT is added, so the new process is a child of this one). The
// program goes on in the new process; the one that forked sleeps until the new one has executed a program or ended, and exits.
//
// It sleeps because of CLONE_VFORK, which keeps this process out of its child's troubles: the out-of-memory killer takes no process that
// is between its vfork and its execve (it would have to kill all who share the memory), and oom_score_adj of the two stay apart. The two
// share their descriptors, a copy of this process's: what the program closes, nobody holds any more.
func (p *Program) Fork(name string, flags uint64, cgroup int) Op {
	args := &unixCloneArgs{flags: flags | unix.CLONE_VM | unix.CLONE_VFORK | unix.CLONE_FILES | unix.CLONE_PARENT | unix.CLONE_CHILD_CLEARTID | unix.CLONE_PARENT_SETTID}
	args.childTid, args.parentTid = uint64(p.header(headerAlive)), uint64(p.header(headerPid))
	if flags&ForkApart != 0 {
		args.flags &^= ForkApart | unix.CLONE_VM
	}
	if cgroup >= 0 {
		args.flags |= unix.CLONE_INTO_CGROUP
		args.cgroup = uint64(cgroup)
	}
	makeRoom(p)
	op := p.add(name, opFork, []any{p.bytes(args.bytes()), cloneArgsSize})
	p.add("tell of the fork", opSet, []any{p.header(headerFork), 0})
	p.add("tell of the fork", unix.SYS_FUTEX, []any{p.header(headerFork), 1 /* FUTEX_WAKE */, 1})
	return op
}

// makeRoom appends that the table of descriptors grows while nobody else has it: a shared one that has to grow waits for an RCU grace period (fs/file.c,
// expand_fdtable), 10 ms and more on an idle machine. It keeps its size when a program is executed.
func makeRoom(p *Program) {
	room := p.Call("make room for descriptors", unix.SYS_FCNTL, 0, unix.F_DUPFD_CLOEXEC, descriptorRoom)
	p.Tolerate(room, 0, unix.EBADF, unix.EINVAL, unix.EMFILE)
}

// standLimit is how long, in seconds, a child stands at a Stand.
const standLimit = 10

// Stand appends to a program that the child goes on when this process has called Pass with the word. It ends by itself where nobody does: this process may
// have been killed. Which of the two is there first does not matter, and costs no one who is not late.
func Stand(p *Program, name string) Word {
	w := p.Word(0)
	p.JumpIfEqual(w, 1, 1)
	op := p.Call(name, unix.SYS_FUTEX, uintptr(w), 0 /* FUTEX_WAIT */, 0, p.words([]uint64{standLimit, 0}))
	p.Tolerate(op, 0, unix.EAGAIN) // it has been passed meanwhile
	return w
}

// Pass lets the child go on that stands, or will stand, at a Stand.
func (pr *Process) Pass(w Word) {
	pr.prog.store(uintptr(w), 1)
	futexWake(uintptr(w))
}

// Store has an operation's result (its error number where an error is tolerated) written to a word, a new one where none is given.
func (p *Program) Store(op Op, to ...Word) Word {
	if len(to) == 0 {
		to = []Word{p.Word(0)}
	}
	p.put(op, 7, uintptr(to[0]))
	return to[0]
}

// Tolerate lets the program go on behind the next skip operations when op fails with one of errs.
func (p *Program) Tolerate(op Op, skip int, errs ...unix.Errno) {
	var mask uintptr
	for _, e := range errs {
		if e > 63 {
			p.fail(fmt.Errorf("error number %d cannot be tolerated: the mask has 64 bits", e))
		}
		mask |= 1 << e
	}
	p.put(op, 8, mask)
	p.put(op, 9, uintptr(skip+1))
}

// room is how much of a program's memory lies between its operations and its data.
func room(p *Program) int { return p.data - headerSize - p.ops*OpSize }

// Len is the number of operations so far.
func (p *Program) Len() int { return p.ops }

// String copies s with a final NUL and returns its address.
func (p *Program) String(s string) uintptr { return p.bytes(append([]byte(s), 0)) }

// Bytes copies b and returns its address.
func (p *Program) Bytes(b []byte) uintptr { return p.bytes(b) }

// Strings makes a NULL-terminated array of strings (argv, envp).
func (p *Program) Strings(list []string) uintptr {
	addresses := make([]uint64, 0, len(list)+1)
	for _, s := range list {
		addresses = append(addresses, uint64(p.String(s)))
	}
	return p.words(append(addresses, 0))
}

// Word makes a word with a first value.
func (p *Program) Word(value uint64) Word { return Word(p.words([]uint64{value})) }

// Value reads a word. The caller knows that no child writes it any more.
func (p *Program) Value(w Word) uint64 { return p.load(uintptr(w)) }

func (p *Program) fail(err error) {
	if p.err == nil {
		p.err = err
	}
}

func (p *Program) add(name string, nr uintptr, args []any) Op {
	if room(p) < OpSize || len(args) > 6 {
		p.fail(fmt.Errorf("step %q: there is no room for operation %d, or it has more than 6 arguments", name, p.ops))
		return 0
	}
	op := Op(p.ops)
	p.ops++
	p.names = append(p.names, name)
	p.put(op, 0, nr)
	var indirect uintptr
	for i, a := range args {
		switch a := a.(type) {
		case nil:
		case int:
			p.put(op, 1+i, uintptr(a))
		case uintptr:
			p.put(op, 1+i, a)
		case Word:
			p.put(op, 1+i, uintptr(a))
			indirect |= 1 << i
		default:
			p.fail(fmt.Errorf("step %q: argument %d has type %T", name, i, a))
		}
	}
	p.put(op, 10, indirect)
	return op
}

// Process is what a program became: a child of this process. After a Wait that returns nil, Release is called before the program is
// closed; in all other cases Discard.
type Process struct {
	Pid    int
	Pidfd  int // O_CLOEXEC; the caller closes it, where it does not call Discard
	helper int // pidfd of the process that forked, -1 without one
	prog   *Program
}

// Error says which operation failed.
type Error struct {
	Op    Op
	Name  string
	Errno unix.Errno
}

func (e *Error) Error() string {
	if e.Errno == unix.EAGAIN && strings.HasPrefix(e.Name, "clone") || e.Errno == unix.ENOSPC && strings.Contains(e.Name, "namespace") {
		return NoProcess(fmt.Errorf("%s: %w", e.Name, e.Errno)).Error()
	}
	return e.Name + ": " + e.Errno.Error()
}
func (e *Error) Unwrap() error { return e.Errno }

// errDied is the cause when a child was killed before it came to its end.
var errDied = errors.New("the process was killed while it was being prepared")

// Start clones a child with flags (CLONE_VM is added) and lets it run the program. With a Fork in the program it returns when the fork
// has happened and describes the forked process; else when the child is made. A failure before the fork is returned as *Error.
func (p *Program) Start(flags uint64, forks bool) (*Process, error) {
	if p.err != nil {
		return nil, p.err
	}
	p.store(p.header(headerAlive), 1)
	p.store(p.header(headerFork), 1)
	pidfd := int32(-1)
	args := unixCloneArgs{flags: flags | unix.CLONE_VM | unix.CLONE_CLEAR_SIGHAND | unix.CLONE_PIDFD | unix.CLONE_CHILD_CLEARTID, exitSignal: uint64(unix.SIGCHLD)}
	args.childTid = uint64(p.header(headerAlive))
	if p.apart {
		args.flags &^= unix.CLONE_VM
	}
	if p.group > 0 {
		args.flags, args.cgroup = args.flags|unix.CLONE_INTO_CGROUP, uint64(p.group)
	}
	if forks {
		args.childTid = uint64(p.header(headerFork))
	}
	pid, err := p.spawn(&args, &pidfd)
	if err != nil {
		return nil, NoProcess(fmt.Errorf("clone: %w", err))
	}
	if !forks {
		return &Process{Pid: pid, Pidfd: int(pidfd), helper: -1, prog: p}, nil
	}
	awaitFork(p, int(pidfd))
	pr := &Process{Pid: int(p.load(p.header(headerPid))), helper: int(pidfd), prog: p}
	if pr.Pid == 0 {
		return nil, errors.Join(pr.reapHelper(), p.failure())
	}
	if pr.Pidfd, err = unix.PidfdOpen(pr.Pid, 0); err != nil {
		_ = unix.Kill(pr.Pid, unix.SIGKILL) // our child that nobody has reaped: the number is its own
		return nil, errors.Join(fmt.Errorf("pidfd of %d: %w", pr.Pid, err), pr.reapHelper())
	}
	return pr, nil
}

// reapHelper waits for the process that forked; it ends when the forked one has executed a program or ended.
func (pr *Process) reapHelper() error {
	if pr.helper < 0 {
		return nil
	}
	_, err := reap(pr.helper)
	unix.Close(pr.helper)
	pr.helper = -1
	return err
}

// Release waits for the process that forked, which ends by itself when the program has been executed.
func (pr *Process) Release() error { return pr.reapHelper() }

// Discard kills the process, forgets it and closes its descriptor.
func (pr *Process) Discard() {
	_ = unix.PidfdSendSignal(pr.Pidfd, unix.SIGKILL, nil, 0)
	_ = pr.reapHelper()
	_, _ = reap(pr.Pidfd)
	unix.Close(pr.Pidfd)
}

// failure describes why the program did not come to its end.
func (p *Program) failure() error {
	at := p.load(p.header(headerFailed))
	if at == 0 {
		return errDied
	}
	op := int(uintptr(at)-p.base()-headerSize) / OpSize
	return &Error{Op: Op(op), Name: p.names[op], Errno: unix.Errno(p.load(p.header(headerErrno)))}
}

// Marked is the last Mark that the child passed.
func (p *Program) Marked() int { return int(p.load(p.header(headerMark))) }

// Wait returns when the child has executed a program (nil), or has failed or died before (the reason). executed is the Mark that stands
// right before the execve: a child that passed it and reports no failure did execute.
func (pr *Process) Wait(executed int) error {
	p := pr.prog
	if p.apart {
		awaitApart(pr, -1)
	} else {
		p.wait(headerAlive)
	}
	if p.load(p.header(headerFailed)) == 0 && p.Marked() == executed {
		return nil
	}
	return p.failure()
}

// Await returns what an operation has stored in a word that was 0, or why the program has ended before. Nobody wakes it: the child's next
// system call may be one that is not allowed any more.
func (pr *Process) Await(w Word) (uint64, error) {
	p := pr.prog
	for {
		if v := p.load(uintptr(w)); v != 0 {
			return v, nil
		}
		if p.apart {
			awaitApart(pr, 0)
		}
		if uint32(p.load(p.header(headerAlive))) == 0 {
			return 0, p.failure()
		}
		futexWaitAWhile(p.header(headerAlive), 1)
	}
}

// wait sleeps until the kernel or the child has cleared a word of the header.
func (p *Program) wait(word uintptr) {
	for uint32(p.load(p.header(word))) != 0 {
		futexWait(p.header(word), 1)
	}
}

// reap waits for a process to end, by its pidfd, and takes its status. waitid(2) alone would also tell of the stops of a process that
// traces itself (PTRACE_TRACEME): a pidfd is readable only after the end.
func reap(pidfd int) (*unix.Siginfo, error) {
	for {
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, -1)
		if err != nil && err != unix.EINTR {
			return nil, fmt.Errorf("wait for a process: %w", err)
		}
		if info, err := take(pidfd); info != nil || err != nil {
			return info, err
		}
	}
}

// take is the status of a process that has ended, which is forgotten then; nil as long as it lives.
func take(pidfd int) (*unix.Siginfo, error) {
	poll := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	if n, err := unix.Poll(poll, 0); n == 0 || err == unix.EINTR {
		return nil, nil
	}
	var info unix.Siginfo
	err := unix.Waitid(unix.P_PIDFD, pidfd, &info, unix.WEXITED|unix.WNOHANG, nil)
	switch {
	case err == unix.EINTR || err == nil && info.Signo == 0:
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("take the status of a process: %w", err)
	}
	return &info, nil
}

// Protect makes this process's memory unreadable for others until it ends (PR_SET_DUMPABLE 0): needed before any Start, as a child that
// has given up its privileges still shares the memory until its execve.
func Protect() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("make the process undumpable: %w", err)
	}
	return nil
}

// Status waits for a child to end, forgets it, and returns its exit code, or the signal that ended it. It takes no thread while it waits.
func Status(pidfd *os.File) (code, signal int, err error) {
	raw, err := pidfd.SyscallConn()
	if err != nil {
		return 0, 0, err
	}
	var info *unix.Siginfo
	var failed error
	err = raw.Read(func(fd uintptr) bool {
		info, failed = take(int(fd))
		return info != nil || failed != nil
	})
	if err := errors.Join(err, failed); err != nil {
		return 0, 0, err
	}
	if info.Code == 1 { // CLD_EXITED
		return int(status(info)), 0, nil
	}
	return 0, int(status(info)), nil
}

// Pollable makes a file of a pidfd that waits without a thread. The descriptor is the file's when it returns nil: the process it came from is not discarded
// after that, as the number may be another's by the time the file is closed.
func Pollable(pidfd int) (*os.File, error) {
	if err := unix.SetNonblock(pidfd, true); err != nil {
		return nil, fmt.Errorf("make a pidfd non-blocking: %w", err)
	}
	return os.NewFile(uintptr(pidfd), "pidfd"), nil
}
