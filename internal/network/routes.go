package network

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"github.com/moby/moby/api/types/network"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/network/link"
)

// routes watches the host's routes: a VPN that is switched on may bring one to addresses that a network has. A network that nobody is on, and
// whose addresses nobody chose, gets others; of any other the engine says so.
type routes struct {
	s    *Service
	end  chan struct{}
	wg   sync.WaitGroup
	told map[string]bool // what was said already
}

func watchRoutes(s *Service) (*routes, error) {
	r := &routes{s: s, end: make(chan struct{}), told: map[string]bool{}}
	updates := make(chan netlink.RouteUpdate, 64)
	err := netlink.RouteSubscribeWithOptions(updates, r.end, netlink.RouteSubscribeOptions{ErrorCallback: func(err error) {
		select {
		case <-r.end:
		default:
			s.log(fmt.Errorf("new routes of the host are not noticed any more: %w", err))
		}
	}, ReceiveBufferSize: 1 << 20})
	if err != nil {
		return nil, fmt.Errorf("watch the host's routes: %w", err)
	}
	r.wg.Go(func() {
		for u := range updates {
			if u.Type == unix.RTM_NEWROUTE && u.Table == unix.RT_TABLE_MAIN {
				r.look(u.Route)
			}
		}
	})
	return r, nil
}

func (r *routes) close() {
	close(r.end)
	r.wg.Wait()
}

// look finds networks that a new route is about, too.
func (r *routes) look(route netlink.Route) {
	to, ok := routeOf(route)
	if !ok {
		return
	}
	about := clashing(&r.s.state, to)
	if len(about) == 0 {
		return
	}
	name := "another link"
	if l, err := netlink.LinkByIndex(route.LinkIndex); err == nil {
		name = l.Attrs().Name
	}
	if slices.ContainsFunc(about, func(n *lan) bool { return n.Bridge == name }) {
		return // its own
	}
	for _, n := range about {
		if err := r.settle(n, to, name); err != nil {
			r.s.log(fmt.Errorf("network %s: %w", n.Name, err))
		}
	}
}

// clashing are the networks with addresses of a route.
func clashing(s *state, to netip.Prefix) (out []*lan) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.networks {
		if n.Driver != driverBridge || !n.built || n.removing {
			continue
		}
		for _, c := range n.IPAM.Config {
			if c.Subnet.Overlaps(to) {
				out = append(out, n)
				break
			}
		}
	}
	return out
}

func (r *routes) settle(n *lan, to netip.Prefix, through string) error {
	moved, err := move(r.s, n)
	if err != nil || moved {
		return err
	}
	key := n.ID + to.String()
	if r.told[key] {
		return nil
	}
	r.told[key] = true
	return fmt.Errorf("the host has a route to %s through %s now, and the network has addresses there: one of the two is not reached; remove the network when nobody is on it, or give it another --subnet, or name addresses for networks in the setting network.pools", to, through)
}

// move gives a network other addresses, where nobody is on it and nobody chose those that it has. The bridge stays, and so do its rules.
func move(s *Service, n *lan) (moved bool, err error) {
	s.mu.Lock()
	if len(n.endpoints) > 0 || !n.yields() || n.v4 == nil || n.removing {
		s.mu.Unlock()
		return false, nil
	}
	old := n.v4.prefix(n.v4.gateway)
	subnet, err := s.freeSubnet(false, 0)
	if err == nil {
		configs := slices.DeleteFunc(slices.Clone(n.IPAM.Config), func(c network.IPAMConfig) bool { return c.Subnet.Addr().Is4() })
		n.IPAM.Config = append([]network.IPAMConfig{{Subnet: subnet, Gateway: subnet.Addr().Next()}}, configs...)
		n.v4, n.v6, err = poolsOf(n.definition, nil)
	}
	s.mu.Unlock()
	if err != nil {
		return false, fmt.Errorf("choose other addresses for it: %w", err)
	}
	s.log(fmt.Errorf("the network %s has %s now: the host uses %s", n.Name, subnet, old.Masked()))
	if index, err := s.host.Index(n.Bridge); err == nil {
		if err := link.RemoveAddress(s.host, index, n.Bridge, old); err != nil {
			return true, err
		}
	} else if !errors.Is(err, unix.ENODEV) {
		return true, err
	}
	if err := s.raise(n, s.names.table); err != nil {
		return true, err
	}
	return true, errors.Join(s.fire.SetBridge(n.rules()), n.write(s.o.definitions()))
}

// yields says that the network's IPv4 addresses were nobody's wish.
func (d *definition) yields() bool { return d.Chosen || d.Name == network.NetworkBridge && !d.Fixed }
