package network

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/network"
)

// Allocate reserves addresses and host ports (errdefs.ErrConflict naming the process that holds a port). Nothing is plumbed yet.
func (s *Service) Allocate(ctx context.Context, r AllocateRequest) (*Allocation, error) {
	if err := s.Release(ctx, r.ContainerID); err != nil {
		return nil, err
	}
	a, err := s.allocate(r)
	if errdefs.IsConflict(err) {
		// An address that is asked for may be the container's own from just before: it is given back when its interface is gone.
		s.later.drain()
		a, err = s.allocate(r)
	}
	for try := 0; try < portTries && heldByNobody(err); try++ {
		time.Sleep(portPause)
		a, err = s.allocate(r)
	}
	return a, err
}

// A port that was given back may be held for a moment still, by a child of this process that has not come to executing its program (the kernel
// closes descriptors last; on a busy machine that takes some hundred milliseconds). No list of the kernel's shows such a socket.
const (
	portTries = 50
	portPause = 20 * time.Millisecond
)

// heldByNobody says that a port is not free, and no container and no process is seen to have it.
func heldByNobody(err error) bool {
	taken := new(portTaken)
	return errors.As(err, &taken) && taken.who == ""
}

func (s *Service) allocate(r AllocateRequest) (*Allocation, error) {
	h := &holding{BootID: s.bootID, Request: r}
	if err := s.joinAll(h); err != nil {
		return nil, err
	}
	err := reservePorts(s, h)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil && s.closed {
		err = fmt.Errorf("the engine is closing: %w", errdefs.ErrUnavailable)
	}
	if err != nil {
		h.closePorts()
		err = explainPorts(&s.state, err, h.wayOut())
		s.drop(h)
		return nil, err
	}
	s.holdings[r.ContainerID] = h
	return s.allocation(h), nil
}

// joinAll reserves the places on all networks, or none.
func (s *state) joinAll(h *holding) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.orderedNetworks(&h.Request) {
		err := a.err
		if err == nil {
			err = s.join(h, a.n, a.settings)
		}
		if err != nil {
			s.drop(h)
			return err
		}
	}
	h.chooseWayOut(s.networks)
	return nil
}

// asked is a network that a container wants to be on.
type asked struct {
	n        *lan
	settings *network.EndpointSettings
	rank     int // 0 comes first
	err      error
}

// orderedNetworks are the requested networks in the order of their interfaces: the first one, then the others by name. A priority as gateway
// chooses the way out only. The caller holds the lock.
func (s *state) orderedNetworks(r *AllocateRequest) []asked {
	var out []asked
	for name, settings := range r.Networks {
		n, err := seen(s, r.Scope, name)
		if settings == nil {
			settings = &network.EndpointSettings{}
		}
		if err != nil {
			n = &lan{definition: &definition{Network: network.Network{Name: name}}}
		}
		rank := 1
		if name == r.First {
			rank = 0
		}
		out = append(out, asked{n, settings, rank, err})
	}
	slices.SortFunc(out, func(a, b asked) int { return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(a.n.Name, b.n.Name)) })
	return out
}

// join reserves a place on a network. The caller holds the lock.
func (s *state) join(h *holding, n *lan, settings *network.EndpointSettings) (err error) {
	id := h.Request.ContainerID
	switch {
	case n.removing:
		return fmt.Errorf("network %s not found: it is being removed: %w", n.Name, errdefs.ErrNotFound)
	case n.endpoints[id] != nil:
		return fmt.Errorf("endpoint with name %s already exists in network %s: %w", h.Request.Name, n.Name, errdefs.ErrPermissionDenied)
	case n.ConfigOnly:
		return fmt.Errorf("cannot attach container %s to network %s: it is a configuration-only network: %w", h.Request.Name, n.Name, errdefs.ErrPermissionDenied)
	case (!n.plumbed() || h.exclusiveDriver(s.networks) != "") && len(h.Endpoints) > 0:
		return invalid("container %s cannot be connected to the network %s and another one at the same time", h.Request.Name, n.Name)
	}
	if n.Name == network.NetworkBridge {
		for _, l := range settings.Links {
			if target, alias := parseLink(l); !n.has(target) {
				return invalid("Cannot link to a non running container: /%s AS /%s/%s", target, h.Request.Name, alias)
			}
		}
	}
	e := &endpoint{
		ID: s.newEndpointID(), NetworkID: n.ID, Network: n.Name, Name: h.Request.Name, Hostname: h.Request.Hostname, Asked: settings.Copy(), Aliases: slices.Clone(settings.Aliases),
		ways: ways{Hidden: h.Request.Understudy},
	}
	if n.plumbed() {
		if e.Interface, err = h.interfaceOn(n, settings); err != nil {
			return err
		}
		if err := address(e, n, h.Request.Had[n.Name], h.withoutSix(e)); err != nil {
			return err
		}
		if n.Driver == driverBridge {
			e.End, e.Annex = s.names.endOf(e.ID), n.place()
			s.ends[e.End] = true
		}
	}
	n.enter(id, e)
	h.Endpoints = append(h.Endpoints, e)
	return nil
}

// withoutSix says that a setting of the kernel leaves an endpoint's interface without IPv6: the container's, or one of its own, which wins.
func (h *holding) withoutSix(e *endpoint) bool {
	settings, _ := endpointSysctls(e.Asked.DriverOpts["com.docker.network.endpoint.sysctls"], e.Interface)
	for _, set := range slices.Backward(settings) {
		if set[0] == "net/ipv6/conf/"+e.Interface+"/disable_ipv6" {
			return set[1] != "0"
		}
	}
	for _, of := range []string{e.Interface, "all", "default"} {
		if v, ok := h.Request.Sysctls["net.ipv6.conf."+of+".disable_ipv6"]; ok {
			return v != "0"
		}
	}
	return false
}

// newEndpointID is an id whose beginning no other link has: the host's end is called by it. The caller holds the lock.
func (s *state) newEndpointID() (id string) {
	for range 100 {
		if id = newID(); !s.ends[s.names.endOf(id)] {
			break
		}
	}
	return id
}

// Acceptable says whether a container could have on a network what it asks for, who else may have it notwithstanding: it is asked before a container
// that does not run is put there.
func Acceptable(s *Service, nameOrID string, settings *network.EndpointSettings) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := s.find(nameOrID)
	if err != nil || settings.IPAMConfig == nil {
		return err
	}
	return n.accepts(*settings.IPAMConfig)
}

// accepts refuses addresses that nobody could have. The caller holds the lock.
func (n *lan) accepts(want network.EndpointIPAMConfig) error {
	if n.Name == network.NetworkBridge && (want.IPv4Address.IsValid() || want.IPv6Address.IsValid()) {
		return invalid("user-specified IP address is supported on user-defined networks only, not on the network bridge")
	}
	for _, row := range []struct {
		pool *pool
		want netip.Addr
	}{{n.v4, want.IPv4Address}, {n.v6, want.IPv6Address}} {
		if !row.want.IsValid() {
			continue
		}
		if row.pool == nil {
			return invalid("network %s has no subnet of the family of %s", n.Name, row.want)
		}
		if err := row.pool.has(row.want); err != nil {
			return fmt.Errorf("network %s: %w", n.Name, err)
		}
	}
	return nil
}

// address gives an endpoint its addresses: those it asks for, else those it had where they are free, or any free ones.
func address(e *endpoint, n *lan, had Had, withoutSix bool) (err error) {
	want := network.EndpointIPAMConfig{}
	if e.Asked.IPAMConfig != nil && !e.Hidden { // who has it now keeps it until it goes
		want = *e.Asked.IPAMConfig
	}
	if err := n.accepts(want); err != nil {
		return err
	}
	for _, row := range []struct {
		pool      *pool
		want, had netip.Addr
		at        *netip.Addr
	}{{n.v4, want.IPv4Address, had.IPv4, &e.V4}, {n.v6, want.IPv6Address, had.IPv6, &e.V6}} {
		if row.at == &e.V6 && withoutSix {
			continue
		}
		if row.pool == nil {
			continue
		}
		if row.had.IsValid() && !row.want.IsValid() {
			if *row.at, err = row.pool.take(row.had); err == nil {
				continue
			}
		}
		if *row.at, err = row.pool.take(row.want); err != nil {
			n.v4.give(e.V4)
			return fmt.Errorf("network %s: %w", n.Name, err)
		}
	}
	if n.Driver == driverIpvlan { // the parent's is everybody's
		return nil
	}
	switch e.MAC = e.Asked.MacAddress; {
	case len(e.MAC) > 0 && !e.Hidden && !(n.hasMAC(e.MAC) && n.derives(e.MAC)):
	case len(had.MAC) > 0 && e.V4 == had.IPv4 && e.V6 == had.IPv6 && !n.hasMAC(had.MAC):
		e.MAC = had.MAC
	default:
		if e.MAC = macOf(e.V4, e.V6); n.hasMAC(e.MAC) { // somebody asked for it
			e.MAC = macOf(netip.Addr{}, netip.Addr{})
		}
	}
	return nil
}

// hasMAC says that an endpoint has the hardware address.
func (n *lan) hasMAC(mac network.HardwareAddr) bool {
	for _, e := range n.endpoints {
		if bytes.Equal(e.MAC, mac) {
			return true
		}
	}
	return false
}

// derives says that a hardware address is that of an IP address of the network. Who asks for one has it from what inspect said of a container
// in its place, and whoever has the IP address now may have it too.
func (n *lan) derives(mac network.HardwareAddr) bool {
	if n.v4 == nil || len(mac) != 6 {
		return false
	}
	a := netip.AddrFrom4([4]byte(mac[2:]))
	return n.v4.of(a).subnet.Contains(a) && bytes.Equal(mac, macOf(a, netip.Addr{}))
}

// checkAsked refuses what a network cannot give an endpoint.
func checkAsked(n *lan, settings *network.EndpointSettings) error {
	if n.Driver == driverIpvlan && len(settings.MacAddress) > 0 {
		return invalid("ipvlan interfaces do not support custom mac address assignment: network %s", n.Name)
	}
	if mac := settings.MacAddress; len(mac) > 0 && (len(mac) != 6 || mac[0]&1 != 0) {
		return invalid("invalid MAC address %s: an interface has six bytes, and the first one is even", mac)
	}
	if settings.IPAMConfig == nil {
		return nil
	}
	for _, a := range settings.IPAMConfig.LinkLocalIPs {
		if !a.IsLinkLocalUnicast() {
			return invalid("invalid link-local IP address: %s", a)
		}
	}
	return nil
}

// interfaceOn is the name of a container's next interface: the one that is asked for, or the next one with the network's prefix.
func (h *holding) interfaceOn(n *lan, settings *network.EndpointSettings) (string, error) {
	if err := checkAsked(n, settings); err != nil {
		return "", err
	}
	taken := map[string]bool{}
	for _, e := range h.Endpoints {
		taken[e.Interface] = true
	}
	name, asked := settings.DriverOpts["com.docker.network.endpoint.ifname"]
	if asked {
		if err := checkInterface(name); err != nil {
			return "", err
		}
		if taken[name] {
			return "", fmt.Errorf("container %s has an interface %s already: %w", h.Request.Name, name, errdefs.ErrConflict)
		}
	} else {
		prefix := cmp.Or(n.option("container_iface_prefix"), "eth")
		for i := 0; name == "" || taken[name]; i++ {
			name = prefix + strconv.Itoa(i)
		}
	}
	_, err := endpointSysctls(settings.DriverOpts["com.docker.network.endpoint.sysctls"], name)
	return name, err
}

// chooseWayOut finds the networks that packets to everywhere else take: of those that lead out, the one of the highest priority, then the
// first by name.
func (h *holding) chooseWayOut(networks map[string]*lan) {
	var best4, best6 *endpoint
	better := func(a, b *endpoint) bool {
		return b == nil || cmp.Or(cmp.Compare(b.Asked.GwPriority, a.Asked.GwPriority), cmp.Compare(a.Network, b.Network)) < 0
	}
	for _, e := range h.Endpoints {
		e.Default4, e.Default6 = false, false
		n := networks[e.NetworkID]
		if n == nil || !n.plumbed() || n.leadsNowhere() {
			continue
		}
		e.Direct4, e.Direct6 = n.gatewayMode(false) == modeRouted, n.gatewayMode(true) == modeRouted
		if e.V4.IsValid() && better(e, best4) {
			best4 = e
		}
		if e.V6.IsValid() && better(e, best6) {
			best6 = e
		}
	}
	if best4 != nil {
		best4.Default4 = true
	}
	if best6 != nil {
		best6.Default6 = true
	}
}

// drop takes back what a holding has in memory. The caller holds the lock.
func (s *state) drop(h *holding) {
	for _, e := range h.Endpoints {
		s.leave(h.Request.ContainerID, e)
	}
	h.Endpoints = nil
}

// leave takes back an endpoint's addresses. The caller holds the lock.
func (s *state) leave(containerID string, e *endpoint) {
	n := s.networks[e.NetworkID]
	if n == nil || n.endpoints[containerID] != e {
		return
	}
	n.exit(containerID, e)
	delete(s.ends, e.End)
	n.v4.give(e.V4)
	n.v6.give(e.V6)
}

// allocation is a holding in the shape in which callers see it. The caller holds the lock.
func (s *state) allocation(h *holding) *Allocation {
	a := &Allocation{Networks: s.settings(h), Ports: h.Ports, Sysctls: h.sysctls()}
	a.Hosts, a.ResolvConf = s.files(h)
	return a
}

// settings are a holding's places on networks, by name. The caller holds the lock.
func (s *state) settings(h *holding) map[string]*network.EndpointSettings {
	out := make(map[string]*network.EndpointSettings, len(h.Endpoints))
	for _, e := range h.Endpoints {
		if n := s.networks[e.NetworkID]; n != nil {
			out[n.Name] = e.settings(n, h.Request.ContainerID)
		}
	}
	return out
}

// sysctls are what Docker sets: any user may listen on any port and ping, inside. What the container asks for itself is left alone.
func (h *holding) sysctls() map[string]string {
	out := map[string]string{"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 4294967294"}
	for key := range h.Request.Sysctls {
		delete(out, strings.ReplaceAll(key, "/", "."))
	}
	return out
}

// ownSix says that the container decides itself about IPv6 on its interfaces.
func (h *holding) ownSix() bool {
	for key := range h.Request.Sysctls {
		if strings.HasSuffix(key, "disable_ipv6") {
			return true
		}
	}
	return false
}
