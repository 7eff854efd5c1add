package shim

import (
	"errors"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// kept are sockets that an engine has opened in the container's network namespace and that outlive it: what is sent to them while no engine runs
// waits in the kernel until the next one takes them back. The shim never reads from them. They are bare descriptors, since each packet would wake
// this process for the sake of an os.File.
type kept struct {
	mu   sync.Mutex // guards what follows
	fds  []int
	over bool // the container has ended
}

// keep holds copies of files instead of what was kept before.
func (k *kept) keep(files []*os.File) error {
	fds, err := copies(files)
	k.mu.Lock()
	defer k.mu.Unlock()
	if err != nil || k.over {
		closeAll(fds)
		return err
	}
	closeAll(k.fds)
	k.fds = fds
	return nil
}

// drop closes what is kept: the namespace ends with the container, not with its shim.
func (k *kept) drop() {
	k.mu.Lock()
	defer k.mu.Unlock()
	closeAll(k.fds)
	k.fds, k.over = nil, true
}

// give sends what is kept along with an answer; it stays here, too.
func (k *kept) give(c *Conn, r Response) error {
	k.mu.Lock()
	var fds []int
	var errs []error
	for _, fd := range k.fds {
		own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
		if errs = append(errs, err); err == nil {
			fds = append(fds, own)
		}
	}
	k.mu.Unlock()
	defer closeAll(fds)
	if err := errors.Join(errs...); err != nil {
		r.Error = "pass on sockets: " + err.Error()
		return c.Send(r)
	}
	return c.send(r, fds)
}

// stamp has the kernel note when packets come, for as long as nobody reads them: the next engine leaves out what nobody waits for any more. It costs every
// packet of the machine a look at the clock.
func (k *kept) stamp(on bool) {
	value := 0
	if on {
		value = 1
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, fd := range k.fds {
		if kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE); err == nil && kind == unix.SOCK_DGRAM {
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, value)
		}
	}
}

func copies(files []*os.File) (fds []int, err error) {
	for _, f := range files {
		fd, err := descriptor(f)
		if err == nil {
			fd, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
		}
		if err != nil {
			return fds, err
		}
		fds = append(fds, fd)
	}
	return fds, nil
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}
