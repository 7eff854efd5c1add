package network

import (
	"net/netip"
	"slices"
	"strings"
)

// hostNames are the names by which every container finds the machine that it runs on, as it does on desktops.
const hostNames = "host.docker.internal host.containers.internal"

func isHostName(name string) bool { return slices.Contains(strings.Fields(hostNames), name) }

// hostAddress is one of the host's at which services that listen on all addresses answer a container: the gateway of the network that leads
// out, or of the first one whose bridge the host is on. A container that is on none has no such address: macvlan and ipvlan do not reach the
// host. The caller holds the lock.
func hostAddress(s *state, h *holding) netip.Addr {
	near := slices.Clone(h.Endpoints)
	slices.SortStableFunc(near, func(a, b *endpoint) int { return rank(a) - rank(b) })
	leads := false
	for _, e := range near {
		n := s.networks[e.NetworkID]
		if n == nil || n.Driver != driverBridge {
			continue
		}
		leads = leads || e.leadsOut()
		for p := range n.pools() {
			if n.hostIsOn(p.subnet.Addr().Is6()) {
				return p.gateway
			}
		}
	}
	if n, err := s.find("bridge"); err == nil && leads && n.gateway().IsValid() {
		return n.gateway()
	}
	return netip.Addr{}
}

func rank(e *endpoint) int {
	if e.leadsOut() {
		return 0
	}
	return 1
}

// hostLine is the line of /etc/hosts for the machine, "" where the user gives those names himself or it cannot be reached.
func hostLine(s *state, h *holding) string {
	a := hostAddress(s, h)
	if !a.IsValid() {
		return ""
	}
	names := strings.Fields(hostNames)
	for _, e := range h.Request.ExtraHosts {
		name, _, _ := strings.Cut(e, ":")
		names = slices.DeleteFunc(names, func(n string) bool { return strings.EqualFold(n, name) })
	}
	if len(names) == 0 {
		return ""
	}
	return a.String() + "\t" + strings.Join(names, " ") + "\n"
}

// HostGateway is the address at which containers of the default network reach the host: what host-gateway means there. It is invalid where
// there is none.
func HostGateway(s *Service) netip.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := s.state.find("bridge")
	if err != nil {
		return netip.Addr{}
	}
	return n.gateway()
}
