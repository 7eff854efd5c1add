package network

import (
	"net/netip"
	"strings"

	"wherry.dev/wherry/internal/sandbox"
)

// files are /etc/hosts and /etc/resolv.conf of a container. The caller holds the lock.
func (s *Service) files(h *holding) (hosts, resolv []byte) {
	r := h.Request
	base := sandbox.HostNetwork{None: true, ExtraHosts: s.extraHosts(r.ExtraHosts), DNSSearch: r.DNSSearch, DNSOptions: r.DNSOptions}
	for _, a := range r.DNS {
		if a, err := netip.ParseAddr(a); err == nil {
			base.DNS = append(base.DNS, a)
		}
	}
	for _, e := range h.Endpoints {
		if n := s.networks[e.NetworkID]; n != nil && n.Driver == driverHost {
			base.None = false
		}
	}
	c := base.Content()
	var b strings.Builder
	for _, e := range h.Endpoints {
		for _, a := range []netip.Addr{e.V4, e.V6} {
			if a.IsValid() {
				b.WriteString(a.String() + "\t" + ownNames(r) + "\n")
			}
		}
	}
	return append(c.Hosts, b.String()...), c.ResolvConf
}

func ownNames(r AllocateRequest) string {
	if r.Domainname != "" {
		return r.Hostname + "." + r.Domainname + " " + r.Hostname
	}
	return r.Hostname
}

// extraHosts puts the default bridge's gateway where host-gateway is asked for.
func (s *Service) extraHosts(extra []string) []string {
	out := make([]string, len(extra))
	for i, e := range extra {
		out[i] = e
		name, address, ok := strings.Cut(e, ":")
		if !ok || address != "host-gateway" {
			continue
		}
		if n, err := s.find("bridge"); err == nil && n.gateway().IsValid() {
			out[i] = name + ":" + n.gateway().String()
		}
	}
	return out
}
