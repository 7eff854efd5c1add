package network

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/network"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/network/link"
	"wherry.dev/wherry/internal/settings"
)

// Defaults are what holds for networks that do not say otherwise.
type Defaults struct {
	Options []string // of bridge networks, "name=value" each
	IPv6    bool     // they have IPv6 beside IPv4
	Bridge  []string // address and size of the default network, 10.5.0.1/24, at most one of each family; none: the engine chooses
	Range   []string // parts of its subnets from which containers get addresses, at most one of each family; none: all
}

// read takes apart what the settings have checked, but for the options' values.
func (o Defaults) read() (d defaults, err error) {
	d.options = map[string]string{}
	for _, text := range o.Options {
		name, value, _ := strings.Cut(text, "=")
		d.options[name] = value
	}
	if o.IPv6 {
		d.options[enableSix] = "true"
	}
	if err := d.check(); err != nil {
		return d, fmt.Errorf("setting network.options: %w", err)
	}
	for _, text := range o.Bridge {
		p, err := settings.ParseBridge(text)
		if err != nil {
			return d, invalid("setting network.bridge: %v", err)
		}
		d.bridge[familyIndex(p.Addr().Is6())] = p
	}
	for _, text := range o.Range {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return d, invalid("setting network.range: %v", err)
		}
		d.ranges[familyIndex(p.Addr().Is6())] = p.Masked()
	}
	return d, nil
}

// enableSix is the option of networks that stands for --ipv6.
const enableSix = "com.docker.network.enable_ipv6"

// defaults are Defaults, read.
type defaults struct {
	options map[string]string
	bridge  [2]netip.Prefix // address and size of IPv4 and IPv6
	ranges  [2]netip.Prefix // part of each from which containers get addresses; not valid: all
}

// check refuses options that no network could have.
func (d defaults) check() error {
	all := &definition{Network: network.Network{Name: "of the settings", Options: maps.Clone(d.options), EnableIPv4: true}, Bridge: "x"}
	if err := all.readFamilies(network.CreateRequest{Name: all.Name}); err != nil {
		return err
	}
	return all.checkOptions()
}

// bridged says that a network that is asked for is a bridge with options of its own.
func bridged(r network.CreateRequest) bool {
	return !r.ConfigOnly && configOf(r) == "" && (r.Driver == "" || r.Driver == "default" || r.Driver == driverBridge)
}

// addTo gives a request for a bridge network the options that it does not name.
func (d defaults) addTo(r *network.CreateRequest) {
	out := maps.Clone(d.options)
	maps.Copy(out, r.Options)
	if len(out) > 0 {
		r.Options = out
	}
}

// six says that the default network has IPv6.
func (d defaults) six() bool {
	return d.bridge[1].IsValid() || d.options[enableSix] == "true" || d.options[enableSix] == "1"
}

// defaultOptions are those of the network bridge.
func (d defaults) defaultOptions(link string) map[string]string {
	out := map[string]string{
		"com.docker.network.bridge.default_bridge": "true", "com.docker.network.bridge.enable_icc": "true",
		"com.docker.network.bridge.enable_ip_masquerade": "true", "com.docker.network.bridge.host_binding_ipv4": "0.0.0.0",
		"com.docker.network.bridge.name": link, "com.docker.network.driver.mtu": "1500",
	}
	maps.Copy(out, d.options)
	delete(out, enableSix)
	delete(out, "com.docker.network.enable_ipv4")
	return out
}

// tuned is the default network's definition as the settings want it; the addresses that it has stay where they say nothing of them. The caller holds the
// lock or is alone.
func tuned(s *state, old *definition) (*definition, error) {
	d := *old
	d.Options = s.defaults.defaultOptions(old.Bridge)
	d.EnableIPv6 = s.defaults.six()
	d.Fixed = s.defaults.bridge[0].IsValid() || s.defaults.bridge[1].IsValid()
	d.IPAM.Config = nil
	for i, p := range s.defaults.bridge {
		six := i == 1
		at := slices.IndexFunc(old.IPAM.Config, func(c network.IPAMConfig) bool { return c.Subnet.Addr().Is6() == six })
		switch {
		case six && !d.EnableIPv6:
			continue
		case p.IsValid():
			d.IPAM.Config = append(d.IPAM.Config, network.IPAMConfig{Subnet: p.Masked(), Gateway: p.Addr(), IPRange: s.defaults.ranges[i]})
			continue
		case at >= 0 && !old.Fixed:
			d.IPAM.Config = append(d.IPAM.Config, old.IPAM.Config[at])
			continue
		}
		subnet, err := s.freeSubnet(six, 0)
		if err != nil {
			return nil, fmt.Errorf("choose addresses for the network bridge: %w", err)
		}
		d.IPAM.Config = append(d.IPAM.Config, network.IPAMConfig{Subnet: subnet, Gateway: subnet.Addr().Next()})
	}
	return &d, nil
}

// tuneDefault makes the default network what the settings say, where nobody is on it. It runs before the links are looked after.
func tuneDefault(s *Service) error {
	n, err := s.find(network.NetworkBridge)
	if err != nil {
		return err
	}
	d, err := tuned(&s.state, n.definition)
	if err != nil || same(d, n.definition) {
		return err
	}
	if len(n.endpoints) > 0 {
		s.log(errors.New("the network bridge is not what the settings say (network.bridge, network.ipv6, network.options), for containers are on it: it will be when the engine starts while none is"))
		return nil
	}
	for _, other := range s.networks {
		if other == n || other.ConfigOnly {
			continue
		}
		for _, theirs := range other.IPAM.Config {
			if slices.ContainsFunc(d.IPAM.Config, func(c network.IPAMConfig) bool { return c.Subnet.Overlaps(theirs.Subnet) }) {
				s.log(fmt.Errorf("setting network.bridge: the network %s has %s: the network bridge stays as it is until that one is removed and the engine starts again", other.Name, theirs.Subnet))
				return nil
			}
		}
	}
	fresh, err := newLan(d, neighbours(&s.state, d))
	if err != nil {
		return err
	}
	if err := d.write(s.o.definitions()); err != nil {
		return err
	}
	fresh.built = true
	s.networks[d.ID] = fresh
	if err := link.Delete(s.host, 0, d.Bridge); err != nil && !errors.Is(err, unix.ENODEV) { // it is made anew, with its size of packets and its addresses
		return err
	}
	return nil
}

// same says that two definitions of the default network are.
func same(a, b *definition) bool {
	return a.EnableIPv6 == b.EnableIPv6 && a.Fixed == b.Fixed && maps.Equal(a.Options, b.Options) &&
		slices.EqualFunc(a.IPAM.Config, b.IPAM.Config, func(a, b network.IPAMConfig) bool {
			return a.Subnet == b.Subnet && a.Gateway == b.Gateway && a.IPRange == b.IPRange
		})
}
