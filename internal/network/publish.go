package network

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/network"
)

// Words of Options.Publish.
const (
	PublishAll      = "all"      // a port without an address is published on all of the host's addresses
	PublishLoopback = "loopback" // on 127.0.0.1 only
)

// wish is a port to publish on some addresses of the host, as one number of a range (0: any free one).
type wish struct {
	port        network.Port
	hosts       []netip.Addr
	first, last uint16
}

// dynamic says that the host's port is not named.
func (w wish) dynamic() bool { return w.first != w.last || w.first == 0 }

// publishing finds the host's ports of a container that is published through the endpoint e on n; e is nil where no network leads out.
type publishing struct {
	e        *endpoint
	n        *lan
	loopback bool // a port without an address is for this machine only

	have []*reservation // what the container has already, and keeps where it wants it still
	got  []*reservation
	made []*reservation // those of got that were not there before
}

// published is what a container wants published, as it asks for it.
type published struct {
	Ports   network.PortMap
	All     bool // everything that is exposed, too
	Exposed network.PortSet
}

func (r *AllocateRequest) published() published { return published{r.Ports, r.PublishAll, r.Exposed} }

// wanted are the bindings of each port; one without bindings is shown in inspect.
func (p published) wanted() map[network.Port][]network.PortBinding {
	wanted := map[network.Port][]network.PortBinding{}
	for port := range p.Exposed {
		wanted[port] = nil
		if p.All {
			wanted[port] = []network.PortBinding{{}}
		}
	}
	for port, bindings := range p.Ports {
		if len(bindings) > 0 {
			wanted[port] = bindings
		} else if _, ok := wanted[port]; !ok {
			wanted[port] = nil
		}
	}
	return wanted
}

// wishes reads what is wanted: ports that are named first, for a free one must not be one of them.
func (p *publishing) wishes(wanted map[network.Port][]network.PortBinding) ([]wish, error) {
	ports := slices.SortedFunc(maps.Keys(wanted), func(a, b network.Port) int {
		return cmp.Or(cmp.Compare(a.Proto(), b.Proto()), cmp.Compare(a.Num(), b.Num()))
	})
	var named, free []wish
	for _, port := range ports {
		for _, b := range wanted[port] {
			w := wish{port: port}
			var err error
			if w.first, w.last, err = hostRange(b.HostPort); err != nil {
				return nil, err
			}
			if p.e == nil {
				continue // a network without a way out publishes nothing
			}
			if w.hosts, err = p.hostAddresses(b.HostIP); err != nil {
				return nil, fmt.Errorf("publish port %s: %w", port, err)
			}
			if w.dynamic() {
				free = append(free, w)
			} else {
				named = append(named, w)
			}
		}
	}
	return append(named, free...), nil
}

// reserve finds and reserves the ports of all wishes, or none. What the container has already it keeps; what it has and wants no more is closed
// meanwhile, for what it wants may be the same port at another address, and is what is left of p.have.
func (p *publishing) reserve(wishes []wish) error {
	missing := slices.DeleteFunc(slices.Clone(wishes), p.keep)
	for _, r := range p.have {
		r.close()
	}
	for _, w := range missing {
		made, err := p.find(w)
		if err != nil {
			closeAll(p.made)
			for _, r := range p.have {
				_ = r.bind() // nobody has it: it was free until a moment ago
			}
			return err
		}
		p.made = append(p.made, made...)
		p.got = append(p.got, made...)
	}
	return nil
}

// keep moves what fulfils a wish from have to got.
func (p *publishing) keep(w wish) bool {
	fits := func(r *reservation, host netip.Addr) bool {
		return r.Proto == w.port.Proto() && r.To.Port() == w.port.Num() && r.Host.Addr() == host && (w.first == 0 || r.Host.Port() >= w.first && r.Host.Port() <= w.last)
	}
	for _, first := range p.have {
		if !fits(first, w.hosts[0]) {
			continue
		}
		kept := []*reservation{first}
		for _, host := range w.hosts[1:] {
			for _, r := range p.have {
				if fits(r, host) && r.Host.Port() == first.Host.Port() {
					kept = append(kept, r)
					break
				}
			}
		}
		if len(kept) < len(w.hosts) {
			continue
		}
		p.got = append(p.got, kept...)
		p.have = slices.DeleteFunc(p.have, func(r *reservation) bool { return slices.Contains(kept, r) })
		return true
	}
	return false
}

// find reserves a number that is free on all of a wish's addresses.
func (p *publishing) find(w wish) ([]*reservation, error) {
	var last error
	attempts := int(w.last-w.first) + 1
	if w.first == 0 {
		attempts = 16
	}
	for i := range attempts {
		got, err := tryReserve(w, w.first+uint16(i)*min(1, w.first), p)
		if err == nil {
			return got, nil
		}
		if last = err; !errdefs.IsConflict(err) {
			break
		}
	}
	if attempts > 1 && w.first != 0 {
		return nil, fmt.Errorf("all ports of %d-%d are taken: %w", w.first, w.last, last)
	}
	return nil, last
}

// tryReserve reserves one number on all addresses, or none. 0 is any, the same on all.
func tryReserve(w wish, number uint16, p *publishing) (out []*reservation, err error) {
	for _, host := range w.hosts {
		to := p.e.V4
		if host.Is6() {
			to = p.e.V6
		}
		if p.n.gatewayMode(host.Is6()) == modeRouted {
			if !host.IsLoopback() { // the host reaches the container anyway
				out = append(out, &reservation{Host: netip.AddrPortFrom(host, 0), Proto: w.port.Proto(), To: netip.AddrPortFrom(to, w.port.Num()), Direct: true})
			}
			continue
		}
		r := &reservation{Host: netip.AddrPortFrom(host, number), Proto: w.port.Proto(), To: netip.AddrPortFrom(to, w.port.Num())}
		if err := r.bind(); err != nil {
			closeAll(out)
			return nil, err
		}
		r.Trusted = p.n.option("bridge.trusted_host_interfaces") != "" && !host.IsLoopback()
		out = append(out, r)
		number = r.Host.Port()
	}
	return out, nil
}

// shown is a container's ports as inspect shows them.
func (p published) shown(reserved []*reservation) network.PortMap {
	out := network.PortMap{}
	for port := range p.wanted() {
		out[port] = nil
	}
	for _, r := range reserved {
		port, ok := network.PortFrom(r.To.Port(), r.Proto)
		if ok {
			b := network.PortBinding{HostIP: r.Host.Addr()}
			if !r.Direct {
				b.HostPort = strconv.Itoa(int(r.Host.Port()))
			}
			out[port] = append(out[port], b)
		}
	}
	return out
}

// hostRange reads a host port: empty or 0 for any, a number, or a range to choose from.
func hostRange(s string) (first, last uint16, err error) {
	if s == "" {
		return 0, 0, nil
	}
	r, err := network.ParsePortRange(s)
	if err != nil {
		return 0, 0, invalid("invalid host port %q: %s", s, err)
	}
	return r.Start(), r.End(), nil
}

// hostAddresses are those on which a port is published. Without an address it is what the network says, then what the settings say.
func (p *publishing) hostAddresses(asked netip.Addr) ([]netip.Addr, error) {
	asked = asked.Unmap()
	e, n := p.e, p.n
	if asked.IsValid() {
		if asked.Is6() && !e.V6.IsValid() || asked.Is4() && !e.V4.IsValid() {
			return nil, invalid("host address %s: the network %s has no addresses of that family", asked, n.Name)
		}
		if asked == netip.IPv6Loopback() {
			return nil, invalid("host address ::1: IPv6 has no way to route loopback addresses, nobody would reach the port: publish it on 127.0.0.1")
		}
		return []netip.Addr{asked}, nil
	}
	binding, err := netip.ParseAddr(n.option("bridge.host_binding_ipv4"))
	said := err == nil && !(n.predefined() && binding.IsUnspecified()) // the default network's own option is everybody's default
	if p.loopback && !said {
		if !e.V4.IsValid() {
			return nil, invalid("the engine's setting network.publish is loopback, and IPv6, which is all that the network %s has, cannot route loopback addresses: name the host's address", n.Name)
		}
		return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}, nil
	}
	var out []netip.Addr
	if e.V4.IsValid() {
		all := netip.IPv4Unspecified()
		if said {
			all = binding
		}
		out = append(out, all)
	}
	if e.V6.IsValid() {
		out = append(out, netip.IPv6Unspecified())
	}
	return out, nil
}
