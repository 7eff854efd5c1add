package network

import (
	"fmt"
	"net/netip"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/network"
)

// pool gives out a subnet's addresses, the lowest free one first.
type pool struct {
	subnet  netip.Prefix
	within  netip.Prefix // what is given out without being asked for by name: the subnet or a part of it
	gateway netip.Addr
	used    map[netip.Addr]bool
	low     netip.Addr // below it nothing is free
}

// poolsOf makes the pools of a network, at most one of each family.
func poolsOf(configs []network.IPAMConfig) (v4, v6 *pool, err error) {
	for _, c := range configs {
		p, err := newPool(c)
		if err != nil {
			return nil, nil, err
		}
		at := &v4
		if p.subnet.Addr().Is6() {
			at = &v6
		}
		if *at != nil {
			return nil, nil, invalid("subnets %s and %s: a bridge has one subnet of each family", (*at).subnet, p.subnet)
		}
		*at = p
	}
	return v4, v6, nil
}

func newPool(c network.IPAMConfig) (*pool, error) {
	if !c.Subnet.IsValid() {
		return nil, invalid("a network's addresses need a subnet")
	}
	p := &pool{subnet: c.Subnet.Masked(), within: c.Subnet.Masked(), gateway: c.Gateway, used: map[netip.Addr]bool{}}
	if p.subnet.Addr().BitLen()-p.subnet.Bits() < 2 {
		return nil, invalid("subnet %s has no room for a gateway and a container", p.subnet)
	}
	if c.IPRange.IsValid() {
		p.within = c.IPRange.Masked()
		if !p.subnet.Contains(p.within.Addr()) || p.within.Bits() < p.subnet.Bits() {
			return nil, invalid("ip-range %s is not part of subnet %s", c.IPRange, c.Subnet)
		}
	}
	p.low = p.within.Addr()
	p.used[p.subnet.Addr()] = true
	if p.subnet.Addr().Is4() {
		p.used[lastOf(p.subnet)] = true // broadcast
	}
	for name, a := range c.AuxAddress {
		if !p.subnet.Contains(a) {
			return nil, invalid("auxiliary address %s=%s is not part of subnet %s", name, a, c.Subnet)
		}
		p.used[a] = true
	}
	if !p.gateway.IsValid() {
		a, err := p.take(netip.Addr{})
		if err != nil {
			return nil, err
		}
		p.gateway = a
	} else if !p.subnet.Contains(p.gateway) {
		return nil, invalid("gateway %s is not part of subnet %s", c.Gateway, c.Subnet)
	}
	p.used[p.gateway] = true
	return p, nil
}

// take reserves an address: the one that is wanted, or else the lowest free one.
func (p *pool) take(want netip.Addr) (netip.Addr, error) {
	if want.IsValid() {
		switch {
		case !p.subnet.Contains(want):
			return netip.Addr{}, invalid("address %s is not part of subnet %s", want, p.subnet)
		case p.used[want]:
			return netip.Addr{}, fmt.Errorf("address %s: Address already in use: %w", want, errdefs.ErrConflict)
		}
		p.used[want] = true
		return want, nil
	}
	for a := p.low; p.within.Contains(a); a = a.Next() {
		if !p.used[a] {
			p.used[a] = true
			p.low = a.Next()
			return a, nil
		}
	}
	p.low = lastOf(p.within)
	return netip.Addr{}, fmt.Errorf("no available addresses are left in %s: remove containers or make a network with a larger subnet: %w", p.within, errdefs.ErrResourceExhausted)
}

// give takes an address back.
func (p *pool) give(a netip.Addr) {
	if p == nil || !a.IsValid() {
		return
	}
	delete(p.used, a)
	if p.within.Contains(a) && a.Less(p.low) {
		p.low = a
	}
}

func (p *pool) prefix(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, p.subnet.Bits()) }

func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// keep notes an address that is in use since an earlier life.
func (p *pool) keep(a netip.Addr) error {
	if p == nil || !a.IsValid() {
		return nil
	}
	if p.used[a] {
		return fmt.Errorf("%s is used twice: %w", a, errdefs.ErrConflict)
	}
	p.used[a] = true
	return nil
}
