package network

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/cgroup"
	"wherry.dev/wherry/internal/network/firewall"
	"wherry.dev/wherry/internal/network/link"
	"wherry.dev/wherry/internal/network/localhost"
)

// kernel is what speaks to the kernel.
type kernel struct {
	home  *os.File   // the engine's network namespace
	host  *link.Conn // to its links
	fire  *firewall.Table
	later *queue
	local *localhost.Redirect // nil where the kernel has none

	sysctls *link.Sysctls // of containers' namespaces
}

// openKernel opens all of it. After an error close closes what is open.
func openKernel(table string, log func(error)) (k kernel, err error) {
	k.sysctls = &link.Sysctls{}
	if k.home, err = link.Home(); err != nil {
		return k, err
	}
	if k.host, err = link.Dial(); err != nil {
		return k, err
	}
	if k.fire, err = firewall.Open(table); err != nil {
		return k, err
	}
	slow, err := link.Dial() // of its own: deleting takes long, and nobody else is to wait for it
	if err != nil {
		return k, err
	}
	k.later = newQueue(slow, log)
	return k, nil
}

// redirect has programs of the host reach ports at [::1], where the kernel can do that.
func (k *kernel) redirect(note string) error {
	root := cgroup.UnifiedRoot()
	if root == "" {
		return nil
	}
	var err error
	k.local, err = localhost.Open(root, note)
	k.fire.Follow(k.local)
	if err != nil {
		return fmt.Errorf("programs of this host reach published ports at 127.0.0.1, not at [::1]: %w", err)
	}
	return nil
}

// close lets the queue finish and closes everything.
func (k *kernel) close() error {
	var errs []error
	if k.sysctls != nil {
		errs = append(errs, k.sysctls.Close())
	}
	if k.later != nil {
		k.later.close()
	}
	errs = append(errs, k.local.Close())
	if k.fire != nil {
		errs = append(errs, k.fire.Close())
	}
	if k.host != nil {
		errs = append(errs, k.host.Close())
	}
	if k.home != nil {
		errs = append(errs, k.home.Close())
	}
	return errors.Join(errs...)
}

// plumb makes pairs of interfaces and configures the inner ends. It runs on a thread in the namespace; the host's ends are made through a
// socket that was opened outside.
func (k *kernel) plumb(h *holding, plugs []plug) error {
	inside, err := link.Dial()
	if err != nil {
		return err
	}
	defer inside.Close()
	var interfaces []link.Interface
	for _, p := range plugs {
		p.pair.Namespace = h.ns
		own := h.ownSix()
		if !own {
			if err := k.setSix(p.six); err != nil {
				return err
			}
		}
		if p.six || own {
			if err := k.setRouters(p.stack != nil); err != nil {
				return err
			}
		}
		if err := k.addInterface(h, p); err != nil {
			return err
		}
		settings, err := endpointSysctls(p.e.Asked.DriverOpts["com.docker.network.endpoint.sysctls"], p.e.Interface)
		if err != nil {
			return err
		}
		for _, set := range settings {
			if err := k.sysctls.Set(set[0], set[1]); err != nil {
				return fmt.Errorf("network %s: com.docker.network.endpoint.sysctls: %w: %w", p.n.Name, err, errdefs.ErrInvalidArgument)
			}
		}
		interfaces = append(interfaces, p.inner)
	}
	if err := link.Configure(inside, interfaces); err != nil {
		return err
	}
	if err := k.noteNeighbors(plugs); err != nil {
		return err
	}
	return announce(inside, plugs)
}

// noteNeighbors has the host send at once to addresses that it has asked for in vain: those of containers that have just ended.
func (k *kernel) noteNeighbors(plugs []plug) error {
	for _, p := range plugs {
		if p.stack != nil || len(p.e.MAC) == 0 {
			continue
		}
		addresses := slices.DeleteFunc([]netip.Addr{p.e.V4, p.e.V6}, func(a netip.Addr) bool { return !a.IsValid() })
		if err := link.Neighbor(k.host, p.n.index, net.HardwareAddr(p.e.MAC), addresses...); err != nil {
			return fmt.Errorf("network %s: %w", p.n.Name, err)
		}
	}
	return nil
}

// announce tells neighbours of addresses that another interface may have had under another hardware address. The usual one follows from the IPv4
// address, so that neighbours know it already.
func announce(inside *link.Conn, plugs []plug) error {
	for _, p := range plugs {
		if err := p.announce(inside, func(a netip.Addr) bool { return !p.known(a) }); err != nil {
			return err
		}
	}
	return nil
}

// known says that an address is always at the same hardware address.
func (p plug) known(a netip.Addr) bool {
	return bytes.Equal(p.e.MAC, macOf(p.e.V4, p.e.V6)) && (a.Is4() || !p.e.V4.IsValid())
}

func (p plug) announce(inside *link.Conn, which func(netip.Addr) bool) error {
	e := p.e
	if len(e.MAC) == 0 || p.n.option("advertise_addr_nmsgs") == "0" {
		return nil
	}
	for _, a := range []netip.Addr{e.V4, e.V6} {
		if !a.IsValid() || !which(a) {
			continue
		}
		index, err := inside.Index(e.Interface)
		if err == nil {
			err = link.Announce(index, a, net.HardwareAddr(e.MAC))
		}
		if err != nil && !errors.Is(err, unix.ENETDOWN) && !errors.Is(err, unix.ENETUNREACH) && !errors.Is(err, unix.EADDRNOTAVAIL) { // a parent that is down
			return fmt.Errorf("network %s: %w", p.n.Name, err)
		}
	}
	return nil
}

// tellSeekers announces, behind the start, addresses for which others on the network may be asking in vain: a neighbour that asks hears of it up to a
// second later, or fails, where it has asked for the third time.
func (k *kernel) tellSeekers(ns *os.File, plugs []plug) {
	plugs = slices.DeleteFunc(slices.Clone(plugs), func(p plug) bool { return !p.sought })
	if len(plugs) == 0 {
		return
	}
	k.later.add(job{run: func() error {
		err := link.Inside(ns, k.home, func() error {
			inside, err := link.Dial()
			if err != nil {
				return err
			}
			defer inside.Close()
			var errs []error
			for _, p := range plugs {
				errs = append(errs, p.announce(inside, p.known))
			}
			return errors.Join(errs...)
		})
		if errors.Is(err, unix.ENODEV) { // it has left the network meanwhile
			return nil
		}
		return err
	}})
}

// addInterface makes a plug's interface.
func (k *kernel) addInterface(h *holding, p plug) error {
	if p.stack != nil {
		parent, err := k.host.Index(p.n.Bridge) // it may be another one than when the engine started
		if err != nil {
			return fmt.Errorf("network %s: the parent interface: %w", p.n.Name, err)
		}
		k.later.flush() // the kernel refuses what is in the way of an interface that is still on its way out
		p.stack.Namespace, p.stack.Parent = h.ns, parent
		return explainStack(p.n, p.stack.Add(k.host))
	}
	err := p.pair.Add(k.host)
	if errors.Is(err, unix.EXFULL) {
		return fmt.Errorf("network %s: its bridge has 1024 ports and no more: use another network: %w", p.n.Name, errdefs.ErrResourceExhausted)
	}
	return err
}

// setSix decides whether the next interface of the calling thread's namespace has IPv6. Set before the interface is made it spares the
// kernel an address, and the neighbours its announcement.
func (k *kernel) setSix(on bool) error {
	value := "1"
	if on {
		value = "0"
		if err := k.sysctls.Set("net/ipv6/conf/default/accept_dad", "0"); err != nil {
			return err
		}
	}
	err := k.sysctls.Set("net/ipv6/conf/default/disable_ipv6", value)
	if errors.Is(err, unix.ENOENT) && !on { // a kernel without IPv6
		return nil
	}
	return err
}

// setRouters decides whether the next interface of the calling thread's namespace listens to routers that announce themselves. On a bridge of the
// engine's only other containers do; a network of the host's has its own.
func (k *kernel) setRouters(listen bool) error {
	value := "0"
	if listen {
		value = "1"
	}
	err := k.sysctls.Set("net/ipv6/conf/default/accept_ra", value)
	if errors.Is(err, unix.ENOENT) { // a kernel without IPv6
		return nil
	}
	return err
}

// reroute sets the default routes of a running container.
func (k *kernel) reroute(ns *os.File, ways []link.Interface) error {
	if ns == nil {
		return nil
	}
	return link.Inside(ns, k.home, func() error {
		c, err := link.Dial()
		if err != nil {
			return err
		}
		defer c.Close()
		for _, w := range ways {
			for _, g := range w.Gateways {
				if err := link.SetDefault(c, w.Name, g); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// replug puts live pairs on their bridges again, which may be new ones, and deletes links of this engine's that belong
// to nobody: it was killed in the middle.
func (k *kernel) replug(plugs []plug, names names, owned map[string]bool) error {
	var errs []error
	for _, p := range plugs {
		if p.stack != nil {
			continue
		}
		owned[p.pair.Host] = true
		switch err := p.pair.Replug(k.host); {
		case err == nil:
		case errors.Is(err, unix.ENODEV): // its container has ended while no engine ran, or had not begun: Retain knows
			p.lost(fmt.Errorf("container %s has lost an interface, which only its restart brings back: %w", p.e.Name, err))
		default:
			errs = append(errs, fmt.Errorf("mend the interface of container %s: %w", p.e.Name, err))
		}
	}
	links, err := netlink.LinkList()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		errs = append(errs, fmt.Errorf("list the host's links: %w", err))
	}
	for _, l := range links {
		if name := l.Attrs().Name; !owned[name] && (names.isEnd(l) || names.isAnnexes(l) || l.Attrs().Alias == names.table) {
			k.later.add(job{end: name})
		}
	}
	return errors.Join(errs...)
}
