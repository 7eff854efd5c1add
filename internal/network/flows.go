package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/moby/moby/api/types/network"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// flows are published UDP ports. The kernel remembers for each sender where its packets went: one that keeps sending would go on reaching
// whoever had the port before.
type flows map[uint16]bool

func flowsOf(reserved []*reservation) flows {
	out := flows{}
	for _, r := range reserved {
		if r.Proto == network.UDP && !r.Direct {
			out[r.Host.Port()] = true
		}
	}
	return out
}

// forget makes the kernel decide anew about packets to the ports: those that go where of says, or wherever they go where it is nil.
func (f flows) forget(of func(netip.Addr) bool) error {
	own, err := net.InterfaceAddrs()
	if err != nil {
		return fmt.Errorf("list the host's addresses: %w", err)
	}
	match := toPorts{ports: f, own: map[netip.Addr]bool{}, of: of}
	for _, a := range own {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			match.own[p.Addr()] = true
		}
	}
	for _, family := range []netlink.InetFamily{unix.AF_INET, unix.AF_INET6} {
		_, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, family, match)
		if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("forget earlier packets to published UDP ports: %w", err)
		}
	}
	return nil
}

// toPorts finds what was sent to one of the ports at an address of the host.
type toPorts struct {
	ports flows
	own   map[netip.Addr]bool
	of    func(netip.Addr) bool // where it goes: to a container, or to the host itself
}

func (m toPorts) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	if flow.Forward.Protocol != unix.IPPROTO_UDP || !m.ports[flow.Forward.DstPort] {
		return false
	}
	to, ok := netip.AddrFromSlice(flow.Forward.DstIP)
	to = to.Unmap()
	if !ok || !to.IsLoopback() && !m.own[to] {
		return false
	}
	at, _ := netip.AddrFromSlice(flow.Reverse.SrcIP)
	return m.of == nil || m.of(at.Unmap())
}

// addresses tells a container's own addresses. The caller holds the lock.
func (h *holding) addresses() func(netip.Addr) bool {
	own := map[netip.Addr]bool{}
	for _, e := range h.Endpoints {
		own[e.V4], own[e.V6] = true, true
		for _, a := range e.Spare {
			own[a] = true
		}
	}
	return func(a netip.Addr) bool { return own[a] }
}
