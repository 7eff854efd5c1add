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

// exit is where packets of one family to published ports go: a container's address on a network; nowhere where n is nil.
type exit struct {
	to netip.Addr
	n  *lan
}

// exits are those of IPv4 and of IPv6. The caller holds the lock.
func exits(s *state, h *holding) (out [2]exit) {
	for i, e := range h.exits() {
		if e == nil {
			continue
		}
		out[i] = exit{e.V4, s.networks[e.NetworkID]}
		if i == 1 {
			out[i].to = e.V6
		}
	}
	return out
}

// publishing finds the host's ports of a container. A port is published through the network that leads out, for each family its own.
type publishing struct {
	via      [2]exit
	loopback bool // a port without an address is for this machine only

	have []*reservation // what the container has already, and keeps where it wants it still
	got  []*reservation
	made []*reservation // those of got that were not there before

	claimed func(*reservation) string // the container that has a port which no socket guards, "" where none has it
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
			if p.via[0].n == nil && p.via[1].n == nil {
				continue // a network without a way out publishes nothing
			}
			if w.hosts, err = p.hostAddresses(b.HostIP); err != nil {
				return nil, fmt.Errorf("publish port %s: %w", port, err)
			}
			if len(w.hosts) == 0 {
				continue
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
	k := keeping{p: p, had: map[network.Port][]*reservation{}, kept: map[*reservation]bool{}}
	for _, r := range p.have {
		if port, ok := network.PortFrom(r.To.Port(), r.Proto); ok {
			k.had[port] = append(k.had[port], r)
		}
	}
	missing := slices.DeleteFunc(slices.Clone(wishes), k.keep)
	p.have = slices.DeleteFunc(p.have, func(r *reservation) bool { return k.kept[r] })
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

// keeping looks for wishes that are fulfilled already.
type keeping struct {
	p    *publishing
	had  map[network.Port][]*reservation // by the container's port
	kept map[*reservation]bool
}

// keep notes what fulfils a wish. Where it has a number on some of the wish's addresses it gets the same one on the others, if it can.
func (k keeping) keep(w wish) bool {
	first := -1
	for i := range w.hosts {
		if k.fits(w, w.hosts[i], 0) != nil {
			first = i
			break
		}
	}
	if first < 0 {
		return false
	}
	number := k.fits(w, w.hosts[first], 0).Host.Port()
	var kept, made []*reservation
	for _, host := range w.hosts {
		r := k.fits(w, host, number)
		if r == nil {
			var err error
			if r, err = k.p.one(w, host, number); err != nil {
				closeAll(made)
				return false
			}
			if r == nil {
				continue
			}
			made = append(made, r)
		}
		kept = append(kept, r)
	}
	for _, r := range kept {
		k.kept[r] = true
	}
	k.p.got, k.p.made = append(k.p.got, kept...), append(k.p.made, made...)
	return true
}

// fits is what the container has of a wish on one of its addresses, with a number or, 0, any.
func (k keeping) fits(w wish, host netip.Addr, number uint16) *reservation {
	for _, r := range k.had[w.port] {
		at := r.Host.Port()
		fits := r.Direct || (w.first == 0 || at >= w.first && at <= w.last) && (number == 0 || at == number)
		if fits && r.Host.Addr() == host && r.Direct == k.p.routed(host.Is6()) && !k.kept[r] {
			return r
		}
	}
	return nil
}

func (p *publishing) routed(six bool) bool {
	n := p.via[familyIndex(six)].n
	return n != nil && n.gatewayMode(six) == modeRouted
}

// trusts says that published ports are reached at containers' own addresses from some links.
func (n *lan) trusts() bool { return n.option("bridge.trusted_host_interfaces") != "" }

func familyIndex(six bool) int {
	if six {
		return 1
	}
	return 0
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
		r, err := p.one(w, host, number)
		if err != nil {
			closeAll(out)
			return nil, err
		}
		if r == nil {
			continue
		}
		out = append(out, r)
		if !r.Direct {
			number = r.Host.Port()
		}
	}
	return out, nil
}

// one reserves a number on one address; nil where nothing is to be reserved.
func (p *publishing) one(w wish, host netip.Addr, number uint16) (*reservation, error) {
	via := p.via[familyIndex(host.Is6())]
	r := &reservation{Host: netip.AddrPortFrom(host, number), Proto: w.port.Proto(), To: netip.AddrPortFrom(via.to, w.port.Num())}
	if p.routed(host.Is6()) {
		if host.IsLoopback() {
			return nil, nil // the host reaches the container anyway
		}
		r.Host, r.Direct = netip.AddrPortFrom(host, 0), true
		return r, nil
	}
	if err := r.bind(); err != nil {
		return nil, err
	}
	if r.fd == 0 {
		if who := p.claimed(r); who != "" {
			return nil, &portTaken{host: r.Host, proto: r.Proto, who: who}
		}
	}
	r.Trusted = via.n.trusts() && !host.IsLoopback()
	return r, nil
}

// shown is a container's ports as inspect shows them: those of the host first.
func (p published) shown(reserved []*reservation) network.PortMap {
	out := network.PortMap{}
	for port := range p.wanted() {
		out[port] = nil
	}
	for _, direct := range []bool{false, true} {
		for _, r := range reserved {
			port, ok := network.PortFrom(r.To.Port(), r.Proto)
			if !ok || r.Direct != direct {
				continue
			}
			b := network.PortBinding{HostIP: r.Host.Addr()}
			if !direct {
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
	four, six := p.via[0].n, p.via[1].n
	if asked.IsValid() {
		if asked.Is6() && six == nil || asked.Is4() && four == nil {
			return nil, invalid("host address %s: the network %s has no addresses of that family, and no process stands between: use a network with --ipv6, or the engine's setting network.ipv6, or an address of the other family", asked, cmp.Or(four, six).Name)
		}
		if asked == netip.IPv6Loopback() {
			return nil, invalid("host address ::1: IPv6 has no way to route loopback addresses: publish it on 127.0.0.1, and programs of this machine that ask for [::1] get there")
		}
		return []netip.Addr{asked}, nil
	}
	var binding netip.Addr
	if four != nil {
		a, err := netip.ParseAddr(four.option("bridge.host_binding_ipv4"))
		if err == nil && !(four.predefined() && a.IsUnspecified()) { // the default network's own option is everybody's default
			binding = a
		}
	}
	if p.loopback && !binding.IsValid() {
		if four == nil {
			return nil, invalid("the engine's setting network.publish is loopback, and IPv6, which is all that the network %s has, cannot route loopback addresses: name the host's address", six.Name)
		}
		return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}, nil
	}
	var out []netip.Addr
	switch {
	case binding.IsValid():
		out = append(out, binding)
	case four != nil:
		out = append(out, netip.IPv4Unspecified())
	}
	if six != nil && !six.bindsFour() {
		out = append(out, netip.IPv6Unspecified())
	}
	return out, nil
}

// bindsFour says that ports of the network are published on one address of IPv4, and so on none of IPv6.
func (d *definition) bindsFour() bool {
	a, err := netip.ParseAddr(d.option("bridge.host_binding_ipv4"))
	return err == nil && !a.IsUnspecified()
}
