package cli

import (
	"encoding/csv"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
)

// attachment is one --network.
type attachment struct {
	name     string
	endpoint network.EndpointSettings
	ipam     network.EndpointIPAMConfig
	implied  bool // nobody named it
}

// networkFlag collects --network NAME and --network name=NAME,alias=…,ip=….
type networkFlag struct{ list []*attachment }

func (f *networkFlag) String() string { return "" }
func (f *networkFlag) Type() string   { return "network" }

func (f *networkFlag) Set(s string) error {
	a, err := parseAttachment(s)
	if err == nil {
		f.list = append(f.list, a)
	}
	return err
}

func parseAttachment(s string) (*attachment, error) {
	fields, err := csv.NewReader(strings.NewReader(s)).Read()
	if err != nil {
		return nil, errors.New("write NAME, or name=NAME,alias=…,ip=…")
	}
	if !strings.Contains(s, "=") {
		return &attachment{name: s}, nil
	}
	a := &attachment{}
	for _, field := range fields {
		key, value, _ := strings.Cut(field, "=")
		key, value = strings.ToLower(strings.TrimSpace(key)), strings.TrimSpace(value)
		if err := a.field(key, value); err != nil {
			return nil, err
		}
	}
	if a.name == "" {
		return nil, errors.New("which network? name=NAME is missing")
	}
	return a, nil
}

func (a *attachment) field(key, value string) (err error) {
	switch key {
	case "name":
		a.name = value
	case "alias":
		a.endpoint.Aliases = append(a.endpoint.Aliases, value)
	case "ip":
		a.ipam.IPv4Address, err = parseAddress(value)
	case "ip6":
		a.ipam.IPv6Address, err = parseAddress(value)
	case "link-local-ip":
		var ip netip.Addr
		ip, err = parseAddress(value)
		a.ipam.LinkLocalIPs = append(a.ipam.LinkLocalIPs, ip)
	case "mac-address":
		a.endpoint.MacAddress, err = parseMAC(value)
	case "driver-opt":
		k, v, ok := strings.Cut(value, "=")
		if !ok {
			return fmt.Errorf("driver-opt=%s: write driver-opt=KEY=VALUE", value)
		}
		put(&a.endpoint.DriverOpts, k, v)
	case "gw-priority":
		if a.endpoint.GwPriority, err = strconv.Atoi(value); err != nil {
			return fmt.Errorf("gw-priority=%s: give a number", value)
		}
	default:
		return fmt.Errorf("unknown option %q%s", key, didYouMean(key, []string{"name", "alias", "ip", "ip6", "link-local-ip", "mac-address", "driver-opt", "gw-priority"}, ""))
	}
	return err
}

func parseAddress(s string) (netip.Addr, error) {
	ip, err := netip.ParseAddr(s)
	if err != nil {
		return ip, fmt.Errorf("%q is no IP address", s)
	}
	return ip, nil
}

func parseMAC(s string) (network.HardwareAddr, error) {
	mac, err := net.ParseMAC(s)
	if err != nil {
		return nil, fmt.Errorf("%q is no MAC address: write it as 92:d0:c6:0a:29:33", s)
	}
	return network.HardwareAddr(mac), nil
}

// resolve gives the network mode and the settings of each network.
func (f *networkFlags) resolve() (container.NetworkMode, map[string]*network.EndpointSettings, error) {
	list := f.network.list
	if len(list) == 0 {
		list = []*attachment{{name: network.NetworkDefault, implied: true}}
	}
	if err := f.first(list[0]); err != nil {
		return "", nil, err
	}
	endpoints := map[string]*network.EndpointSettings{}
	for i, a := range list {
		userDefined := isUserDefined(a.name)
		switch {
		case len(list) > 1 && !userDefined:
			return "", nil, fmt.Errorf("--network %s cannot stand beside other networks: only networks made with `network create` can", a.name)
		case endpoints[a.name] != nil:
			return "", nil, fmt.Errorf("--network %s is given twice", a.name)
		case len(a.endpoint.Aliases) > 0 && !userDefined:
			return "", nil, fmt.Errorf("aliases are only known in networks made with `network create`, not in %s", a.name)
		}
		e := a.settings()
		// A name alone says nothing about the built-in networks that the mode does not say.
		if i == 0 && !userDefined && !a.implied && a.bare() {
			continue
		}
		endpoints[a.name] = e
	}
	return container.NetworkMode(list[0].name), endpoints, nil
}

func isUserDefined(name string) bool {
	return !slices.Contains([]string{network.NetworkDefault, network.NetworkBridge, network.NetworkHost, network.NetworkNone}, name) &&
		!container.NetworkMode(name).IsContainer()
}

// bare tells that nothing is said but the name.
func (a *attachment) bare() bool {
	e := a.endpoint
	return !a.ipam.IPv4Address.IsValid() && !a.ipam.IPv6Address.IsValid() && len(a.ipam.LinkLocalIPs) == 0 && len(e.Aliases) == 0 &&
		len(e.MacAddress) == 0 && len(e.DriverOpts) == 0 && e.GwPriority == 0
}

func (a *attachment) settings() *network.EndpointSettings {
	e := a.endpoint
	if a.ipam.IPv4Address.IsValid() || a.ipam.IPv6Address.IsValid() || len(a.ipam.LinkLocalIPs) > 0 {
		e.IPAMConfig = &a.ipam
	}
	return &e
}

// first puts --ip, --network-alias and their like into the first network, unless it says them itself.
func (f *networkFlags) first(a *attachment) (err error) {
	e := &a.endpoint
	twice := func(flag, key string) error {
		return fmt.Errorf("%s and %s= in --network say the same twice: keep one", flag, key)
	}
	if len(f.aliases.values) > 0 {
		if len(e.Aliases) > 0 {
			return twice("--network-alias", "alias")
		}
		e.Aliases = slices.Clone(f.aliases.values)
	}
	if len(f.links.values) > 0 && isUserDefined(a.name) {
		e.Links = slices.Clone(f.links.values)
	}
	if f.ip != "" {
		if a.ipam.IPv4Address.IsValid() {
			return twice("--ip", "ip")
		}
		if a.ipam.IPv4Address, err = parseAddress(f.ip); err != nil {
			return fmt.Errorf("--ip: %w", err)
		}
	}
	if f.ip6 != "" {
		if a.ipam.IPv6Address.IsValid() {
			return twice("--ip6", "ip6")
		}
		if a.ipam.IPv6Address, err = parseAddress(f.ip6); err != nil {
			return fmt.Errorf("--ip6: %w", err)
		}
	}
	if f.mac != "" {
		if len(e.MacAddress) > 0 {
			return twice("--mac-address", "mac-address")
		}
		if e.MacAddress, err = parseMAC(f.mac); err != nil {
			return fmt.Errorf("--mac-address: %w", err)
		}
	}
	if len(f.linkLocal.values) > 0 && len(a.ipam.LinkLocalIPs) > 0 {
		return twice("--link-local-ip", "link-local-ip")
	}
	for _, s := range f.linkLocal.values {
		ip, err := parseAddress(s)
		if err != nil {
			return fmt.Errorf("--link-local-ip: %w", err)
		}
		a.ipam.LinkLocalIPs = append(a.ipam.LinkLocalIPs, ip)
	}
	return nil
}

func addresses(list []string) ([]netip.Addr, error) {
	var all []netip.Addr
	for _, s := range list {
		ip, err := parseAddress(s)
		if err != nil {
			return nil, err
		}
		all = append(all, ip)
	}
	return all, nil
}
