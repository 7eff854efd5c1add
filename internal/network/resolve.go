package network

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/moby/moby/api/types/network"

	"wherry.dev/wherry/internal/network/link"
)

// enter puts an endpoint on the network, exit takes it off. The caller holds the lock.
func (n *lan) enter(containerID string, e *endpoint) {
	n.endpoints[containerID] = e
	n.learnNames(containerID, e)
}

func (n *lan) exit(containerID string, e *endpoint) {
	delete(n.endpoints, containerID)
	n.forgetNames(containerID, e)
}

// learnNames lets others on the network find a container. On the default bridge nobody finds anybody, as with Docker.
func (n *lan) learnNames(containerID string, e *endpoint) {
	if !n.plumbed() || n.Name == network.NetworkBridge || e.Hidden {
		return
	}
	for _, name := range e.dnsNames(containerID) {
		name = strings.ToLower(name)
		n.named[name] = append(n.named[name], e)
	}
}

func (n *lan) forgetNames(containerID string, e *endpoint) {
	for _, name := range e.dnsNames(containerID) {
		name = strings.ToLower(name)
		left := slices.DeleteFunc(n.named[name], func(other *endpoint) bool { return other == e })
		if len(left) == 0 {
			delete(n.named, name)
		} else {
			n.named[name] = left
		}
	}
}

// needsResolver says whether a container asks the engine for names: on user-defined networks, and where the host's resolvers are at its
// loopback addresses, which the container cannot reach. The caller holds the lock.
func (s *state) needsResolver(h *holding) bool {
	bridged := false
	for _, e := range h.Endpoints {
		n := s.networks[e.NetworkID]
		if n == nil || !n.plumbed() {
			continue
		}
		if n.Name != network.NetworkBridge {
			return true
		}
		bridged = true
	}
	if !bridged || len(h.Request.DNS) > 0 {
		return false
	}
	r := s.conf.behind()
	return len(r.servers) > 0 && len(r.reachable()) == 0
}

// startResolver opens a container's resolver where it asks for names and has none. It runs on a thread in the container's namespace.
func (s *Service) startResolver(ctx context.Context, h *holding, kept ...*os.File) error {
	if !h.Asks || s.resolvers.Serves(h.Request.ContainerID) {
		return nil
	}
	return s.resolvers.Start(ctx, h.Request.ContainerID, alsoAt(s, h), kept...)
}

// alsoAt is where the resolver of a container that may hold others answers besides 127.0.0.11, which those cannot reach: at the host's address. kind and k3d
// write it into /etc/resolv.conf of their nodes and change the rules with which Docker leads 127.0.0.11 to its resolver.
func alsoAt(s *Service, h *holding) netip.Addr {
	if !h.Request.Privileged {
		return netip.Addr{}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return hostAddress(&s.state, h)
}

// keptLimit is how long the engine's start waits for those who have kept sockets; without them a resolver has new ones.
const keptLimit = 500 * time.Millisecond

// resumeResolvers opens the resolvers of containers that an earlier life of the engine attached.
func (s *Service) resumeResolvers(ctx context.Context) {
	limited, cancel := context.WithTimeout(ctx, keptLimit)
	defer cancel()
	turns := make(chan struct{}, 8)
	var wg sync.WaitGroup
	for id, h := range s.holdings {
		h.Asks = h.Asks || s.needsResolver(h)
		if h.ns == nil || !h.Asks {
			continue
		}
		turns <- struct{}{}
		wg.Go(func() {
			defer func() { <-turns }()
			var kept []*os.File
			if s.o.Kept != nil {
				kept, _ = s.o.Kept(limited, id) // a shim of a build that keeps none, or one that is stopped
			}
			if err := link.Inside(h.ns, s.home, func() error { return s.startResolver(ctx, h, kept...) }); err != nil {
				s.log(fmt.Errorf("names for container %s: %w", h.Request.Name, err))
			}
		})
	}
	wg.Wait()
}

// view is what the resolvers ask.
type view struct{ s *Service }

// Lookup finds a container by name, alias or short id, on the networks of the one that asks; also as "name.network".
func (v view) Lookup(containerID, name string) ([]netip.Addr, bool) {
	v.s.mu.Lock()
	defer v.s.mu.Unlock()
	h := v.s.holdings[containerID]
	if h == nil {
		return nil, false
	}
	var out []netip.Addr
	known := false
	for _, e := range h.Endpoints {
		n := v.s.networks[e.NetworkID]
		if n == nil {
			continue
		}
		bare := name
		if short, ok := strings.CutSuffix(name, "."+strings.ToLower(n.Name)); ok && len(n.named[name]) == 0 {
			bare = short
		}
		for _, found := range slices.Concat(n.named[bare], n.byLink(e, bare)) {
			known = true
			for _, a := range []netip.Addr{found.V4, found.V6} {
				if a.IsValid() && !slices.Contains(out, a) {
					out = append(out, a)
				}
			}
		}
	}
	if a := hostAddress(&v.s.state, h); !known && isHostName(name) && a.IsValid() {
		return []netip.Addr{a}, true
	}
	return out, known
}

// byLink finds who an endpoint is linked to under an alias that only it uses.
func (n *lan) byLink(e *endpoint, name string) []*endpoint {
	if n.Name == network.NetworkBridge {
		return nil
	}
	for _, l := range e.Asked.Links {
		if target, alias := parseLink(l); strings.EqualFold(alias, name) {
			if _, other := n.linked(target); other != nil {
				return []*endpoint{other}
			}
		}
	}
	return nil
}

// Reverse finds who has an address on the networks of the one that asks.
func (v view) Reverse(containerID string, a netip.Addr) (name string, own bool) {
	v.s.mu.Lock()
	defer v.s.mu.Unlock()
	h := v.s.holdings[containerID]
	if h == nil {
		return "", false
	}
	for _, e := range h.Endpoints {
		n := v.s.networks[e.NetworkID]
		if n == nil || n.Name == network.NetworkBridge || !n.covers(a) {
			continue
		}
		for id, other := range n.endpoints {
			if other.V4 == a || other.V6 == a {
				return other.dnsNames(id)[0] + "." + n.Name, true
			}
		}
		return "", !n.stacked() || n.leadsNowhere() // behind a parent there are others, whom servers there know
	}
	return "", false
}

func (n *lan) covers(a netip.Addr) bool {
	for p := range n.pools() {
		if p.subnet.Contains(a) {
			return true
		}
	}
	return false
}

// Upstream are the servers that a container names, or the host's. A container without a way out asks nobody but servers on its networks:
// names, too, are a way out.
func (v view) Upstream(containerID string) []netip.AddrPort {
	v.s.mu.Lock()
	defer v.s.mu.Unlock()
	h := v.s.holdings[containerID]
	if h == nil {
		return nil
	}
	servers := addresses(h.Request.DNS)
	if len(servers) == 0 {
		servers = v.s.conf.read().servers
	}
	var out []netip.AddrPort
	for _, a := range servers {
		near := slices.ContainsFunc(h.Endpoints, func(e *endpoint) bool {
			n := v.s.networks[e.NetworkID]
			return n != nil && n.covers(a)
		})
		if near || h.ways() != [2]*endpoint{} {
			out = append(out, netip.AddrPortFrom(a, 53))
		}
	}
	return out
}

// Dial asks servers from the host. A server that a container names itself, and that the host does not reach, is asked from inside: it is behind
// a link that containers have and the host has not.
func (v view) Dial(ctx context.Context, containerID, proto string, server netip.AddrPort) (conn net.Conn, err error) {
	var d net.Dialer
	v.s.mu.Lock()
	ns := v.from(containerID, server.Addr())
	v.s.mu.Unlock()
	if ns == nil {
		return d.DialContext(ctx, proto, server.String())
	}
	err = link.Inside(ns, v.s.home, func() (err error) {
		conn, err = d.DialContext(ctx, proto, server.String())
		return err
	})
	return conn, err
}

// from is the namespace from which a server is asked, nil for the host's. The caller holds the lock.
func (v view) from(containerID string, a netip.Addr) *os.File {
	h := v.s.holdings[containerID]
	if h == nil || len(h.Request.DNS) == 0 {
		return nil
	}
	via := h.ways()[familyIndex(a.Is6())]
	for _, e := range h.Endpoints {
		if n := v.s.networks[e.NetworkID]; n != nil && n.covers(a) {
			via = e
		}
	}
	if via == nil {
		return nil
	}
	if n := v.s.networks[via.NetworkID]; n == nil || n.hostIsOn(a.Is6()) {
		return nil
	}
	return h.ns
}
