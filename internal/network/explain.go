package network

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/network"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/network/firewall"
	"wherry.dev/wherry/internal/network/link"
)

// Published is a published port, or a row of ports that one element of the firewall stands for.
type Published struct {
	Container, Name string // id and name
	Address         netip.Addr
	First, Last     uint16
	Proto           network.IPProtocol
	To              netip.AddrPort // of the first
	Table           string
	Map, Element    string
}

// Listener is who takes connections at a port.
type Listener struct {
	*Published `json:",omitempty"` // nil: a process of the host
	Address    netip.Addr
	Process    string // "nginx (pid 4711)"; "" where nobody listens, or it cannot be seen
	Listens    bool
	Reach      []Reach
}

// Reach says whether somebody reaches a port.
type Reach struct {
	From string
	Can  string // yes, no or unsure
	Why  string `json:",omitempty"`
}

// Words of Reach.Can.
const (
	reachYes    = "yes"
	reachNo     = "no"
	reachUnsure = "unsure"
)

// ListPorts are the published ports of all containers.
func ListPorts(s *Service) []Published {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := []Published{}
	for id, h := range s.holdings {
		if !h.attached {
			continue
		}
		for _, p := range firewallPorts(h.published()) {
			out = append(out, s.names.publishedBy(id, h, p))
		}
	}
	slices.SortFunc(out, func(a, b Published) int {
		return cmp.Or(cmp.Compare(a.First, b.First), cmp.Compare(a.Proto, b.Proto), a.Address.Compare(b.Address))
	})
	return out
}

func (n *names) publishedBy(id string, h *holding, p firewall.Port) Published {
	to := p.To
	if to.Port() == 0 {
		to = addrPort(to.Addr(), p.First)
	}
	set, element := p.Element()
	proto := map[uint8]network.IPProtocol{unix.IPPROTO_TCP: network.TCP, unix.IPPROTO_UDP: network.UDP, unix.IPPROTO_SCTP: network.SCTP}[p.Proto]
	return Published{Container: id, Name: h.Request.Name, Address: p.Host, First: p.First, Last: max(p.First, p.Last), Proto: proto, To: to,
		Table: "inet " + n.table, Map: set, Element: element}
}

// explaining is one answer to who listens at a port and who reaches it.
type explaining struct {
	s     *Service
	port  uint16
	proto network.IPProtocol
	links []hostLink
}

// hostLink is an interface by which others come.
type hostLink struct {
	name     string
	what     string // as people call it
	internal bool   // of an internal network
	own      bool   // of the engine
	prefixes []netip.Prefix
}

// ExplainPort says who listens at a port of the host, through which rule, and who reaches it.
func ExplainPort(s *Service, port uint16, proto network.IPProtocol) ([]Listener, error) {
	x := &explaining{s: s, port: port, proto: proto}
	var err error
	if x.links, err = hostLinks(s); err != nil {
		return nil, err
	}
	out := []Listener{}
	for _, p := range ListPorts(s) {
		if p.Proto != proto || port < p.First || port > p.Last {
			continue
		}
		l, err := x.container(p)
		if err != nil {
			return nil, err
		}
		out = append(out, l)
	}
	host, err := x.host()
	return append(out, host...), err
}

// container explains a published port.
func (x *explaining) container(p Published) (l Listener, err error) {
	l = Listener{Published: &p, Address: p.Address}
	to := addrPort(p.To.Addr(), p.To.Port()+x.port-p.First)
	x.s.mu.Lock()
	h := x.s.holdings[p.Container]
	var ns *os.File
	bridge, fourOnly := "", false
	if h != nil {
		ns, fourOnly = h.ns, p.fourOnly(h)
		for _, e := range h.Endpoints {
			if n := x.s.networks[e.NetworkID]; n != nil && (e.V4 == to.Addr() || e.V6 == to.Addr()) {
				bridge = n.Bridge
			}
		}
	}
	x.s.mu.Unlock()
	l.Listens = x.proto == network.SCTP // the kernel's list of its sockets says less
	if ns != nil && !l.Listens {
		err := link.Inside(ns, x.s.home, func() error {
			if inodes := socketsOf(to, x.proto); len(inodes) > 0 {
				l.Listens, l.Process = true, holderOf(inodes)
			}
			return nil
		})
		if err != nil {
			return l, err
		}
	}
	l.Reach, err = x.reach(p.Address, l.Listens, func(from hostLink) ([]firewall.Judgement, error) {
		return firewall.Judge(x.s.names.table, firewall.Packet{Forward: true, Mapped: true, In: from.name, Out: bridge, Proto: number(x.proto), To: to})
	})
	for i, from := range x.links {
		if r := &l.Reach[1+i]; r.Can != reachNo && !forwards(from.name, to.Addr().Is6()) {
			r.Can, r.Why = reachNo, fmt.Sprintf("the host does not forward packets that come by %s (sysctl %s)", from.name, forwardKey(from.name, to.Addr().Is6()))
		}
	}
	if x.local(p) {
		l.Reach[0].Why = "at [::1], too"
	}
	if fourOnly {
		l.Reach = append(l.Reach, Reach{From: "other machines by IPv6", Can: reachNo, Why: "the port is published on IPv4 alone, as the container's network has no IPv6 " +
			"(the setting network.ipv6 = true gives it to the default network, network create --ipv6 to others)"})
	}
	if !l.Listens {
		for i := range l.Reach {
			l.Reach[i].Can, l.Reach[i].Why = reachNo, fmt.Sprintf("nothing listens at %s in the container", to)
		}
	}
	return l, err
}

// fourOnly says that a port is published on all of the host's IPv4 addresses and on none of IPv6, for want of an IPv6 address of the container's.
func (p *Published) fourOnly(h *holding) bool {
	return p.Address == netip.IPv4Unspecified() && !slices.ContainsFunc(h.Endpoints, func(e *endpoint) bool { return e.V6.IsValid() })
}

// local says that a port is reached at [::1]: it is one of 127.0.0.1, and no process of the host has it there.
func (x *explaining) local(p Published) bool {
	if x.s.local.Link() == nil || x.proto == network.SCTP || !(&reservation{Host: addrPort(p.Address, p.First), Proto: p.Proto}).isLocal() {
		return false
	}
	return !slices.ContainsFunc(listenAddresses(x.port, x.proto), func(a netip.Addr) bool {
		return a == netip.IPv6Loopback() || a == netip.IPv6Unspecified() && (x.proto == network.UDP || !x.reserved(a))
	})
}

func number(proto network.IPProtocol) uint8 { return (&reservation{Proto: proto}).number() }

// host explains what processes of the host have of the port.
func (x *explaining) host() ([]Listener, error) {
	var out []Listener
	seen := map[netip.Addr]bool{}
	for _, at := range listenAddresses(x.port, x.proto) {
		if seen[at] || x.reserved(at) {
			continue
		}
		who := portHolder(addrPort(at, x.port), x.proto)
		seen[at] = true
		l := Listener{Address: at, Process: who, Listens: true}
		var err error
		l.Reach, err = x.reach(at, true, func(from hostLink) ([]firewall.Judgement, error) {
			to := at
			if at.IsUnspecified() && len(from.prefixes) > 0 {
				to = from.prefixes[0].Addr()
			}
			return firewall.Judge(x.s.names.table, firewall.Packet{In: from.name, Proto: number(x.proto), To: addrPort(to, x.port)})
		})
		if err != nil {
			return nil, err
		}
		out = append(out, l)
	}
	return out, nil
}

// reserved says that the engine's own socket holds the port for a container.
func (x *explaining) reserved(at netip.Addr) bool {
	x.s.mu.Lock()
	defer x.s.mu.Unlock()
	for _, h := range x.s.holdings {
		if slices.ContainsFunc(h.Reserved, func(r *reservation) bool { return r.Host == addrPort(at, x.port) && r.Proto == x.proto }) {
			return true
		}
	}
	return false
}

// reach asks for each way on which packets come.
func (x *explaining) reach(at netip.Addr, published bool, judge func(hostLink) ([]firewall.Judgement, error)) ([]Reach, error) {
	out := []Reach{{From: "this machine", Can: reachYes}}
	if !published {
		out[0].Can = reachNo
	}
	for _, from := range x.links {
		r := Reach{From: from.what, Can: reachYes}
		switch {
		case at.IsLoopback():
			r.Can, r.Why = reachNo, fmt.Sprintf("%s is each machine's own", at)
		case from.internal:
			r.Can, r.Why = reachNo, "the network is internal"
		case !at.IsUnspecified() && !from.own && !slices.ContainsFunc(from.prefixes, func(p netip.Prefix) bool { return p.Contains(at) }):
			r.Why = fmt.Sprintf("with a route to %s", at)
		}
		if r.Can == reachYes {
			list, err := judge(from)
			if err != nil {
				return nil, err
			}
			for _, j := range list {
				if j.Outcome == firewall.Drops {
					r.Can, r.Why = reachNo, fmt.Sprintf("the firewall's chain %s drops it", j.Chain)
					break
				}
				r.Can, r.Why = reachUnsure, fmt.Sprintf("the firewall's chain %s has rules about more than this can tell", j.Chain)
			}
		}
		out = append(out, r)
	}
	return out, nil
}

// hostLinks are the interfaces by which others come: bridges of the engine's networks, and those of the host that have addresses.
func hostLinks(s *Service) ([]hostLink, error) {
	s.mu.Lock()
	var out []hostLink
	own := map[string]bool{}
	for _, n := range s.networks {
		if n.Driver == driverBridge {
			own[n.Bridge] = true
			out = append(out, hostLink{name: n.Bridge, what: "containers on network " + n.Name, internal: n.Internal, own: true, prefixes: n.rules().Subnets})
		}
	}
	s.mu.Unlock()
	slices.SortFunc(out, func(a, b hostLink) int { return cmp.Compare(a.what, b.what) })
	all, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list the host's links: %w", err)
	}
	for _, i := range all {
		addresses, err := i.Addrs()
		if own[i.Name] || i.Flags&net.FlagLoopback != 0 || i.Flags&net.FlagUp == 0 || err != nil {
			continue
		}
		l := hostLink{name: i.Name}
		var words []string
		for _, a := range addresses {
			if p, err := netip.ParsePrefix(a.String()); err == nil && !p.Addr().IsLinkLocalUnicast() {
				l.prefixes = append(l.prefixes, p)
				words = append(words, p.Masked().String())
			}
		}
		if len(l.prefixes) > 0 {
			l.what = fmt.Sprintf("other machines by %s (%s)", i.Name, strings.Join(words, ", "))
			out = append(out, l)
		}
	}
	return out, nil
}
