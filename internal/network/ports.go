package network

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/network"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/network/firewall"
)

// reservation is a port of the host that a container has. The socket is bound, so that no program takes the port, but it does not listen:
// whatever comes past the rules finds a closed port.
type reservation struct {
	Host  netip.AddrPort
	Proto network.IPProtocol
	To    netip.AddrPort

	Direct  bool `json:",omitempty"` // reached at the container's own address: nothing of the host is taken, and Host has no port
	Trusted bool `json:",omitempty"` // reached there, too, from links that the network trusts

	fd int
}

func (r *reservation) close() {
	if r.fd > 0 {
		unix.Close(r.fd)
		r.fd = 0
	}
}

func (h *holding) closePorts() {
	closeAll(h.Reserved)
	h.Reserved = nil
}

func closeAll(list []*reservation) {
	for _, r := range list {
		r.close()
	}
}

// bind reserves the port. A TCP port that a server has just left (its connections linger) is free, hence SO_REUSEADDR for the moment of
// binding; without it afterwards no other program can have the port too.
func (r *reservation) bind() error {
	if r.Direct {
		return nil
	}
	domain, kind, proto := unix.AF_INET, unix.SOCK_STREAM, 0
	if r.Host.Addr().Is6() {
		domain = unix.AF_INET6
	}
	switch r.Proto {
	case network.UDP:
		kind = unix.SOCK_DGRAM
	case network.SCTP:
		proto = unix.IPPROTO_SCTP
	}
	fd, err := unix.Socket(domain, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, proto)
	if errors.Is(err, unix.EPROTONOSUPPORT) && r.Proto == network.SCTP && r.Host.Port() != 0 {
		return nil // the host cannot use the port for anything else
	}
	if err == nil {
		if err = r.bindTo(fd); err == nil {
			r.fd = fd
			return nil
		}
		unix.Close(fd)
	}
	return r.explain(err)
}

func (r *reservation) bindTo(fd int) error {
	var sa unix.Sockaddr = &unix.SockaddrInet4{Port: int(r.Host.Port()), Addr: four(r.Host.Addr())}
	if r.Host.Addr().Is6() {
		sa = &unix.SockaddrInet6{Port: int(r.Host.Port()), Addr: r.Host.Addr().As16()}
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1); err != nil {
			return err
		}
	}
	linger := r.Proto == network.TCP && r.Host.Port() != 0
	if linger {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
			return err
		}
	}
	if err := unix.Bind(fd, sa); err != nil {
		return err
	}
	if linger {
		return noReuse(fd)
	}
	if r.Host.Port() == 0 {
		name, err := unix.Getsockname(fd)
		if err != nil {
			return err
		}
		switch name := name.(type) {
		case *unix.SockaddrInet4:
			r.Host = netip.AddrPortFrom(r.Host.Addr(), uint16(name.Port))
		case *unix.SockaddrInet6:
			r.Host = netip.AddrPortFrom(r.Host.Addr(), uint16(name.Port))
		}
	}
	return nil
}

// noReuse has every other socket refused on the port. The kernel notes at bind(2) that a port may be shared, and looks at the sockets no
// more; only listen(2) takes the note back. The socket listens for that moment only.
func noReuse(fd int) error {
	if err := unix.Listen(fd, 0); err != nil {
		return err
	}
	if err := unix.Shutdown(fd, unix.SHUT_RD); err != nil {
		return err
	}
	return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 0)
}

// portTaken says who has a port that was asked for.
type portTaken struct {
	host  netip.AddrPort
	proto network.IPProtocol
	who   string // "" is not known
}

func (e *portTaken) Unwrap() error { return errdefs.ErrConflict }

func (e *portTaken) Error() string {
	text := fmt.Sprintf("Bind for %s failed: port is already allocated", e.host)
	if e.who != "" {
		text += ": " + e.who + " has it: stop that or publish another port"
	}
	return text
}

// publisher is the container that publishes a port, as people call it; another one than except.
func (s *state) publisher(host netip.AddrPort, proto network.IPProtocol, except *holding) string {
	for id, h := range s.holdings {
		if h != except && slices.ContainsFunc(h.Reserved, func(r *reservation) bool { return r.stands(host, proto) }) {
			return "container " + cmp.Or(h.Request.Name, id)
		}
	}
	return ""
}

// stands says that the reservation is in the way of another one.
func (r *reservation) stands(host netip.AddrPort, proto network.IPProtocol) bool {
	all := r.Host.Addr().IsUnspecified() || host.Addr().IsUnspecified()
	return !r.Direct && r.Proto == proto && r.Host.Port() == host.Port() && r.Host.Addr().Is4() == host.Addr().Is4() && (all || r.Host.Addr() == host.Addr())
}

// explain makes a failed bind an error that says what to do.
func (r *reservation) explain(err error) error {
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		return &portTaken{host: r.Host, proto: r.Proto, who: portHolder(r.Host, r.Proto)}
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return fmt.Errorf("Bind for %s failed: cannot assign requested address: the host has no address %s: %w", r.Host, r.Host.Addr(), errdefs.ErrInvalidArgument)
	case errors.Is(err, unix.EMFILE):
		return fmt.Errorf("Bind for %s failed: the engine may not open more files: raise its limit (ulimit -n) or publish fewer ports: %w", r.Host, errdefs.ErrResourceExhausted)
	}
	return fmt.Errorf("Bind for %s failed: %w", r.Host, err)
}

// rangeLength is from where a row of ports that are the same on both sides becomes one element: finding it costs more than a port of its
// own, having thousands costs more than that.
const rangeLength = 16

// firewallPorts are the reservations as the firewall has them.
func firewallPorts(reserved []*reservation) []firewall.Port {
	out := directPorts(reserved)
	sorted := slices.SortedFunc(slices.Values(reserved), func(a, b *reservation) int {
		return cmp.Or(strings.Compare(string(a.Proto), string(b.Proto)), a.Host.Addr().Compare(b.Host.Addr()), cmp.Compare(a.Host.Port(), b.Host.Port()))
	})
	for i := 0; i < len(sorted); {
		r := sorted[i]
		if !r.To.IsValid() || r.Direct {
			i++
			continue
		}
		n := 1
		for i+n < len(sorted) && r.continues(sorted[i+n], uint16(n)) {
			n++
		}
		if n >= rangeLength {
			out = append(out, firewall.Port{Host: r.Host.Addr(), Proto: r.number(), First: r.Host.Port(), Last: r.Host.Port() + uint16(n-1), To: netip.AddrPortFrom(r.To.Addr(), 0)})
			i += n
			continue
		}
		out = append(out, firewall.Port{Host: r.Host.Addr(), Proto: r.number(), First: r.Host.Port(), To: r.To})
		i++
	}
	return out
}

// directPorts are those that are reached at containers' own addresses; one that is published twice is one.
func directPorts(reserved []*reservation) (out []firewall.Port) {
	seen := map[firewall.Port]bool{}
	for _, r := range reserved {
		if !r.To.IsValid() || !r.Direct && !r.Trusted {
			continue
		}
		p := firewall.Port{Direct: true, Proto: r.number(), First: r.To.Port(), To: netip.AddrPortFrom(r.To.Addr(), 0)}
		if !seen[p] {
			seen[p] = true
			out = append(out, p)
		}
	}
	return out
}

// continues says whether next is the n-th port after r of a row that is the same on both sides.
func (r *reservation) continues(next *reservation, n uint16) bool {
	return r.Proto == next.Proto && r.Host.Addr() == next.Host.Addr() && r.To.Addr() == next.To.Addr() &&
		r.Host.Port() == r.To.Port() && next.Host.Port() == r.Host.Port()+n && next.To.Port() == next.Host.Port()
}

func (r *reservation) number() uint8 {
	switch r.Proto {
	case network.UDP:
		return unix.IPPROTO_UDP
	case network.SCTP:
		return unix.IPPROTO_SCTP
	}
	return unix.IPPROTO_TCP
}

func four(a netip.Addr) [4]byte {
	if a.Is4() {
		return a.As4()
	}
	return [4]byte{}
}
