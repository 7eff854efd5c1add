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
	return "", ""
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
