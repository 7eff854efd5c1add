package network

import (
	"cmp"
	"crypto/rand"
	"net/netip"
	"os"
	"slices"

	"github.com/moby/moby/api/types/network"
)

// endpoint is a container's place on a network. It is written to disk as part of its holding.
type endpoint struct {
	ID        string
	NetworkID string
	Network   string // its name
	Name      string // the container's
	Hostname  string
	Asked     *network.EndpointSettings
	V4, V6    netip.Addr
	MAC       network.HardwareAddr
	End       string `json:",omitempty"` // the host's end of the pair; "" on macvlan and ipvlan
	Interface string `json:",omitempty"` // the container's end
	Annex     int    `json:",omitempty"` // the bridge that it is on: 0 is the network's own
	Aliases   []string
	ways
}

// ways are how packets leave through an endpoint and come to it.
type ways struct {
	Default4 bool         `json:",omitempty"` // the way out is through this one
	Default6 bool         `json:",omitempty"`
	Direct4  bool         `json:",omitempty"` // the network is routed
	Direct6  bool         `json:",omitempty"`
	Hidden   bool         `json:",omitempty"` // nobody finds it by a name
	Spare    []netip.Addr `json:",omitempty"` // addresses that it had before its static ones, and still answers at
}

// holding is all that a container holds of networks. What is exported is written to <State>/network while the container is attached.
type holding struct {
	BootID    string
	Request   AllocateRequest
	Endpoints []*endpoint
	Ports     network.PortMap
	Reserved  []*reservation
	Turn      int64 `json:",omitempty"` // when it took another container's ports, for two that have the same
	Gave      flows `json:",omitempty"` // ports that another one took; senders may still reach this one
	Namespace namespace
	Roams     bool `json:",omitempty"` // its way out has been through another network: connections of before go on by the new one
	Asks      bool `json:",omitempty"` // it has a resolver, and what it was told of that stays in its files

	attached bool
	linked   bool     // somebody keeps what has its ports reached at [::1]
	ns       *os.File // the container's network namespace, held open until the release

	unplugged error // at the engine's start: an interface that it should have is not there
}

// leadsOut says that packets to everywhere else take this endpoint.
func (e *endpoint) leadsOut() bool { return e.Default4 || e.Default6 }

// exits are the endpoints through which the container's ports are published on IPv4 and on IPv6, nil where there is none. On macvlan and
// ipvlan nothing is published: others reach the container itself.
func (h *holding) exits() (out [2]*endpoint) {
	for i, e := range h.ways() {
		if e != nil && e.End != "" {
			out[i] = e
		}
	}
	return out
}

// wayOut is one of them.
func (h *holding) wayOut() *endpoint {
	x := h.exits()
	return cmp.Or(x[0], x[1])
}

// ways are the endpoints of the default routes: of IPv4 and of IPv6.
func (h *holding) ways() (out [2]*endpoint) {
	for _, e := range h.Endpoints {
		if e.Default4 {
			out[0] = e
		}
		if e.Default6 {
			out[1] = e
		}
	}
	return out
}

// published are the reservations that lead somewhere, to an address that the container has now, and what is open beside them: ports are
// reached at the container's own addresses on all of its routed networks, also where it is published through another one.
func (h *holding) published() []*reservation {
	var out, beside []*reservation
	for _, r := range h.Reserved {
		if slices.ContainsFunc(h.Endpoints, func(e *endpoint) bool { return e.V4 == r.To.Addr() || e.V6 == r.To.Addr() }) {
			out = append(out, r)
		}
	}
	for _, e := range h.Endpoints {
		for _, r := range out {
			a := e.direct(r.Host.Addr().Is6())
			if a.IsValid() && a != r.To.Addr() && !r.Host.Addr().IsLoopback() {
				beside = append(beside, &reservation{Host: netip.AddrPortFrom(r.Host.Addr(), 0), Proto: r.Proto, To: addrPort(a, r.To.Port()), Direct: true})
			}
		}
	}
	return append(out, beside...)
}

// direct is an endpoint's address of a family where its network is routed.
func (e *endpoint) direct(six bool) netip.Addr {
	switch {
	case six && e.Direct6:
		return e.V6
	case !six && e.Direct4:
		return e.V4
	}
	return netip.Addr{}
}

func (h *holding) remove(e *endpoint) {
	h.Endpoints = slices.DeleteFunc(h.Endpoints, func(other *endpoint) bool { return other == e })
}

// macOf derives a hardware address from an address, as Docker did for long: a neighbour's entry for an address stays right when another
// container gets it.
func macOf(v4, v6 netip.Addr) network.HardwareAddr {
	mac := network.HardwareAddr{0x02, 0x42, 0, 0, 0, 0}
	switch {
	case v4.IsValid():
		copy(mac[2:], v4.AsSlice())
	case v6.IsValid():
		copy(mac[1:], v6.AsSlice()[11:])
	default:
		rand.Read(mac[2:])
	}
	return mac
}

// settings are an endpoint's in the shape of inspect.
func (e *endpoint) settings(n *lan, containerID string) *network.EndpointSettings {
	out := e.Asked.Copy()
	if out == nil {
		out = &network.EndpointSettings{}
	}
	out.NetworkID, out.EndpointID = n.ID, e.ID
	out.DNSNames = nil
	if !n.plumbed() {
		return out
	}
	out.MacAddress = e.MAC
	if p := n.v4.of(e.V4); p != nil && e.V4.IsValid() {
		out.IPAddress, out.IPPrefixLen, out.Gateway = e.V4, p.subnet.Bits(), p.gateway
	}
	if p := n.v6.of(e.V6); p != nil && e.V6.IsValid() {
		out.GlobalIPv6Address, out.GlobalIPv6PrefixLen, out.IPv6Gateway = e.V6, p.subnet.Bits(), p.gateway
	}
	if n.leadsNowhere() {
		out.Gateway, out.IPv6Gateway = netip.Addr{}, netip.Addr{}
	}
	if n.Name == network.NetworkBridge {
		out.Links = nil // they are the container's: HostConfig.Links
		return out
	}
	out.Aliases, out.DNSNames = e.Asked.Aliases, e.dnsNames(containerID)
	return out
}

// dnsNames are the names by which others on a network find a container; the first is the one that a reverse lookup gives.
func (e *endpoint) dnsNames(containerID string) []string {
	var out []string
	seen := map[string]bool{}
	for _, name := range append([]string{e.Name}, e.Aliases...) {
		if name != "" && !seen[name] {
			seen[name] = true
			out = append(out, name)
		}
	}
	for _, name := range []string{shortID(containerID), e.Hostname} {
		if name != "" && !seen[name] {
			seen[name] = true
			out = append(out, name)
		}
	}
	return out
}

func shortID(id string) string { return id[:min(12, len(id))] }

func addrPort(a netip.Addr, port uint16) netip.AddrPort { return netip.AddrPortFrom(a, port) }

// exclusiveDriver is host or null where the container is on such a network, beside which nothing else can be, and else "".
func (h *holding) exclusiveDriver(networks map[string]*lan) string {
	for _, e := range h.Endpoints {
		if n := networks[e.NetworkID]; n != nil && !n.plumbed() {
			return n.Driver
		}
	}
	return ""
}
