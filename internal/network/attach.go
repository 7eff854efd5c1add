package network

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/network/link"
)

// plug is an endpoint on its way into a namespace.
type plug struct {
	e     *endpoint
	n     *lan
	pair  link.Pair
	stack *link.Stacked // instead of a pair
	inner link.Interface
	six   bool

	sought bool        // others on the network may have asked for its addresses in vain
	lost   func(error) // at the engine's start: is told that its host's end is not there
}

// Attach plumbs an allocated container's interfaces, routes, DNS and ports into its network namespace.
func (s *Service) Attach(ctx context.Context, containerID string, netns *os.File) error {
	s.mu.Lock()
	h := s.holdings[containerID]
	if h == nil || h.attached {
		s.mu.Unlock()
		return fmt.Errorf("attach container %s: nothing is allocated for it: %w", shortID(containerID), errdefs.ErrFailedPrecondition)
	}
	if h.exclusiveDriver(s.networks) == driverHost {
		h.attached = true
		s.mu.Unlock()
		return s.attachHost(h)
	}
	err := h.pin(netns)
	h.attached = true // what is made from here on, Release takes away
	h.Asks = s.needsResolver(h)
	plugs := s.plugs(h.Endpoints)
	s.mu.Unlock()
	if err != nil {
		return err
	}
	if err := h.write(s.o.live()); err != nil {
		return err
	}
	if err := raiseAnnexes(s, plugs); err != nil {
		return err
	}
	err = link.Inside(h.ns, s.home, func() error {
		if err := setSysctls(s.sysctls, h.sysctls()); err != nil {
			return err
		}
		if err := s.plumb(h, plugs); err != nil {
			return err
		}
		return s.startResolver(ctx, h)
	})
	if err != nil {
		return fmt.Errorf("attach container %s: %w", h.Request.Name, err)
	}
	if err := s.fire.AddPorts(rulesOf(&s.state, h)); err != nil {
		return err
	}
	if f := flowsOf(h.Reserved); len(f) > 0 {
		s.mu.Lock()
		own := h.addresses()
		s.mu.Unlock()
		s.later.add(job{run: func() error { return f.forget(func(a netip.Addr) bool { return !own(a) }) }})
	}
	s.tellSeekers(h.ns, plugs)
	for _, p := range plugs {
		s.publish(events.ActionConnect, p.n, containerID)
	}
	return nil
}

// attachHost notes a container that is on the host's own network.
func (s *Service) attachHost(h *holding) error {
	if err := h.write(s.o.live()); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range h.Endpoints {
		if n := s.networks[e.NetworkID]; n != nil {
			s.publish(events.ActionConnect, n, h.Request.ContainerID)
		}
	}
	return nil
}

// pin keeps the namespace open, whoever closes the caller's file.
func (h *holding) pin(netns *os.File) (err error) {
	if h.Namespace, err = namespaceOf(netns); err != nil {
		return err
	}
	fd, err := unix.FcntlInt(netns.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("keep a network namespace open: %w", err)
	}
	h.ns = os.NewFile(uintptr(fd), netns.Name())
	return nil
}

// plugs describes what has to be made for endpoints. The caller holds the lock.
func (s *state) plugs(endpoints []*endpoint) []plug {
	var out []plug
	// Where the kernel shows bridged packets to the firewall, those for a container's own published port turn round within the bridge.
	hairpin := readSysctl("net/bridge/bridge-nf-call-iptables") == "1"
	for _, e := range endpoints {
		n := s.networks[e.NetworkID]
		if n == nil || !n.plumbed() {
			continue
		}
		p := plug{e: e, n: n, six: e.V6.IsValid(), inner: link.Interface{Name: e.Interface}, sought: n.sought(e)}
		if n.stacked() {
			p.stack = n.stack(e)
		}
		p.pair = link.Pair{Host: e.End, Inside: e.Interface, Bridge: n.index, MAC: net.HardwareAddr(e.MAC), MTU: n.mtu()}
		p.pair.Isolated, p.pair.Hairpin = !n.flag("bridge.enable_icc", true), hairpin
		for _, row := range []struct {
			pool *pool
			a    netip.Addr
			way  bool
		}{{n.v4, e.V4, e.Default4}, {n.v6, e.V6, e.Default6}} {
			if row.pool == nil || !row.a.IsValid() {
				continue
			}
			p.inner.Addresses = append(p.inner.Addresses, row.pool.prefix(row.a))
			if g := row.pool.of(row.a).gateway; row.way && n.routed() {
				p.inner.Gateways = append(p.inner.Gateways, zeroOf(row.a))
			} else if row.way && g.IsValid() {
				p.inner.Gateways = append(p.inner.Gateways, g)
			}
		}
		p.inner.Addresses = append(p.inner.Addresses, linkLocal(e)...)
		out = append(out, p)
	}
	return out
}

// sought says that others on the network may be asking for an endpoint's addresses: somebody had them lately, or they are written down somewhere.
// The caller holds the lock.
func (n *lan) sought(e *endpoint) bool {
	if len(n.endpoints) < 2 {
		return false
	}
	asked := e.Asked != nil && e.Asked.IPAMConfig != nil && (e.Asked.IPAMConfig.IPv4Address.IsValid() || e.Asked.IPAMConfig.IPv6Address.IsValid())
	return asked || n.v4.hadLately(e.V4) || n.v6.hadLately(e.V6)
}

func zeroOf(a netip.Addr) netip.Addr {
	if a.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// linkLocal are the addresses of that kind that an endpoint asks for.
func linkLocal(e *endpoint) (out []netip.Prefix) {
	if e.Asked == nil || e.Asked.IPAMConfig == nil {
		return nil
	}
	for _, a := range e.Asked.IPAMConfig.LinkLocalIPs {
		bits := 16
		if a.Is6() {
			bits = 64
		}
		out = append(out, netip.PrefixFrom(a, bits))
	}
	return out
}

// waysOut are the interfaces of a holding with their default routes.
func (s *state) waysOut(h *holding) []link.Interface {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []link.Interface
	for _, p := range s.plugs(h.Endpoints) {
		out = append(out, p.inner)
	}
	return out
}
