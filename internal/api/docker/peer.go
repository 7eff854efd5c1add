package docker

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/access"
	containers "wherry.dev/wherry/internal/container"
)

type peerKey struct{}

// peer is who stands at the other end of a connection; err where that is not to be seen.
type peer struct {
	caller *access.Caller
	tls    bool // the caller is who the certificate says, which is known after the handshake
	err    error
}

// truster is a listener that says, of a connection that it has accepted, whether it would do so again.
type truster interface {
	Trusts(*tls.ConnectionState) error
}

type trusterKey struct{}

// withPeer reads the credentials that the kernel noted when the client connected.
func (s *Server) withPeer(ctx context.Context, c net.Conn) context.Context {
	p := peer{err: classed(errdefs.ErrPermissionDenied, "this connection is neither a unix socket nor TLS with a certificate: the engine cannot see who asks")}
	switch c := c.(type) {
	case *net.UnixConn:
		p.caller, p.err = peerOf(c)
		if p.err == nil && p.caller.Contained && s.containers != nil {
			p.caller.Container = containers.OfUser(s.containers, p.caller.UID)
		}
	case *tls.Conn:
		p = peer{tls: true}
	}
	return context.WithValue(ctx, peerKey{}, p)
}

func peerOf(c *net.UnixConn) (*access.Caller, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	var caller *access.Caller
	var asked error
	err = raw.Control(func(fd uintptr) {
		cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		if err != nil {
			asked = fmt.Errorf("ask the kernel who connects: %w", err)
			return
		}
		caller = &access.Caller{UID: cred.Uid, GID: cred.Gid, PID: cred.Pid, Program: program(cred.Pid)}
		if caller.Contained, asked = access.Contained(fd, cred); asked != nil {
			asked = classed(errdefs.ErrPermissionDenied, "%v", asked)
			return
		}
		if cred.Uid != 0 {
			caller.Groups, err = peerGroups(int(fd))
			if err != nil {
				asked = fmt.Errorf("ask the kernel for the groups of who connects: %w", err)
			}
		}
	})
	return caller, errors.Join(err, asked)
}

// program is the path of a process's program. It is told right after it connected, so that the process is most likely the one that did.
func program(pid int32) string {
	path, err := os.Readlink("/proc/" + strconv.Itoa(int(pid)) + "/exe")
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(path, " (deleted)")
}

// callerOf is who makes a request.
func callerOf(r *http.Request) (*access.Caller, error) {
	p, ok := r.Context().Value(peerKey{}).(peer)
	switch {
	case !ok:
		return nil, classed(errdefs.ErrPermissionDenied, "the engine cannot see who asks")
	case p.err != nil:
		return nil, p.err
	case !p.tls:
		return p.caller, nil
	case r.TLS == nil || len(r.TLS.VerifiedChains) == 0 || len(r.TLS.VerifiedChains[0]) == 0:
		return nil, classed(errdefs.ErrPermissionDenied, "the client has shown no certificate that the engine trusts")
	}
	if t, ok := r.Context().Value(trusterKey{}).(truster); ok {
		if err := t.Trusts(r.TLS); err != nil {
			return nil, classed(errdefs.ErrPermissionDenied, "the certificate that this connection was made with is not trusted any more: %v", err)
		}
	}
	return access.OfCertificate(r.TLS.VerifiedChains[0][0], r.RemoteAddr), nil
}
