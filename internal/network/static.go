package network

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/vishvananda/netlink"

	"wherry.dev/wherry/internal/network/link"
)

// moving is what an interface gets: an address beside those that it has, or, where at is not valid, the hardware address.
type moving struct {
	name string // of the interface
	mac  net.HardwareAddr
	at   netip.Prefix
}

// TakeStatic gives a running container the addresses that it asks for and that another one had until now, hardware addresses too. Those that
// it has stay its own until it ends, for connections that are there.
func TakeStatic(s *Service, containerID string) error {
	s.mu.Lock()
	h := s.holdings[containerID]
	wants := h != nil && h.attached && h.wantsOthers()
	s.mu.Unlock()
	if !wants {
		return nil
	}
	s.later.drain() // addresses are given back when their interfaces are gone
	s.mu.Lock()
	before := rulesOf(&s.state, h)
	moves, err := takeStatic(&s.state, h)
	after := rulesOf(&s.state, h)
	s.mu.Unlock()
	if err != nil {
		return fmt.Errorf("static addresses of container %s: %w", h.Request.Name, err)
	}
	if h.ns == nil {
		return fmt.Errorf("static addresses of container %s: its network namespace was not found: %w", h.Request.Name, errdefs.ErrFailedPrecondition)
	}
	err = link.Inside(h.ns, s.home, func() error {
		for _, m := range moves {
			if err := m.add(); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("static addresses of container %s: %w", h.Request.Name, err)
	}
	if err := s.fire.ChangePorts(before, after); err != nil {
		return err
	}
	return h.write(s.o.live())
}

// wantsOthers says that the container asks for addresses which it has not.
func (h *holding) wantsOthers() bool {
	for _, e := range h.Endpoints {
		c := e.Asked.IPAMConfig
		if e.wantsMAC() || c != nil && (c.IPv4Address.IsValid() && c.IPv4Address != e.V4 || c.IPv6Address.IsValid() && c.IPv6Address != e.V6) {
			return true
		}
	}
	return false
}

// wantsMAC says that an endpoint asks for a hardware address that it has not.
func (e *endpoint) wantsMAC() bool {
	return len(e.Asked.MacAddress) > 0 && len(e.MAC) > 0 && !bytes.Equal(e.MAC, e.Asked.MacAddress)
}

// takeStatic reserves the addresses and sends published ports to them. The caller holds the lock.
func takeStatic(s *state, h *holding) (moves []moving, err error) {
	for _, e := range h.Endpoints {
		n, c := s.networks[e.NetworkID], e.Asked.IPAMConfig
		if n == nil {
			continue
		}
		if e.wantsMAC() {
			e.MAC = slices.Clone(e.Asked.MacAddress)
			moves = append(moves, moving{name: e.Interface, mac: net.HardwareAddr(e.MAC)})
			for p := range n.pools() { // everybody is told where they are now
				if a := e.addressIn(p); a.IsValid() {
					moves = append(moves, moving{e.Interface, net.HardwareAddr(e.MAC), p.prefix(a)})
				}
			}
		}
		if c == nil {
			continue
		}
		for _, row := range []struct {
			pool *pool
			want netip.Addr
			have *netip.Addr
		}{{n.v4, c.IPv4Address, &e.V4}, {n.v6, c.IPv6Address, &e.V6}} {
			if row.pool == nil || !row.want.IsValid() || row.want == *row.have {
				continue
			}
			if _, err := row.pool.take(row.want); err != nil {
				return nil, err
			}
			for _, r := range h.Reserved {
				if r.To.Addr() == *row.have {
					r.To = addrPort(row.want, r.To.Port())
				}
			}
			e.Spare = append(e.Spare, *row.have)
			*row.have = row.want
			moves = append(moves, moving{e.Interface, net.HardwareAddr(e.MAC), row.pool.prefix(row.want)})
		}
	}
	return moves, nil
}

// add runs on a thread in the container's namespace.
func (m moving) add() error {
	l, err := netlink.LinkByName(m.name)
	if err != nil {
		return fmt.Errorf("find the interface %s: %w", m.name, err)
	}
	if !m.at.IsValid() {
		if err := netlink.LinkSetHardwareAddr(l, m.mac); err != nil {
			return fmt.Errorf("give %s the hardware address %s: %w", m.name, m.mac, err)
		}
		return nil
	}
	address := &net.IPNet{IP: m.at.Addr().AsSlice(), Mask: net.CIDRMask(m.at.Bits(), m.at.Addr().BitLen())}
	if err := netlink.AddrReplace(l, &netlink.Addr{IPNet: address}); err != nil {
		return fmt.Errorf("add the address %s to %s: %w", m.at, m.name, err)
	}
	return link.Announce(l.Attrs().Index, m.at.Addr(), m.mac)
}

// addressIn is an endpoint's address of a subnet.
func (e *endpoint) addressIn(p *pool) netip.Addr {
	for _, a := range []netip.Addr{e.V4, e.V6} {
		if p.subnet.Contains(a) {
			return a
		}
	}
	return netip.Addr{}
}

// poolOf is the pool of an address's family.
func (n *lan) poolOf(a netip.Addr) *pool {
	if a.Is4() {
		return n.v4
	}
	return n.v6
}

func (n *lan) giveAddress(a netip.Addr) {
	if a.IsValid() {
		n.poolOf(a).give(a)
	}
}
