package registry

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"syscall"

	"github.com/containerd/errdefs"
)

// A registry chooses where its token service is and where it redirects to. Some addresses answer to this machine alone: its own services, and the
// metadata service of its cloud, whose answers are credentials. Only a registry that is there itself sends there.

// sentBy is the host of the registry that chose where a request goes.
type sentBy struct{}

// elsewhere marks a request that goes to another host than the registry's. What a proxy connects to is the proxy's to decide.
func (w *route) elsewhere(r *http.Request) *http.Request {
	if u, err := w.proxy(r); err != nil || u != nil {
		return r
	}
	return r.WithContext(context.WithValue(r.Context(), sentBy{}, w.host))
}

// refuseInward is the dialer's: it sees the address that a name has at this moment.
func refuseInward(ctx context.Context, _, address string, _ syscall.RawConn) error {
	host, ok := ctx.Value(sentBy{}).(string)
	if !ok {
		return nil
	}
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	kind := Inward(to.Addr())
	if kind == "" {
		return nil
	}
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	if there, err := net.DefaultResolver.LookupNetIP(ctx, "ip", name); err == nil && len(there) > 0 && Inward(there[0]) == kind {
		return nil
	}
	return fmt.Errorf("registry %s sends the engine to %s, %s: refused: %w", host, to, kind, errdefs.ErrPermissionDenied)
}

// Inward says which kind of address answers to this machine alone; "" is said of all others.
func Inward(a netip.Addr) string {
	switch a = a.Unmap(); {
	case a.IsLoopback(), a.IsUnspecified():
		return "this machine itself"
	case a.IsLinkLocalUnicast():
		return "a link-local address, as metadata services have"
	}
	return ""
}
