package network

import (
	"crypto/rand"
	"fmt"
	"net/netip"

	"github.com/containerd/errdefs"
	"github.com/vishvananda/netlink"
)

// addressPools are the ranges from which networks get subnets when nobody names one, with the size of each subnet: Docker's.
func addressPools() []poolRange {
	out := make([]poolRange, 0, 16)
	for i := byte(17); i < 32; i++ {
		out = append(out, poolRange{netip.PrefixFrom(netip.AddrFrom4([4]byte{172, i}), 16), 16})
	}
	return append(out, poolRange{netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 168}), 16), 20})
}

type poolRange struct {
	whole netip.Prefix
	bits  int
}

// freeSubnet finds a subnet that neither a network of this engine, nor a route or address of the host, nor a resolver has.
// The caller holds the lock or is alone.
func (s *state) freeSubnet(six bool) (netip.Prefix, error) {
	routes, err := hostRoutes()
	if err != nil {
		return netip.Prefix{}, err
	}
	var taken []netip.Prefix
	for _, r := range routes {
		taken = append(taken, r.to)
	}
	for _, a := range s.conf.behind().servers {
		taken = append(taken, netip.PrefixFrom(a.WithZone(""), a.BitLen()))
	}
	for _, n := range s.networks {
		if n.ConfigOnly {
			continue
		}
		for _, c := range n.IPAM.Config {
			taken = append(taken, c.Subnet)
		}
	}
	if six {
		return freeUnique(taken)
	}
	for _, r := range addressPools() {
		for p := netip.PrefixFrom(r.whole.Addr(), r.bits); r.whole.Contains(p.Addr()); p = netip.PrefixFrom(lastOf(p).Next(), r.bits) {
			if overlapping(p, taken) == nil {
				return p, nil
			}
		}
	}
	return netip.Prefix{}, fmt.Errorf("all predefined address pools have been fully subnetted or are in use by the host: remove networks or give a subnet: %w", errdefs.ErrResourceExhausted)
}

// freeUnique makes a unique local /64 by chance (RFC 4193).
func freeUnique(taken []netip.Prefix) (netip.Prefix, error) {
	for range 16 {
		var b [16]byte
		rand.Read(b[1:6])
		b[0] = 0xfd
		if p := netip.PrefixFrom(netip.AddrFrom16(b), 64); overlapping(p, taken) == nil {
			return p, nil
		}
	}
	return netip.Prefix{}, fmt.Errorf("find a free IPv6 subnet: %w", errdefs.ErrResourceExhausted)
}

func overlapping(p netip.Prefix, taken []netip.Prefix) *netip.Prefix {
	for i, t := range taken {
		if t.Overlaps(p) {
			return &taken[i]
		}
	}
	return nil
}

// hostRoute is a route of the host, not a default one, over a link.
type hostRoute struct {
	to   netip.Prefix
	link int
}

func hostRoutes() ([]hostRoute, error) {
	var out []hostRoute
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := netlink.RouteList(nil, family)
		if err != nil {
			return nil, fmt.Errorf("list the host's routes: %w", err)
		}
		for _, r := range routes {
			if r.Dst == nil {
				continue
			}
			a, ok := netip.AddrFromSlice(r.Dst.IP)
			bits, _ := r.Dst.Mask.Size()
			if a = a.Unmap(); ok && bits > 0 && !a.IsLinkLocalUnicast() {
				out = append(out, hostRoute{netip.PrefixFrom(a, bits), r.LinkIndex})
			}
		}
	}
	return out, nil
}
