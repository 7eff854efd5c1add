// Package ready says which of some files has something to be read, in the order in which they were written to.
//
// A List holds an epoll descriptor, which its owner closes, and none of the files. One goroutine reads; GiveUp and Close are for any.
package ready

import (
	"os"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// List says which file to read next: the kernel's list of what is ready (epoll(7), edge-triggered) keeps the order. Go's own poller hands out
// what was ready at the same time the other way round.
type List struct {
	events *os.File
	raw    syscall.RawConn // of events
	list   []unix.EpollEvent
	open   int
	ended  []bool
	hung   []bool // nobody writes to it any more, which is announced once, perhaps with what was written last
	ready  []int  // to be read, the first one first
}

// New watches files that do not block and that Go's poller does not know, which would be woken by each write for nobody.
func New(files ...*os.File) (*List, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err == nil {
		err = unix.SetNonblock(fd, true) // Go's poller waits for it
	}
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	n := len(files)
	l := &List{events: os.NewFile(uintptr(fd), "ready"), list: make([]unix.EpollEvent, n), open: n, ended: make([]bool, n), hung: make([]bool, n)}
	l.raw, err = l.events.SyscallConn()
	for i, f := range files {
		if err == nil {
			err = l.add(fd, f, i)
		}
	}
	if err != nil {
		l.events.Close()
		return nil, err
	}
	return l, nil
}

func (l *List) add(events int, f *os.File, i int) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	failed := raw.Control(func(fd uintptr) {
		err = unix.EpollCtl(events, unix.EPOLL_CTL_ADD, int(fd), &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: int32(i)})
	})
	if failed != nil {
		return failed
	}
	return os.NewSyscallError("epoll_ctl", err)
}

// Pipe makes a pipe whose read side New takes.
func Pipe() (r, w *os.File, err error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, os.NewSyscallError("pipe2", err)
	}
	r, w = os.NewFile(uintptr(fds[0]), "output"), os.NewFile(uintptr(fds[1]), "output")
	return r, w, unix.SetNonblock(fds[0], true)
}

// Read reads from a file of a list, unix.EAGAIN where it has nothing; n 0 is its end.
func Read(f *os.File, into []byte) (n int, err error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	failed := raw.Control(func(fd uintptr) {
		for n, err = unix.Read(int(fd), into); err == unix.EINTR; {
			n, err = unix.Read(int(fd), into)
		}
	})
	if failed != nil {
		return 0, failed
	}
	return max(n, 0), err
}

// Next is the number of the file to read next, until it has no more; ok false: all have ended, or reading was given up.
func (l *List) Next() (i int, ok bool) {
	if l.open == 0 || l.wait(false) != nil {
		return 0, false
	}
	return l.take(), true
}

// Now is Next of what is there already; ok false: nothing is.
func (l *List) Now() (i int, ok bool) {
	if l.open == 0 || l.wait(true) != nil || len(l.ready) == 0 {
		return 0, false
	}
	return l.take(), true
}

func (l *List) take() (i int) {
	i, l.ready = l.ready[0], l.ready[1:]
	return i
}

// Again says that a file may have more than was read: nothing is announced twice. The others have their turn before.
func (l *List) Again(i int) {
	if !l.ended[i] && !slices.Contains(l.ready, i) {
		l.ready = append(l.ready, i)
	}
}

// Hung says that nobody writes to a file any more: it is to be read to its end.
func (l *List) Hung(i int) bool { return l.hung[i] }

// End says that a file has been read to its end.
func (l *List) End(i int) {
	l.ended[i] = true
	l.open--
}

// Left says that not all have ended.
func (l *List) Left() bool { return l.open > 0 }

// GiveUp lets Next come back at that time; the zero time: not at all.
func (l *List) GiveUp(at time.Time) { _ = l.events.SetReadDeadline(at) }

// Close ends Next for good.
func (l *List) Close() { l.events.Close() }

// wait takes in what is announced, until there is something to read.
func (l *List) wait(glance bool) (err error) {
	look := func(fd uintptr) bool {
		var n int
		if n, err = unix.EpollWait(int(fd), l.list, 0); err == unix.EINTR {
			err = nil
		}
		for _, e := range l.list[:max(n, 0)] {
			l.hung[e.Fd] = l.hung[e.Fd] || e.Events&unix.EPOLLHUP != 0
			l.Again(int(e.Fd))
		}
		return err != nil || len(l.ready) > 0
	}
	var failed error
	if glance {
		failed = l.raw.Control(func(fd uintptr) { look(fd) })
	} else {
		failed = l.raw.Read(look)
	}
	if failed != nil {
		return failed
	}
	return err
}
