package network

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/network/firewall"
)

// paths are what a change of a container's networks may change of the others: its default routes, and how it is published.
type paths struct {
	ways      [2]*endpoint
	exits     [2]exit
	published []firewall.Port
	flows     flows
}

// pathsOf is asked before a change. The caller holds the lock.
func pathsOf(s *state, h *holding) paths {
	if h == nil {
		return paths{}
	}
	return paths{ways: h.ways(), exits: exits(s, h), published: rulesOf(s, h), flows: flowsOf(h.Reserved)}
}

// noteWays notes that a running container's way out is another one than before, before that is written down: an engine that is killed in the change leaves
// it to the next one. The caller holds the lock.
func (h *holding) noteWays(before paths) {
	h.Roams = h.Roams || h.attached && before.ways != h.ways()
}

// rerouteAll sets the default routes of containers whose way out has changed: an engine may have been killed before it did.
func rerouteAll(s *Service) {
	for _, h := range s.holdings {
		if !h.Roams || h.ns == nil {
			continue
		}
		if err := s.reroute(h.ns, s.waysOut(h)); err != nil && !errors.Is(err, unix.ENODEV) { // an interface that is missing has been told of
			s.log(fmt.Errorf("routes of container %s: %w", h.Request.Name, err))
		}
	}
}

// rulesOf are what the firewall has of a holding: its ports, and the bridges by which it may answer. The caller holds the lock, or is alone.
func rulesOf(s *state, h *holding) []firewall.Port {
	out := append(firewallPorts(h.published()), linkedPorts(s, h)...)
	if !h.Roams {
		return out
	}
	for i, way := range h.exits() {
		if way == nil || s.networks[way.NetworkID] == nil {
			continue
		}
		for _, e := range h.Endpoints {
			for _, a := range append([]netip.Addr{e.V4, e.V6}, e.Spare...) {
				if e != way && e.End != "" && a.IsValid() && familyIndex(a.Is6()) == i {
					out = append(out, firewall.Port{By: s.networks[way.NetworkID].Bridge, To: netip.AddrPortFrom(a, 0)})
				}
			}
		}
	}
	return out
}

// republish sends a running container's ports the ways that it has now: those of a family that has got its first way out are reserved, and those of
// one that has lost its last are given back. After an error they are where they were before.
func (s *Service) republish(h *holding, before paths) error {
	p := publishingOf(s, h)
	if before.exits != p.via && !h.Request.Understudy {
		if err := reserveAnew(s, h, p); err != nil {
			return err
		}
	}
	s.mu.Lock()
	after := rulesOf(&s.state, h)
	forgotten := flowsOf(h.Reserved)
	maps.Copy(forgotten, before.flows)
	now := map[netip.Addr]bool{}
	for _, r := range h.Reserved {
		now[r.To.Addr()] = true
	}
	s.mu.Unlock()
	if err := s.fire.ChangePorts(before.published, after); err != nil {
		return err
	}
	if len(forgotten) > 0 && !slices.Equal(before.published, after) {
		s.later.add(job{run: func() error { return forgotten.forget(func(a netip.Addr) bool { return !now[a] }) }})
	}
	return h.write(s.o.live())
}

// reserveAnew decides about all ports of a holding again; numbers that it has stay.
func reserveAnew(s *Service, h *holding, p *publishing) error {
	want := h.Request.published()
	wishes, err := p.wishes(want.wanted())
	if err == nil {
		err = p.reserve(wishes)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		return explainPorts(&s.state, err, h.wayOut())
	}
	for _, r := range p.got {
		if via := p.via[familyIndex(r.Host.Addr().Is6())]; via.n != nil {
			r.To = addrPort(via.to, r.To.Port())
			r.Trusted = !r.Direct && via.n.trusts() && !r.Host.Addr().IsLoopback()
		}
	}
	h.Reserved, h.Ports = p.got, want.shown(p.got)
	return nil
}
