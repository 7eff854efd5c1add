package cli

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/network"
)

// ports is what -p and --expose ask for.
type ports struct {
	exposed  network.PortSet
	bindings network.PortMap
}

// parsePorts reads -p [[address:][port[-port]]:]port[-port][/protocol] and --expose port[-port][/protocol].
func parsePorts(publish, expose []string) (ports, error) {
	p := ports{exposed: network.PortSet{}, bindings: network.PortMap{}}
	for _, s := range publish {
		if err := p.publish(s); err != nil {
			return p, fmt.Errorf("-p %s: %w", s, err)
		}
	}
	for _, s := range expose {
		r, err := parsePortRange(s)
		if err != nil {
			return p, fmt.Errorf("--expose %s: %w", s, err)
		}
		for port := range r.All() {
			p.exposed[port] = struct{}{}
		}
	}
	return p, nil
}

func (p *ports) publish(s string) error {
	if strings.Contains(s, "=") {
		var err error
		if s, err = longPort(s); err != nil {
			return err
		}
	}
	address, host, inside, err := splitPort(s)
	if err != nil {
		return err
	}
	r, err := parsePortRange(inside)
	if err != nil {
		return err
	}
	first, last, err := hostRange(host)
	if err != nil {
		return err
	}
	n := int(r.End()-r.Start()) + 1
	several := host != "" && first != last
	if several && n > 1 && last-first+1 != n {
		return fmt.Errorf("%d ports of the host for %d of the container: give as many on both sides", last-first+1, n)
	}
	if host != "" && !several && n > 1 {
		return fmt.Errorf("1 port of the host for %d of the container: give as many on both sides", n)
	}
	i := 0
	for port := range r.All() {
		b := network.PortBinding{HostIP: address, HostPort: host}
		if several && n > 1 {
			b.HostPort = strconv.Itoa(first + i)
		}
		p.exposed[port] = struct{}{}
		p.bindings[port] = append(p.bindings[port], b)
		i++
	}
	return nil
}

// splitPort parts address, host port and container port. Addresses of IPv6 stand in brackets, or bare in front of two more parts.
func splitPort(s string) (address netip.Addr, host, inside string, err error) {
	at := strings.LastIndexByte(s, ':')
	inside = s[at+1:]
	if inside == "" {
		return address, "", "", errors.New("the container's port is missing: write HOST:CONTAINER, such as 8080:80")
	}
	if at < 0 {
		return address, "", inside, nil
	}
	rest := s[:at]
	if a, err := netip.ParseAddr(strings.Trim(rest, "[]")); err == nil && (a.Is4() || rest[0] == '[') { // what is bare may be an address and a port
		port, _, _ := strings.Cut(inside, "/")
		return address, "", "", fmt.Errorf("which port of the host is it at %s? write %[1]s:%s:%s, or %[1]s::%[3]s for one that is free", rest, port, inside)
	}
	if at = strings.LastIndexByte(rest, ':'); at < 0 {
		return address, rest, inside, nil
	}
	host = rest[at+1:]
	text := strings.TrimSuffix(strings.TrimPrefix(rest[:at], "["), "]")
	if text == "" {
		return address, host, inside, nil
	}
	if address, err = netip.ParseAddr(text); err != nil || address.Zone() != "" {
		return address, "", "", fmt.Errorf("%q is no address of this host: names are not taken here", text)
	}
	return address, host, inside, nil
}

func parsePortRange(s string) (network.PortRange, error) {
	span, protocol, has := strings.Cut(s, "/")
	protocol = strings.ToLower(protocol)
	if has && !slices.Contains([]string{"tcp", "udp", "sctp"}, protocol) {
		return network.PortRange{}, fmt.Errorf("unknown protocol %q: it can be tcp, udp or sctp", protocol)
	}
	if span == "" {
		return network.PortRange{}, errors.New("the container's port is missing")
	}
	first, last, err := hostRange(span)
	if err != nil {
		return network.PortRange{}, err
	}
	if protocol == "" {
		protocol = "tcp"
	}
	r, _ := network.PortRangeFrom(uint16(first), uint16(last), network.IPProtocol(protocol))
	return r, nil
}

// hostRange reads a port or first-last; the engine chooses where there is none.
func hostRange(s string) (first, last int, err error) {
	if s == "" {
		return 0, 0, nil
	}
	a, b, has := strings.Cut(s, "-")
	if !has {
		b = a
	}
	x, err1 := strconv.ParseUint(a, 10, 16)
	y, err2 := strconv.ParseUint(b, 10, 16)
	switch {
	case err1 != nil || err2 != nil:
		return 0, 0, fmt.Errorf("%q is no port: ports are numbers from 0 to 65535, or a range of them such as 8000-8010", s)
	case x > y:
		return 0, 0, fmt.Errorf("the range %s ends before it begins", s)
	}
	return int(x), int(y), nil
}

// longPort rewrites target=80,published=8080,protocol=tcp.
func longPort(s string) (string, error) {
	var target, published, protocol, mode string
	for _, field := range strings.Split(s, ",") {
		key, value, _ := strings.Cut(field, "=")
		switch strings.ToLower(key) {
		case "target":
			target = value
		case "published":
			published = value
		case "protocol":
			protocol = "/" + value
		case "mode":
			mode = value
		default:
			return "", fmt.Errorf("unknown key %q%s", key, didYouMean(key, []string{"target", "published", "protocol", "mode"}, ""))
		}
	}
	if mode != "" && mode != "host" && mode != "ingress" {
		return "", fmt.Errorf("mode can be host, not %q", mode)
	}
	if target == "" {
		return "", errors.New("the container's port is missing: target=PORT")
	}
	return published + ":" + target + protocol, nil
}
