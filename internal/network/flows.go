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

// forget makes the kernel decide anew about packets to the ports.
func (f flows) forget() error {
	own, err := net.InterfaceAddrs()
	if err != nil {
		return fmt.Errorf("list the host's addresses: %w", err)
	}
	match := toPorts{ports: f, own: map[netip.Addr]bool{}}
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
}

func (m toPorts) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	if flow.Forward.Protocol != unix.IPPROTO_UDP || !m.ports[flow.Forward.DstPort] {
		return false
	}
	to, ok := netip.AddrFromSlice(flow.Forward.DstIP)
	to = to.Unmap()
	return ok && (to.IsLoopback() || m.own[to])
}
