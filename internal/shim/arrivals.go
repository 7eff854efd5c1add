package shim

import (
	"os"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// arrivals says which of some pipes has been written to, in the order of the writes: the kernel's list of what is ready (epoll(7), edge-triggered)
// keeps it. Go's own poller hands out what was ready at the same time the other way round.
type arrivals struct {
	events *os.File
	raw    syscall.RawConn // of events
	list   []unix.EpollEvent
	pipes  []*pipe // nil: it has ended
	hung   []bool  // nobody writes to it any more, which is announced once, perhaps with what was written last
	ready  []int   // of pipes, to be read, the first one first
}

func newArrivals(pipes []*pipe) (*arrivals, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err == nil {
		err = unix.SetNonblock(fd, true) // Go's poller waits for it
	}
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	a := &arrivals{events: os.NewFile(uintptr(fd), "arrivals"), list: make([]unix.EpollEvent, len(pipes)), pipes: slices.Clone(pipes), hung: make([]bool, len(pipes))}
	a.raw, err = a.events.SyscallConn()
	for i, p := range pipes {
		from := -1
		if err == nil {
			from, err = descriptor(p.from)
		}
		if err == nil {
			err = os.NewSyscallError("epoll_ctl", unix.EpollCtl(fd, unix.EPOLL_CTL_ADD, from, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: int32(i)}))
		}
	}
	if err != nil {
		a.events.Close()
		return nil, err
	}
	return a, nil
}

// next is the number of the pipe to read next, until it has no more; ok false: all have ended, or reading was given up.
func (a *arrivals) next() (i int, ok bool) {
	if !slices.ContainsFunc(a.pipes, func(p *pipe) bool { return p != nil }) || a.wait() != nil {
		return 0, false
	}
	i, a.ready = a.ready[0], a.ready[1:]
	return i, true
}

// again says that a pipe may have more than was read: nothing is announced twice. The others have their turn before.
func (a *arrivals) again(i int) {
	if a.pipes[i] != nil && !slices.Contains(a.ready, i) {
		a.ready = append(a.ready, i)
	}
}

// end says that a pipe has been read to its end.
func (a *arrivals) end(i int) { a.pipes[i] = nil }

// giveUp lets next come back at that time.
func (a *arrivals) giveUp(at time.Time) { _ = a.events.SetReadDeadline(at) }

// wait takes in what is announced, until there is something to read.
func (a *arrivals) wait() (err error) {
	failed := a.raw.Read(func(fd uintptr) bool {
		var n int
		if n, err = unix.EpollWait(int(fd), a.list, 0); err == unix.EINTR {
			err = nil
		}
		for _, e := range a.list[:max(n, 0)] {
			a.hung[e.Fd] = a.hung[e.Fd] || e.Events&unix.EPOLLHUP != 0
			a.again(int(e.Fd))
		}
		return err != nil || len(a.ready) > 0
	})
	if failed != nil {
		return failed
	}
	return err
}
