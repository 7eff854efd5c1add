package network

import (
	"crypto/rand"
	"fmt"
	"net/netip"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/network"
	"github.com/vishvananda/netlink"

	"wherry.dev/wherry/internal/settings"
)

// defaultPools are the ranges from which networks get subnets when nobody names one, with the size of each subnet: Docker's.
func defaultPools() []poolRange {
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

// poolRanges are the ranges of a family: those of the setting network.pools, each "base=10.200.0.0/16,size=24" as for Docker's
// --default-address-pool. Without any of IPv4 they are Docker's; without any of IPv6 there are none.
func poolRanges(texts []string, six bool) ([]poolRange, error) {
	var out []poolRange
	for _, text := range texts {
		p, err := settings.ParsePool(text)
		if err != nil {
			return nil, invalid("setting network.pools: %v", err)
		}
		r := poolRange{p.Whole, p.Bits}
		if r.whole.Addr().Is6() == six {
			out = append(out, r)
		}
	}
	if len(out) == 0 && !six {
		return defaultPools(), nil
	}
	return out, nil
}

// ownSubnets refuses subnets that a caller with limits may not choose. What the host sends to an address of a network goes to that network, so
// who may take any could answer for the host's resolvers, registries and metadata service.
func ownSubnets(s *state, name string, ipam *network.IPAM) error {
	if ipam == nil {
		return nil
	}
	for _, c := range ipam.Config {
		if !c.Subnet.IsValid() || c.Subnet.Addr().IsUnspecified() && c.Subnet.Bits() > 0 { // the engine chooses
			continue
		}
		ranges, err := poolRanges(s.poolTexts, c.Subnet.Addr().Is6())
		if err != nil {
			return err
		}
		in := func(r poolRange) bool { return r.whole.Bits() <= c.Subnet.Bits() && r.whole.Contains(c.Subnet.Addr()) }
		if !slices.ContainsFunc(ranges, in) {
			return fmt.Errorf("network %s: subnet %s is not of the engine's address pools, and you may use those: leave the subnet away, or have it added to the setting network.pools: %w",
				name, c.Subnet, errdefs.ErrPermissionDenied)
		}
		if at := slices.IndexFunc(s.conf.behind().servers, func(a netip.Addr) bool { return c.Subnet.Contains(a.WithZone("")) }); at >= 0 {
			return fmt.Errorf("network %s: subnet %s has the address of a name server that the host asks: choose another subnet: %w", name, c.Subnet, errdefs.ErrPermissionDenied)
		}
	}
	return nil
}

// freeSubnet finds a subnet that neither a network of this engine, nor a route or address of the host, nor a resolver has; bits is its size,
// 0 the usual one. The caller holds the lock or is alone.
func (s *state) freeSubnet(six bool, bits int) (netip.Prefix, error) {
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
	ranges, err := poolRanges(s.poolTexts, six)
	if err != nil {
		return netip.Prefix{}, err
	}
	if six && len(ranges) == 0 {
		p, err := freeUnique(taken)
		switch {
		case bits > 0 && bits < uniqueBits:
			return p, invalid("there are no unique local addresses for a subnet of /%d: /%d is the largest; or give the subnet", bits, uniqueBits)
		case bits > 0:
			p = netip.PrefixFrom(p.Addr(), bits)
		}
		return p, err
	}
	for _, r := range ranges {
		if bits >= r.whole.Bits() && bits < r.whole.Addr().BitLen() {
			r.bits = bits
		} else if bits > 0 {
			continue
		}
		for p := netip.PrefixFrom(r.whole.Addr(), r.bits); r.whole.Contains(p.Addr()); p = netip.PrefixFrom(lastOf(p).Next(), r.bits) {
			t := overlapping(p, taken)
			if t == nil {
				return p, nil
			}
			if t.Bits() < p.Bits() { // past all of it: there may be more subnets in it than anybody can count
				p = netip.PrefixFrom(lastOf(t.Masked()), r.bits).Masked()
			}
		}
	}
	return netip.Prefix{}, fmt.Errorf("all predefined address pools have been fully subnetted or are in use by the host: remove networks or give a subnet: %w", errdefs.ErrResourceExhausted)
}

// uniqueBits begin a unique local address of somebody's own.
const uniqueBits = 48

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
			if to, ok := routeOf(r); ok {
				out = append(out, hostRoute{to, r.LinkIndex})
			}
		}
	}
	return out, nil
}

// routeOf is where a route leads: not a default one, nor one to addresses of a link.
func routeOf(r netlink.Route) (netip.Prefix, bool) {
	if r.Dst == nil {
		return netip.Prefix{}, false
	}
	a, ok := netip.AddrFromSlice(r.Dst.IP)
	bits, _ := r.Dst.Mask.Size()
	a = a.Unmap()
	return netip.PrefixFrom(a, bits), ok && bits > 0 && !a.IsLinkLocalUnicast() && !a.IsMulticast() && !a.IsLoopback()
}
