package sysprog

import "golang.org/x/sys/unix"

// ForkApart among the flags of a Fork has the new process get memory of its own, too. Before Linux 6.2 nobody who makes a time namespace
// may share memory with a child. The program must be one of NewApart.
const ForkApart = 1 << 63

// NewApart makes a program whose child has memory of its own, a copy of this process's; the program itself they share. It costs a copy of
// this process's page tables, and is for joining a time namespace, which the kernel permits to nobody who shares memory
// (time_namespaces(7)). Such a program has a Fork.
func NewApart(data int) (*Program, error) {
	p, err := newProgram(data, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	p.apart = true
	return p, nil
}

// awaitFork returns when the child has forked or is gone. The kernel clears the word at the end of a child only where memory is shared, so
// that of one apart is looked at too.
func awaitFork(p *Program, pidfd int) {
	if !p.apart {
		p.wait(headerFork)
		return
	}
	for uint32(p.load(p.header(headerFork))) != 0 {
		futexWaitAWhile(p.header(headerFork), 1)
		if n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, 0); n > 0 && err == nil {
			return
		}
	}
}

// awaitApart waits as long as poll(2) would for the process that forked, which sleeps until the forked one has executed a program or
// ended, and then clears the word that the kernel clears where memory is shared.
func awaitApart(pr *Process, timeout int) {
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(pr.helper), Events: unix.POLLIN}}, timeout)
		if err == unix.EINTR {
			continue
		}
		if n > 0 {
			pr.prog.store(pr.prog.header(headerAlive), 0)
		}
		return
	}
}
