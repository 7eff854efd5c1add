package network

import (
	"fmt"
	"iter"
	"net/netip"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/network"
)

// pool gives out a subnet's addresses, the lowest free one first.
type pool struct {
	subnet  netip.Prefix
	within  netip.Prefix // what is given out without being asked for by name: the subnet or a part of it
	gateway netip.Addr
	used    map[netip.Addr]bool
	low     netip.Addr               // below it nothing is free
	next    *pool                    // another subnet of the family, which macvlan and ipvlan may have; the first one stands for all
	given   map[netip.Addr]time.Time // back lately
	beside  []*pool                  // of other networks behind the same links, with addresses in common: what one of them has none of the others gives out
}

// besides finds the pools of other networks that have addresses in common with a subnet; nil finds none.
type besides func(netip.Prefix) []*pool

// poolsOf makes the pools of a network: of the families that it has.
func poolsOf(d *definition, beside besides) (v4, v6 *pool, err error) {
	for _, c := range d.IPAM.Config {
		at := &v4
		if c.Subnet.Addr().Is6() {
			at = &v6
		}
		if c.Subnet.IsValid() && !d.addressed(c.Subnet.Addr()) {
			continue
		}
		p, err := newPool(c, d.needsGateway(c.Subnet.Addr().Is6()), beside)
		if err != nil {
			return nil, nil, err
		}
		if *at != nil && d.Driver == driverBridge {
			return nil, nil, invalid("subnets %s and %s: a bridge has one subnet of each family", (*at).subnet, p.subnet)
		}
		for *at != nil {
			at = &(*at).next
		}
		*at = p
	}
	return v4, v6, nil
}

// addressed says that the network has addresses of a family; what is configured for another one is only shown.
func (d *definition) addressed(a netip.Addr) bool {
	if a.Is6() {
		return d.EnableIPv6
	}
	return d.EnableIPv4
}

// needsGateway says that a subnet needs an address for whom its containers send to what is outside: the host, or a machine behind a parent.
func (d *definition) needsGateway(six bool) bool {
	if d.stacked() {
		return !d.leadsNowhere() && !d.routed()
	}
	return !d.Internal || d.hostIsOn(six)
}

// newPool makes the pool of a subnet; where a gateway is needed and none is named it is the first free address.
func newPool(c network.IPAMConfig, gateway bool, beside besides) (*pool, error) {
	if !c.Subnet.IsValid() {
		return nil, invalid("a network's addresses need a subnet")
	}
	p := &pool{subnet: c.Subnet.Masked(), within: c.Subnet.Masked(), gateway: c.Gateway, used: map[netip.Addr]bool{}, given: map[netip.Addr]time.Time{}}
	room := p.subnet.Addr().BitLen() - p.subnet.Bits()
	if room < 1 {
		return nil, invalid("subnet %s has no room for a gateway and a container", p.subnet)
	}
	if c.IPRange.IsValid() {
		p.within = c.IPRange.Masked()
		if !p.subnet.Contains(p.within.Addr()) || p.within.Bits() < p.subnet.Bits() {
			return nil, invalid("ip-range %s is not part of subnet %s", c.IPRange, c.Subnet)
		}
	}
	p.low = p.within.Addr()
	if beside != nil {
		p.beside = beside(p.subnet)
	}
	if room > 1 { // a subnet of two addresses has just those (RFC 3021, RFC 6164)
		p.used[p.subnet.Addr()] = true
		if p.subnet.Addr().Is4() {
			p.used[lastOf(p.subnet)] = true // broadcast
		}
	}
	for name, a := range c.AuxAddress {
		if !p.subnet.Contains(a) {
			return nil, invalid("auxiliary address %s=%s is not part of subnet %s", name, a, c.Subnet)
		}
		p.used[a] = true
	}
	if !p.gateway.IsValid() && !gateway {
		return p, nil
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

// all are the subnets of the family.
func (p *pool) all() iter.Seq[*pool] {
	return func(yield func(*pool) bool) {
		for q := p; q != nil && yield(q); q = q.next {
		}
	}
}

// of is the pool that an address is of; the first one where there is none.
func (p *pool) of(a netip.Addr) *pool {
	for q := range p.all() {
		if q.subnet.Contains(a) {
			return q
		}
	}
	return p
}

// take reserves an address: the one that is wanted, or else the lowest free one of the first subnet that has one.
func (p *pool) take(want netip.Addr) (a netip.Addr, err error) {
	if want.IsValid() {
		return p.of(want).takeOwn(want)
	}
	for q := range p.all() {
		if a, err = q.takeOwn(want); !errdefs.IsResourceExhausted(err) {
			break
		}
	}
	return a, err
}

// has refuses an address that is in none of the subnets of the family.
func (p *pool) has(a netip.Addr) error {
	for q := range p.all() {
		if q.subnet.Contains(a) {
			return nil
		}
	}
	return invalid("address %s is not part of subnet %s", a, p.subnet)
}

func (p *pool) takeOwn(want netip.Addr) (netip.Addr, error) {
	if want.IsValid() {
		switch {
		case !p.subnet.Contains(want):
			return netip.Addr{}, p.has(want)
		case p.taken(want):
			return netip.Addr{}, fmt.Errorf("address %s: Address already in use: %w", want, errdefs.ErrConflict)
		}
		p.used[want] = true
		return want, nil
	}
	for a := p.low; p.within.Contains(a); a = a.Next() {
		if !p.taken(a) {
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
	p = p.of(a)
	delete(p.used, a)
	if len(p.given) >= remembered {
		clear(p.given)
	}
	p.given[a] = time.Now()
	p.lower(a)
	for _, q := range p.beside {
		q.lower(a)
	}
}

const (
	lately     = time.Minute
	remembered = 1024 // addresses
)

// hadLately says that an address was somebody's until a moment ago.
func (p *pool) hadLately(a netip.Addr) bool {
	if p == nil || !a.IsValid() {
		return false
	}
	at, ok := p.of(a).given[a]
	return ok && time.Since(at) < lately
}

// lower notes that an address is free.
func (p *pool) lower(a netip.Addr) {
	if p.within.Contains(a) && a.Less(p.low) {
		p.low = a
	}
}

// taken says that somebody has an address.
func (p *pool) taken(a netip.Addr) bool {
	for _, q := range p.beside {
		if q.used[a] {
			return true
		}
	}
	return p.used[a]
}

func (p *pool) prefix(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, p.of(a).subnet.Bits()) }

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
	if p = p.of(a); p.used[a] {
		return fmt.Errorf("%s is used twice: %w", a, errdefs.ErrConflict)
	}
	p.used[a] = true
	return nil
}
