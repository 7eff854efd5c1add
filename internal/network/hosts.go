package network

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/network"

	"wherry.dev/wherry/internal/sandbox"
)

// files are /etc/hosts and /etc/resolv.conf of a container. The caller holds the lock.
func (s *state) files(h *holding) (hosts, resolv []byte) {
	r := h.Request
	driver := h.exclusiveDriver(s.networks)
	base := s.conf.said.under(sandbox.HostNetwork{
		None: driver != driverHost, ExtraHosts: s.extraHosts(h),
		DNS: addresses(r.DNS), DNSSearch: r.DNSSearch, DNSOptions: r.DNSOptions,
	})
	c := base.Content()
	if driver != "" {
		return c.Hosts, c.ResolvConf
	}
	var b strings.Builder
	b.WriteString(hostLine(s, h))
	for _, e := range h.Endpoints {
		b.WriteString(s.linkedHosts(e))
	}
	for _, e := range h.Endpoints {
		for _, a := range []netip.Addr{e.V4, e.V6} {
			if a.IsValid() {
				b.WriteString(a.String() + "\t" + ownNames(r) + "\n")
			}
		}
	}
	return append(c.Hosts, b.String()...), s.resolvConf(h)
}

// WithResolvers gives the files of a container on the host's network the resolvers of the settings, where it names none.
func WithResolvers(s *Service, n sandbox.HostNetwork) sandbox.HostNetwork {
	return s.conf.said.under(n)
}

func (r resolvConf) under(n sandbox.HostNetwork) sandbox.HostNetwork {
	all := resolvConf{n.DNS, n.DNSSearch, n.DNSOptions}.over(r)
	n.DNS, n.DNSSearch, n.DNSOptions = all.servers, all.search, all.options
	return n
}

// linkedHosts are the lines for those whom a container on the default bridge is linked to; elsewhere the resolver knows them.
func (s *state) linkedHosts(e *endpoint) string {
	n := s.networks[e.NetworkID]
	if n == nil || n.Name != network.NetworkBridge {
		return ""
	}
	var b strings.Builder
	for _, l := range e.Asked.Links {
		target, alias := parseLink(l)
		id, other := n.linked(target)
		if other == nil || !other.V4.IsValid() {
			continue
		}
		names := []string{alias}
		for _, name := range []string{other.Hostname, other.Name, shortID(id)} {
			if name != "" && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
		b.WriteString(other.V4.String() + "\t" + strings.Join(names, " ") + "\n")
	}
	return b.String()
}

// parseLink reads "target:alias"; names may have Docker's leading slash.
func parseLink(l string) (target, alias string) {
	target, alias, ok := strings.Cut(l, ":")
	target = strings.TrimPrefix(target, "/")
	if !ok {
		return target, target
	}
	return target, alias[strings.LastIndexByte(alias, '/')+1:]
}

func (n *lan) has(target string) bool {
	_, e := n.linked(target)
	return e != nil
}

// linked finds a container on the network by name or id. The caller holds the lock.
func (n *lan) linked(target string) (id string, e *endpoint) {
	for id, e := range n.endpoints {
		if e.Name == target || id == target || len(target) >= 12 && strings.HasPrefix(id, target) {
			return id, e
		}
	}
	return "", nil
}

func ownNames(r AllocateRequest) string {
	if r.Domainname != "" {
		return r.Hostname + "." + r.Domainname + " " + r.Hostname
	}
	if first, _, ok := strings.Cut(r.Hostname, "."); ok {
		return r.Hostname + " " + first
	}
	return r.Hostname
}

// extraHosts puts the host's address where host-gateway is asked for.
func (s *state) extraHosts(h *holding) []string {
	extra := h.Request.ExtraHosts
	out := make([]string, len(extra))
	for i, e := range extra {
		out[i] = e
		name, address, ok := strings.Cut(e, ":")
		if !ok || address != "host-gateway" {
			continue
		}
		if a := hostAddress(s, h); a.IsValid() {
			out[i] = name + ":" + a.String()
		} else if n, err := s.find("bridge"); err == nil && n.gateway().IsValid() {
			out[i] = name + ":" + n.gateway().String()
		}
	}
	return out
}
