package registry

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
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
	a = a.Unmap()
	if b := a.As16(); a.Is6() && [12]byte(b[:12]) == nat64 {
		a = netip.AddrFrom4([4]byte(b[12:]))
	}
	switch {
	case a.IsLoopback(), a.IsUnspecified():
		return "this machine itself"
	case a.IsLinkLocalUnicast():
		return "a link-local address, as metadata services have"
	case slices.Contains(metadata, a.String()):
		return "the metadata service of a cloud"
	}
	return ""
}

// nat64 begins the addresses by which machines with IPv6 alone reach those of IPv4 (RFC 6052).
var nat64 = [12]byte{0, 0x64, 0xff, 0x9b}

// metadata are services of clouds that are at no link-local address: Amazon's and Google's by IPv6, Alibaba's, Azure's and Oracle's.
var metadata = []string{"fd00:ec2::254", "fd20:ce::254", "100.100.100.200", "168.63.129.16", "192.0.0.192"}
