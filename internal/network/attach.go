package network

import (
	"context"
	"errors"
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
	e        *endpoint
	n        *lan
	pair     link.Pair
	inner    link.Interface
	six      bool
	isolated bool
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
	plugs := s.plugs(h.Endpoints)
	s.mu.Unlock()
	if err != nil {
		return err
	}
	if err := h.write(s.liveDir()); err != nil {
		return err
	}
	err = link.Inside(h.ns, s.home, func() error {
		if err := setSysctls(h.sysctls()); err != nil {
			return err
		}
		if err := s.plumb(h.ns, plugs); err != nil {
			return err
		}
		return s.startResolver(ctx, h)
	})
	if err != nil {
		return fmt.Errorf("attach container %s: %w", h.Request.Name, err)
	}
	if err := s.fire.AddPorts(firewallPorts(h.Reserved)); err != nil {
		return err
	}
	for _, p := range plugs {
		s.publish(events.ActionConnect, p.n, containerID)
	}
	return nil
}

// attachHost notes a container that is on the host's own network.
func (s *Service) attachHost(h *holding) error {
	if err := h.write(s.liveDir()); err != nil {
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
func (s *Service) plugs(endpoints []*endpoint) []plug {
	var out []plug
	// Where the kernel shows bridged packets to the firewall, those for a container's own published port turn round within the bridge.
	hairpin := readSysctl("net/bridge/bridge-nf-call-iptables") == "1"
	for _, e := range endpoints {
		n := s.networks[e.NetworkID]
		if n == nil || n.Driver != driverBridge {
			continue
		}
		p := plug{e: e, n: n, six: e.V6.IsValid(), inner: link.Interface{Name: e.Interface}}
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
			if row.way {
				p.inner.Gateways = append(p.inner.Gateways, row.pool.gateway)
			}
		}
		out = append(out, p)
	}
	return out
}

// plumb makes pairs of interfaces and configures the inner ends. It runs on a thread in the namespace; the host's ends are made through a
// socket that was opened outside.
func (s *Service) plumb(ns *os.File, plugs []plug) error {
	inside, err := link.Dial()
	if err != nil {
		return err
	}
	defer inside.Close()
	var interfaces []link.Interface
	for _, p := range plugs {
		p.pair.Namespace = ns
		if err := setSix(p.six); err != nil {
			return err
		}
		if err := p.pair.Add(s.host); err != nil {
			if errors.Is(err, unix.EXFULL) {
				return fmt.Errorf("network %s: its bridge has 1024 ports and no more: use another network: %w", p.n.Name, errdefs.ErrResourceExhausted)
			}
			return err
		}
		interfaces = append(interfaces, p.inner)
	}
	return link.Configure(inside, interfaces)
}

// setSix decides whether the next interface of the calling thread's namespace has IPv6. Set before the interface is made it spares the
// kernel an address, and the neighbours its announcement.
func setSix(on bool) error {
	value := "1"
	if on {
		value = "0"
	}
	err := link.SetSysctl("net/ipv6/conf/default/disable_ipv6", value)
	if errors.Is(err, unix.ENOENT) && !on { // a kernel without IPv6
		return nil
	}
	return err
}
