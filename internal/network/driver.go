package network

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/network/link"
)

// plumbed says that the network gives a container an interface.
func (d *definition) plumbed() bool { return d.Driver == driverBridge || d.stacked() }

// stacked says that containers share a link of the host, the parent, with it.
func (d *definition) stacked() bool { return d.Driver == driverMacvlan || d.Driver == driverIpvlan }

// leadsNowhere says that there is no way out of the network.
func (d *definition) leadsNowhere() bool {
	return d.Internal || d.stacked() && d.Options["parent"] == ""
}

// routed says that the network's interfaces carry no frames, only packets: everybody is behind the interface itself.
func (d *definition) routed() bool {
	return d.Driver == driverIpvlan && (d.Options["ipvlan_mode"] == "l3" || d.Options["ipvlan_mode"] == "l3s")
}

// checkDriver refuses drivers that are not there.
func checkDriver(driver string) error {
	switch driver {
	case "", "default", driverBridge, driverMacvlan, driverIpvlan:
		return nil
	case driverHost, driverNull:
		return fmt.Errorf("only one instance of %q network is allowed: %w", driver, errdefs.ErrPermissionDenied)
	}
	return fmt.Errorf("plugin %q not found: this engine has the network drivers bridge, macvlan and ipvlan: %w", driver, errdefs.ErrNotFound)
}

// checkStacked reads the options of macvlan and ipvlan and chooses the parent's name where none is asked for.
func (d *definition) checkStacked(names names) error {
	d.Bridge = d.Options["parent"]
	if d.Bridge == "" {
		d.Bridge = names.bridgeOf(d.ID)
	}
	if d.Bridge == "lo" {
		return invalid("loopback interface is not a valid %s parent link", d.Driver)
	}
	if err := errors.Join(checkMTU(d.option("driver.mtu")), d.checkAnnouncements()); err != nil {
		return err
	}
	if d.Driver == driverMacvlan {
		if mode := d.Options["macvlan_mode"]; mode != "" && link.MacvlanMode(mode) == 0 {
			return invalid("requested macvlan mode '%s' is not valid, 'bridge' mode is the macvlan driver default: there are bridge, private, vepa and passthru", mode)
		}
		return nil
	}
	if mode := d.Options["ipvlan_mode"]; mode != "" {
		if _, ok := link.IpvlanMode(mode); !ok {
			return invalid("requested ipvlan mode '%s' is not valid, 'l2' mode is the ipvlan driver default: there are l2, l3 and l3s", mode)
		}
	}
	if flag := d.Options["ipvlan_flag"]; flag != "" {
		if _, ok := link.IpvlanFlag(flag); !ok {
			return invalid("requested ipvlan flag '%s' is not valid, 'bridge' is the ipvlan driver default: there are bridge, private and vepa", flag)
		}
	}
	return nil
}

// shares refuses a parent that another network needs for itself. The caller holds the lock.
func shares(s *state, d *definition) error {
	alone := func(d *definition) bool { return d.Options["macvlan_mode"] == "passthru" }
	for _, n := range s.networks {
		switch {
		case !d.stacked() || !n.stacked() || n.Bridge != d.Bridge:
		case alone(d):
			return fmt.Errorf("cannot use mode passthru, macvlan network %s is already using parent interface %s: %w", n.Name, d.Bridge, errdefs.ErrPermissionDenied)
		case alone(n.definition):
			return fmt.Errorf("macvlan network %s is already using parent interface %s in mode passthru: %w", n.Name, d.Bridge, errdefs.ErrPermissionDenied)
		case n.Driver != d.Driver:
			return fmt.Errorf("network %s is already using parent interface %s with the driver %s, and the kernel shares a link by one of them only: %w", n.Name, d.Bridge, n.Driver, errdefs.ErrPermissionDenied)
		}
	}
	return nil
}

// stack describes the interface of an endpoint on macvlan or ipvlan.
func (n *lan) stack(e *endpoint) *link.Stacked {
	out := &link.Stacked{Kind: n.Driver, Name: e.Interface, Parent: n.index, MAC: []byte(e.MAC), MTU: n.mtuAsked()}
	if n.Driver == driverMacvlan {
		out.Mode = max(link.MacvlanMode(n.Options["macvlan_mode"]), 0)
		if out.Mode == 0 {
			out.Mode = link.MacvlanMode("bridge")
		}
		return out
	}
	out.Mode, _ = link.IpvlanMode(n.Options["ipvlan_mode"])
	out.Flag, _ = link.IpvlanFlag(n.Options["ipvlan_flag"])
	return out
}

// raiseParent finds the link that a network's containers share. What is called LINK.NUMBER is made where it is not there, and so is a link
// that leads nowhere for a network without a parent.
func (k *kernel) raiseParent(n *lan, alias string) error {
	index, err := k.host.Index(n.Bridge)
	if err == nil || !errors.Is(err, unix.ENODEV) {
		n.index = index
		return err
	}
	if n.Options["parent"] == "" {
		err = link.Island(k.host, n.Bridge, alias)
	} else {
		err = k.raiseVLAN(n.Bridge, alias)
	}
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	n.index, err = k.host.Index(n.Bridge)
	return err
}

func (k *kernel) raiseVLAN(name, alias string) error {
	dot := strings.LastIndexByte(name, '.')
	if dot < 0 {
		return invalid("the parent interface %s is not on this host; a VLAN's is called after the interface and the number, such as eth0.10", name)
	}
	id, err := strconv.Atoi(name[dot+1:])
	if err != nil {
		return invalid("unable to parse a valid vlan id from: %s (ex. eth0.10 for vlan 10)", name[dot+1:])
	}
	if id < 1 || id > 4094 {
		return invalid("vlan id must be between 1-4094, received: %d", id)
	}
	parent, err := k.host.Index(name[:dot])
	if errors.Is(err, unix.ENODEV) {
		return invalid("-o parent interface was not found on the host: %s", name[:dot])
	}
	if err != nil {
		return err
	}
	err = link.VLAN{Name: name, Parent: parent, ID: uint16(id), Alias: alias}.Add(k.host)
	switch {
	case errors.Is(err, unix.EOPNOTSUPP):
		return fmt.Errorf("%w: the kernel has no VLANs (its module 8021q): %w", err, errdefs.ErrNotImplemented)
	case errors.Is(err, unix.ENETDOWN):
		return fmt.Errorf("%w: set %s up first: %w", err, name[:dot], errdefs.ErrFailedPrecondition)
	}
	return err
}

// explainStack says why an interface could not be stacked on a network's parent.
func explainStack(n *lan, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EOPNOTSUPP):
		return fmt.Errorf("network %s: %w: the kernel has no %s: %w", n.Name, err, n.Driver, errdefs.ErrNotImplemented)
	case errors.Is(err, unix.EBUSY), errors.Is(err, unix.EINVAL):
		return fmt.Errorf("network %s: %w: %s is in use by another network, program or container in a way that does not bear this one (mode passthru takes one container): %w", n.Name, err, n.Bridge, errdefs.ErrFailedPrecondition)
	}
	return fmt.Errorf("network %s: %w", n.Name, err)
}

// checkInterface refuses what the kernel would not take as an interface's name.
func checkInterface(name string) error {
	if name == "" || len(name) > 15 || name == "." || name == ".." || name == "lo" || strings.ContainsAny(name, "/: \t\n%") || slices.Contains([]string{"all", "default"}, name) {
		return invalid("invalid com.docker.network.endpoint.ifname: %q is no name of an interface: at most 15 bytes, no space, slash, colon or percent sign", name)
	}
	return nil
}

// endpointSysctls reads com.docker.network.endpoint.sysctls: "net.ipv4.conf.IFNAME.log_martians=1,…", where IFNAME stands for the interface; docker's
// command line makes it lower case.
// The keys that it gives have slashes.
func endpointSysctls(text, ifname string) ([][2]string, error) {
	if text == "" {
		return nil, nil
	}
	var out [][2]string
	for part := range strings.SplitSeq(text, ",") {
		key, value, ok := strings.Cut(part, "=")
		words := strings.Split(strings.ReplaceAll(key, "/", "."), ".")
		if !ok || len(words) < 5 || words[0] != "net" || !strings.EqualFold(words[3], "IFNAME") || slices.Contains(words, "") {
			return nil, invalid("invalid endpoint sysctl setting %q: expected net.X.Y.IFNAME.SETTING=VALUE, such as net.ipv4.conf.IFNAME.log_martians=1", part)
		}
		if words[1] != "ipv4" && words[1] != "ipv6" && words[1] != "mpls" {
			return nil, invalid("unrecognised network protocol in sysctl %q: there are ipv4, ipv6 and mpls", part)
		}
		words[3] = ifname
		out = append(out, [2]string{strings.Join(words, "/"), value})
	}
	return out, nil
}

// hostIsOn says that the host has the gateway's address of the network's subnet of a family.
func (d *definition) hostIsOn(six bool) bool {
	return d.Driver == driverBridge && d.gatewayMode(six) != modeIsolated && (six || !d.flag("bridge.inhibit_ipv4", false))
}

// avoidHost keeps a stacked network from giving out addresses that the host has: as a rule its subnet is the parent's own.
func avoidHost(s *state, n *lan) error {
	if !n.stacked() {
		return nil
	}
	list, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("list the host's addresses: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range list {
		a, _ := netip.AddrFromSlice(l.IP)
		for p := range n.pools() {
			if p.subnet.Contains(a.Unmap()) {
				p.used[a.Unmap()] = true
			}
		}
	}
	return nil
}
