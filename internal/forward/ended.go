package forward

import (
	"crypto/tls"
	"io"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// ended says that the other end has closed a connection, or why nothing can be sent by it: a write that comes after that is taken by the kernel and lost.
func ended(c net.Conn) error {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	s, ok := c.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return err
	}
	var n int
	var got error
	err = raw.Control(func(fd uintptr) {
		var b [1]byte
		n, _, got = unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
	})
	switch {
	case err != nil:
		return err
	case got == unix.EAGAIN || got == unix.EINTR || got == nil && n > 0:
		return nil
	case got == nil:
		return io.ErrClosedPipe
	}
	return got
}
