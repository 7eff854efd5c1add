package network

import (
	"cmp"
	"errors"
	"net/netip"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/network"
)

// checkOptions reads the options of the bridge driver.
func (d *definition) checkOptions() error {
	if len(d.Bridge) > 15 || strings.ContainsAny(d.Bridge, "/: \t\n") || d.Bridge == "." || d.Bridge == ".." {
		return invalid("com.docker.network.bridge.name: %q is no name of a link: at most 15 bytes, no space, slash or colon", d.Bridge)
	}
	for _, o := range []string{"bridge.enable_icc", "bridge.enable_ip_masquerade", "bridge.inhibit_ipv4"} {
		if v := d.option(o); v != "" {
			if _, err := strconv.ParseBool(v); err != nil {
				return invalid("com.docker.network.%s: %q is neither true nor false", o, v)
			}
		}
	}
	if v := d.option("bridge.host_binding_ipv4"); v != "" {
		if a, err := netip.ParseAddr(v); err != nil || !a.Is4() {
			return invalid("com.docker.network.bridge.host_binding_ipv4: %q is no IPv4 address", v)
		}
	}
	if prefix := d.option("container_iface_prefix"); prefix != "" {
		if err := checkInterface(prefix + "0"); err != nil {
			return invalid("com.docker.network.container_iface_prefix: %q cannot begin an interface's name", prefix)
		}
	}
	for _, name := range strings.Split(d.option("bridge.trusted_host_interfaces"), ":") {
		if len(name) > 15 || strings.ContainsAny(name, "/ \t\n") {
			return invalid("com.docker.network.bridge.trusted_host_interfaces: %q is no name of a link: it is a list with colons between", name)
		}
	}
	return errors.Join(checkMTU(d.option("driver.mtu")), d.checkAnnouncements(), d.checkGateways())
}

// checkAnnouncements reads how often addresses are announced. Once is enough here, so that only "not at all" makes a difference.
func (d *definition) checkAnnouncements() error {
	for _, row := range []struct {
		option      string
		least, most int
	}{{"advertise_addr_nmsgs", 0, 3}, {"advertise_addr_ms", 100, 2000}} {
		v := d.option(row.option)
		if n, err := strconv.Atoi(v); v != "" && (err != nil || n < row.least || n > row.most) {
			return invalid("com.docker.network.%s: %q is no number in the range %d to %d", row.option, v, row.least, row.most)
		}
	}
	return nil
}

// checkGateways reads what is said of the way out of each family.
func (d *definition) checkGateways() error {
	for _, six := range []bool{false, true} {
		switch mode := d.gatewayMode(six); mode {
		case modeNAT, modeOpen, modeRouted:
		case modeIsolated:
			if !d.Internal {
				return invalid("gateway mode 'isolated' can only be used for an internal network")
			}
		default:
			return invalid("unknown gateway mode %s: there are nat, nat-unprotected, routed and isolated", mode)
		}
		name := "host_ipv" + familyDigit(six)
		if v := d.option(name); v != "" && d.source(six) == (netip.Addr{}) {
			return invalid("com.docker.network.%s: %q is no address of that family", name, v)
		}
	}
	return nil
}

func familyDigit(six bool) string {
	if six {
		return "6"
	}
	return "4"
}

// Gateway modes: how packets of one family pass between a bridge network and the world.
const (
	modeNAT      = "nat"
	modeOpen     = "nat-unprotected" // all ports are reached at the containers' own addresses
	modeRouted   = "routed"          // packets keep their addresses; published ports are reached at the containers' own
	modeIsolated = "isolated"        // the host is not on the network either
)

func (d *definition) gatewayMode(six bool) string {
	return cmp.Or(d.option("bridge.gateway_mode_ipv"+familyDigit(six)), modeNAT)
}

// source is the address that packets which leave the network get, where one is named.
func (d *definition) source(six bool) netip.Addr {
	a, err := netip.ParseAddr(d.option("host_ipv" + familyDigit(six)))
	if err != nil || a.Is6() != six {
		return netip.Addr{}
	}
	return a
}

// readFamilies reads the options that say what --ipv4 and --ipv6 do; those win.
func (d *definition) readFamilies(r network.CreateRequest) error {
	for _, row := range []struct {
		option string
		said   *bool
		at     *bool
	}{{"enable_ipv4", r.EnableIPv4, &d.EnableIPv4}, {"enable_ipv6", r.EnableIPv6, &d.EnableIPv6}} {
		v := d.option(row.option)
		if v == "" {
			continue
		}
		on, err := strconv.ParseBool(v)
		if err != nil {
			return invalid("com.docker.network.%s: %q is neither true nor false", row.option, v)
		}
		if row.said == nil {
			*row.at = on
		} else {
			delete(d.Options, "com.docker.network."+row.option)
		}
	}
	if !d.EnableIPv4 && !d.EnableIPv6 && r.Driver != driverMacvlan && r.Driver != driverIpvlan {
		return invalid("network %s: IPv4 or IPv6 must be enabled", r.Name)
	}
	return nil
}

func checkMTU(v string) error {
	if v == "" {
		return nil
	}
	if n, err := strconv.Atoi(v); err != nil || n < 68 && n != 0 || n > 65535 {
		return invalid("com.docker.network.driver.mtu: %q is not between 68 and 65535", v)
	}
	return nil
}

// mtuAsked is the largest packet that the network's user asks for, 0 where he does not.
func (d *definition) mtuAsked() int {
	n, err := strconv.Atoi(d.option("driver.mtu"))
	if err != nil {
		return 0
	}
	return n
}

func (d *definition) mtu() int { return cmp.Or(d.mtuAsked(), 1500) }
