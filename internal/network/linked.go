package network

import (
	"errors"
	"maps"
	"net/netip"

	"github.com/moby/moby/api/types/network"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/network/firewall"
	"wherry.dev/wherry/internal/network/link"
)

// opensLinks says that a link opens ports on the network: it is the default one, and keeps its containers from each other. IPv4 only.
func (n *lan) opensLinks() bool {
	return n != nil && n.Name == network.NetworkBridge && n.parted()
}

func (n *lan) parted() bool { return !n.flag("bridge.enable_icc", true) }

// answerForLinked has the host answer for containers that do not hear each other: what they send to each other comes to the host, and there the
// firewall's rules let links through. As the answer goes to nobody else, it needs no delay.
func (n *lan) answerForLinked() error {
	if n.Name != network.NetworkBridge {
		return nil
	}
	if !n.parted() {
		if readSysctl(answersKey(n.Bridge)) == "1" {
			return link.SetSysctl(answersKey(n.Bridge), "0")
		}
		return nil
	}
	err := link.SetSysctl(answersKey(n.Bridge), "1")
	if err == nil {
		err = link.SetSysctl("net/ipv4/neigh/"+n.Bridge+"/proxy_delay", "0")
	}
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EROFS) { // links open nothing then
		return nil
	}
	return err
}

// answersKey is the setting by which the kernel answers ARP by the link to which it would pass a packet on (RFC 3069).
func answersKey(bridge string) string { return "net/ipv4/conf/" + bridge + "/proxy_arp_pvlan" }

// linkedPorts are the ports that links open to a container, and those of its own that they open to others. The caller holds the lock, or is alone.
func linkedPorts(s *state, h *holding) (out []firewall.Port) {
	for _, e := range h.Endpoints {
		n := s.networks[e.NetworkID]
		if !n.opensLinks() || !e.V4.IsValid() {
			continue
		}
		for _, l := range e.links() {
			target, _ := parseLink(l)
			if id, to := n.linked(target); to != nil && s.holdings[id] != nil {
				out = append(out, opened(e.V4, to.V4, s.holdings[id])...)
			}
		}
		for id, from := range n.endpoints {
			for _, l := range from.links() {
				target, _ := parseLink(l)
				if _, to := n.linked(target); to == e && id != h.Request.ContainerID {
					out = append(out, opened(from.V4, e.V4, h)...)
				}
			}
		}
	}
	return out
}

func (e *endpoint) links() []string {
	if e.Asked == nil {
		return nil
	}
	return e.Asked.Links
}

// opened are a container's ports that are exposed or published, for one that is linked to it.
func opened(from, to netip.Addr, h *holding) (out []firewall.Port) {
	if !from.IsValid() || !to.IsValid() {
		return nil
	}
	ports := network.PortSet{}
	maps.Copy(ports, h.Request.Exposed)
	for p := range h.Request.Ports {
		ports[p] = struct{}{}
	}
	for p := range ports {
		out = append(out, firewall.Port{From: from, To: netip.AddrPortFrom(to, 0), Proto: (&reservation{Proto: p.Proto()}).number(), First: p.Num()})
	}
	return out
}
