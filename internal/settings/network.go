package settings

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Pool is a range of addresses from which networks get subnets of a size.
type Pool struct {
	Whole netip.Prefix
	Bits  int
}

// ParsePool reads one of Network.Pools.
func ParsePool(text string) (p Pool, err error) {
	wrong := fmt.Errorf("%q is no range of addresses: it has to look like base=10.200.0.0/16,size=24, where a subnet of that size is a part of the base", text)
	for part := range strings.SplitSeq(text, ",") {
		key, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		switch key {
		case "base":
			p.Whole, err = netip.ParsePrefix(value)
		case "size":
			p.Bits, err = strconv.Atoi(value)
		default:
			return Pool{}, wrong
		}
		if err != nil {
			return Pool{}, wrong
		}
	}
	room := p.Whole.Addr().BitLen() - p.Bits
	if !p.Whole.IsValid() || p.Whole != p.Whole.Masked() || p.Bits < p.Whole.Bits() || room < 2 || p.Whole.Addr().IsLoopback() || p.Whole.Addr().IsMulticast() {
		return Pool{}, wrong
	}
	return p, nil
}

func (n *Network) check() (key, wrong string) {
	for _, text := range n.Pools {
		if _, err := ParsePool(text); err != nil {
			return "network.pools", err.Error()
		}
	}
	if key, wrong := n.checkBridge(); wrong != "" {
		return key, wrong
	}
	for _, text := range n.Options {
		if name, _, ok := strings.Cut(text, "="); !ok || !strings.HasPrefix(name, optionPrefix) || name == optionPrefix+"bridge.name" {
			return "network.options", fmt.Sprintf("%q is no option that all bridge networks could have: write \"com.docker.network.driver.mtu=1450\"", text)
		}
	}
	for _, text := range n.DNS {
		if _, err := netip.ParseAddr(text); err != nil {
			return "network.dns", fmt.Sprintf("%q is no address", text)
		}
	}
	return "", ""
}

// checkBridge wants a subnet of each family at most, and a part of each at most.
func (n *Network) checkBridge() (key, wrong string) {
	subnets, ranges := map[bool]netip.Prefix{}, map[bool]bool{}
	for _, text := range n.Bridge {
		p, err := ParseBridge(text)
		if err != nil {
			return "network.bridge", err.Error()
		}
		six := p.Addr().Is6()
		if subnets[six].IsValid() {
			return "network.bridge", fmt.Sprintf("%s is the second of its family: a bridge has one subnet of each", text)
		}
		subnets[six] = p.Masked()
	}
	for _, text := range n.Range {
		p, err := netip.ParsePrefix(text)
		six := p.Addr().Is6()
		if s := subnets[six]; err != nil || !s.IsValid() || p.Bits() < s.Bits() || !s.Contains(p.Addr()) {
			return "network.range", fmt.Sprintf("%q is no part of a subnet that network.bridge says", text)
		}
		if ranges[six] {
			return "network.range", fmt.Sprintf("%s is the second of its family: containers get addresses from one part of a subnet", text)
		}
		ranges[six] = true
	}
	return "", ""
}

const optionPrefix = "com.docker.network."

// ParseBridge reads one of Network.Bridge: an address of the host's with the size of its subnet. Where the subnet itself is said it is the first address.
func ParseBridge(text string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(text)
	if a := p.Addr(); err != nil || a.BitLen()-p.Bits() < 2 || a.IsLoopback() || a.IsMulticast() || a.IsUnspecified() || a.Zone() != "" {
		return p, fmt.Errorf("%q is no address with the size of its subnet: write \"10.5.0.1/24\"", text)
	}
	if p == p.Masked() {
		p = netip.PrefixFrom(p.Addr().Next(), p.Bits())
	}
	return p, nil
}

// check wants hosts that an image's name can have.
func (r *Registry) check() (key, wrong string) {
	for _, text := range r.Insecure {
		_, err := netip.ParsePrefix(text)
		if strings.Contains(text, "/") && err != nil || text == "" || strings.ContainsAny(text, " \t,@") {
			return "registry.insecure", fmt.Sprintf("%q is neither a host nor a network: write \"registry.lan:5000\" or \"10.0.0.0/8\", without http://", text)
		}
	}
	return "", ""
}
