package network

import (
	"net/netip"
	"slices"

	"github.com/moby/moby/api/types/network"
)

// Networks on links of the host's may have subnets in common: as a rule they are that of the machines behind the links, of which each network
// gives out a part of its own, its ip-range. No address is given out by two.

// mayShare says that a network that is asked for may have a subnet in common with another one: it gives out a part that is not the other one's.
func mayShare(d, other *definition, asked, has network.IPAMConfig) bool {
	return d.stacked() && other.stacked() && asked.IPRange.IsValid() && !(asked.Subnet == has.Subnet && asked.IPRange == has.IPRange)
}

// neighbours finds the pools that a network's have addresses in common with. The caller holds the lock.
func neighbours(s *state, d *definition) besides {
	if !d.stacked() {
		return nil
	}
	return func(subnet netip.Prefix) (out []*pool) {
		for _, n := range s.networks {
			if !n.stacked() {
				continue
			}
			for p := range n.pools() {
				if p.subnet.Overlaps(subnet) {
					out = append(out, p)
				}
			}
		}
		return out
	}
}

// list puts a network among the others. The caller holds the lock.
func list(s *state, n *lan) {
	s.networks[n.ID] = n
	for p := range n.pools() {
		for _, q := range p.beside {
			q.beside = append(q.beside, p)
		}
	}
}

// unlist takes it away; what it had is free for those beside it. The caller holds the lock.
func unlist(s *state, n *lan) {
	delete(s.networks, n.ID)
	for p := range n.pools() {
		for _, q := range p.beside {
			q.beside = slices.DeleteFunc(q.beside, func(other *pool) bool { return other == p })
			q.low = q.within.Addr()
		}
	}
}
