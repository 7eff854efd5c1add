package docker

import (
	"context"
	"net"
	"os"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// containerIDs is where the containers' id ranges begin on the host.
const containerIDs = 0x10000000

type peerKey struct{}

// peer is who stands at the other end of a connection; err where the kernel did not say.
type peer struct {
	uid uint32
	pid int32
	err error
}

// withPeer reads the credentials that the kernel noted when the client connected.
func withPeer(ctx context.Context, c net.Conn) context.Context {
	p := peer{err: classed(errdefs.ErrPermissionDenied, "this connection is not a unix socket: the engine cannot see who asks")}
	if uc, ok := c.(*net.UnixConn); ok {
		p = peerOf(uc)
	}
	return context.WithValue(ctx, peerKey{}, p)
}

func peerOf(c *net.UnixConn) (p peer) {
	raw, err := c.SyscallConn()
	if err != nil {
		return peer{err: err}
	}
	if err := raw.Control(func(fd uintptr) {
		cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		if err != nil {
			p.err = err
			return
		}
		p.uid, p.pid = cred.Uid, cred.Pid
	}); err != nil {
		return peer{err: err}
	}
	return p
}

// allowed lets in root, the engine's own user, and ids of the containers' ranges: a process in a container reaches the socket only where
// its owner has mounted it in.
func allowed(ctx context.Context) error {
	p, ok := ctx.Value(peerKey{}).(peer)
	switch {
	case !ok:
		return classed(errdefs.ErrPermissionDenied, "the engine cannot see who asks")
	case p.err != nil:
		return p.err
	case p.uid == 0, int(p.uid) == os.Geteuid(), p.uid >= containerIDs && p.uid != ^uint32(0):
		return nil
	}
	return classed(errdefs.ErrPermissionDenied, "user %d may not use this engine: it obeys root only, since whoever commands it is root; try sudo", p.uid)
}
