package network

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/network/firewall"
	"wherry.dev/wherry/internal/network/link"
)

// mend makes links and rules what definitions and live endpoints say. It runs once, before anybody else knows the service.
func (s *Service) mend(ctx context.Context) error {
	for _, n := range s.networks {
		if !n.plumbed() {
			continue
		}
		if n.Driver == driverBridge && n.yields() {
			if err := s.yield(n); err != nil {
				return err
			}
		}
		if err := s.raise(n, s.names.table); err != nil {
			if n.predefined() {
				return err
			}
			s.log(fmt.Errorf("network %s has no link: %w", n.Name, err))
			continue
		}
		if n.stacked() {
			s.log(avoidHost(&s.state, n))
			continue
		}
		if err := s.fire.SetBridge(n.rules()); err != nil {
			return err
		}
	}
	var plugs []plug
	for _, h := range s.holdings {
		for _, p := range s.plugs(h.Endpoints) {
			p.lost = func(err error) { h.unplugged = err }
			plugs = append(plugs, p)
		}
	}
	s.log(raiseAnnexes(s, plugs))
	s.log(s.replug(plugs, s.names, s.ownLinks()))
	for _, h := range s.holdings {
		if err := s.fire.AddPorts(rulesOf(&s.state, h)); err != nil {
			return err
		}
	}
	if err := s.fire.Swap(); err != nil {
		return err
	}
	if !s.fire.ChecksSources() {
		s.log(errors.New("this kernel does not drop what containers send under addresses of others (Linux 5.19 does): --cap-drop NET_RAW takes from them what they do it with"))
	}
	obstacles, err := s.fire.Obstacles()
	s.log(err)
	for _, chain := range obstacles {
		s.log(fmt.Errorf("the host's firewall drops forwarded packets (nft chain %s): containers on bridges have no way out and published ports are not reached; to let them: nft insert rule %s iifname %q accept, and the same with oifname, for each bridge", chain, chain, s.names.bridge))
	}
	return nil
}

// yield gives a network other addresses where the host uses its own for something else by now. Nobody chose them, and containers that run
// keep theirs.
func (s *Service) yield(n *lan) error {
	if len(n.endpoints) > 0 || n.v4 == nil {
		return nil
	}
	own, err := s.host.Index(n.Bridge)
	if err != nil && !errors.Is(err, unix.ENODEV) {
		return err
	}
	routes, err := hostRoutes()
	if err != nil {
		return err
	}
	clash := slices.ContainsFunc(routes, func(r hostRoute) bool { return r.link != own && r.to.Overlaps(n.v4.subnet) })
	if !clash {
		return nil
	}
	_, err = move(s, n)
	return err
}

// raise makes a network's link, or mends it; the alias says whose it is.
func (k *kernel) raise(n *lan, alias string) error {
	if n.stacked() {
		return k.raiseParent(n, alias)
	}
	b := link.Bridge{Name: n.Bridge, MTU: n.mtu()}
	if !n.Adopted {
		b.Alias = alias
	}
	for p := range n.pools() {
		if n.hostIsOn(p.subnet.Addr().Is6()) {
			b.Addresses = append(b.Addresses, p.prefix(p.gateway))
		}
	}
	b.MAC = n.mac()
	index, err := b.Ensure(k.host)
	if err != nil {
		return fmt.Errorf("network %s: %w", n.Name, err)
	}
	n.index = index
	if err := n.answerForLinked(); err != nil {
		return fmt.Errorf("network %s: %w", n.Name, err)
	}
	if n.v6 != nil {
		return forwardSix()
	}
	return nil
}

// mac is the bridge's hardware address: the same each time that the bridge is looked after.
func (n *lan) mac() net.HardwareAddr {
	six := netip.Addr{}
	if n.v6 != nil {
		six = n.v6.gateway
	}
	if n.gateway().IsValid() || six.IsValid() {
		return net.HardwareAddr(macOf(n.gateway(), six))
	}
	id, _ := hex.DecodeString(n.ID[:8])
	return append(net.HardwareAddr{0x02, 0x42}, id...)
}

// rules are what the firewall knows of a network.
func (n *lan) rules() firewall.Bridge {
	b := firewall.Bridge{Name: n.Bridge, Internal: n.Internal, Masquerade: n.flag("bridge.enable_ip_masquerade", true), Foreign: n.Adopted, Parted: !n.flag("bridge.enable_icc", true)}
	for p := range n.pools() {
		b.Subnets = append(b.Subnets, p.subnet)
	}
	for i := range b.Families {
		mode := n.gatewayMode(i == 1)
		b.Families[i] = firewall.Family{Routed: mode == modeRouted, Open: mode == modeOpen, Source: n.source(i == 1)}
	}
	if links := n.option("bridge.trusted_host_interfaces"); links != "" {
		b.Trusted = strings.Split(links, ":")
	}
	return b
}
