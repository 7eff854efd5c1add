package dns

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// backlog bounds what is taken for questions of the time without an engine: more than the socket has room for.
const backlog = 1 << 16

// catchUp answers what came while no engine ran, but for what its clients have given up: after a long time that would be thousands of questions of each
// container, most of them to servers upstream. Whoever kept the socket had the kernel note when they came.
func (r *resolver) catchUp(ctx context.Context, in syscall.RawConn, buf []byte) {
	setStamps(in, 1)
	defer setStamps(in, 0)
	for range backlog {
		n, from, at, err := lookBack(in, buf)
		if err != nil {
			return
		}
		if at.IsZero() || time.Since(at) < r.s.patience {
			r.take(ctx, buf[:n], from)
		}
		drop(in)
	}
}

func setStamps(in syscall.RawConn, on int) {
	_ = in.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, on) })
}

// lookBack is look that does not wait and says when the packet came.
func lookBack(in syscall.RawConn, buf []byte) (n int, from netip.AddrPort, at time.Time, err error) {
	oob := make([]byte, unix.CmsgSpace(16))
	var extra int
	var sa unix.Sockaddr
	closed := in.Control(func(fd uintptr) {
		n, extra, _, sa, err = unix.Recvmsg(int(fd), buf, oob, unix.MSG_PEEK|unix.MSG_DONTWAIT)
	})
	if closed != nil {
		return 0, from, at, net.ErrClosed
	}
	if err != nil {
		return 0, from, at, os.NewSyscallError("recvmsg", err)
	}
	if four, ok := sa.(*unix.SockaddrInet4); ok {
		from = netip.AddrPortFrom(netip.AddrFrom4(four.Addr), uint16(four.Port))
	}
	messages, _ := unix.ParseSocketControlMessage(oob[:extra])
	for _, m := range messages {
		if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SO_TIMESTAMPNS && len(m.Data) >= 16 {
			at = time.Unix(int64(binary.NativeEndian.Uint64(m.Data)), int64(binary.NativeEndian.Uint64(m.Data[8:])))
		}
	}
	return n, from, at, nil
}
