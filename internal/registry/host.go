package registry

import (
	"maps"
	"net"
	"net/url"
	"slices"
	"strings"
)

// plain says whether a registry may do without TLS: loopback addresses, and those named with --insecure-registry.
func (p *Pool) plain(host string) bool {
	if isLoopback(host) {
		return true
	}
	ip := net.ParseIP(hostname(host))
	for _, insecure := range p.o.Insecure {
		if host == insecure {
			return true
		}
		if _, network, err := net.ParseCIDR(insecure); err == nil && ip != nil && network.Contains(ip) {
			return true
		}
	}
	return false
}

func isLoopback(host string) bool {
	name := hostname(host)
	return strings.EqualFold(name, "localhost") || net.ParseIP(name).IsLoopback()
}

// registryHost is where a registry is, by the name that stands in references.
func registryHost(domain string) string {
	if domain == "docker.io" {
		return "registry-1.docker.io"
	}
	return domain
}

// serverHost is the registry that a server address of a login means.
func serverHost(address string) string {
	_, rest, ok := strings.Cut(address, "://")
	if !ok {
		rest = address
	}
	host, _, _ := strings.Cut(rest, "/")
	if address == "" {
		host = "docker.io"
	}
	switch host {
	case "docker.io", "index.docker.io", "registry-1.docker.io":
		return registryHost("docker.io")
	}
	return host
}

// sameHost says that two host[:port] of a scheme are one.
func sameHost(a, b, scheme string) bool {
	return strings.EqualFold(hostname(a), hostname(b)) && portOf(a, scheme) == portOf(b, scheme)
}

func portOf(host, scheme string) string {
	if _, port, err := net.SplitHostPort(host); err == nil && port != "" {
		return port
	}
	return map[string]string{"http": "80", "https": "443"}[scheme]
}

func hostname(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		return h
	}
	return strings.Trim(host, "[]")
}

// origin is an address without what may be secret or long.
func origin(u *url.URL) string { return u.Scheme + "://" + u.Host }

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
