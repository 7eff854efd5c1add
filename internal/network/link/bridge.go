package link

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Bridge is a bridge of the host.
type Bridge struct {
	Name      string
	Addresses []netip.Prefix
	MAC       net.HardwareAddr
	MTU       int
	Alias     string // says whose it is; "": nothing
	Apart     bool   // the host is not on it: what comes for the host's own addresses is dropped, and not asked for
}

// six says whether the bridge carries IPv6.
func (b Bridge) six() bool {
	for _, p := range b.Addresses {
		if p.Addr().Is6() {
			return true
		}
	}
	return false
}

// Ensure makes the bridge, or mends the one that is there, and returns its number. Without IPv6 it neither has an address of its own nor
// looks into multicast: both cost time for each port.
func (b Bridge) Ensure(c *Conn) (int, error) {
	if err := b.add(c); err != nil {
		return 0, err
	}
	index, err := c.Index(b.Name)
	if err != nil {
		return 0, err
	}
	off := "1"
	if b.six() {
		off = "0"
	}
	if err := SetSysctl("net/ipv6/conf/"+b.Name+"/disable_ipv6", off); err != nil && (b.six() || !errors.Is(err, unix.ENOENT)) {
		return 0, err
	}
	if b.six() {
		// No container is a router for the host, whatever it announces. Set while the bridge is down: an announcement that was heard stays.
		if err := SetSysctl("net/ipv6/conf/"+b.Name+"/accept_ra", "0"); err != nil {
			return 0, err
		}
		// Nobody else has the bridge's address, and until the kernel has made sure of that it does not look for neighbours.
		if err := SetSysctl("net/ipv6/conf/"+b.Name+"/accept_dad", "0"); err != nil {
			return 0, err
		}
	}
	for _, set := range b.settings() {
		if err := SetSysctl("net/ipv4/conf/"+b.Name+"/"+set[0], set[1]); err != nil {
			return 0, err
		}
	}
	var requests []*Request
	for _, p := range b.Addresses {
		requests = append(requests, addAddress(index, b.Name, p).Forgive(unix.EEXIST))
	}
	up := newRequest("set bridge "+b.Name+" up", unix.RTM_SETLINK, 0)
	up.link(unix.AF_UNSPEC, index, unix.IFF_UP, unix.IFF_UP)
	if b.Alias != "" {
		up.attr(unix.IFLA_IFALIAS, []byte(b.Alias))
	}
	return index, c.Do(append(requests, up)...)
}

// settings for IPv4 (ip-sysctl.rst).
func (b Bridge) settings() [][2]string {
	if b.Apart {
		// Without an address no source is behind it: all that comes for the host fails the check of its way back.
		return [][2]string{{"rp_filter", "1"}, {"arp_ignore", "8"}, {"route_localnet", "0"}}
	}
	// Published ports are reached through the host's loopback addresses too. The firewall drops such addresses from containers.
	return [][2]string{{"route_localnet", "1"}}
}

// learned is how many hardware addresses a bridge remembers: each takes the host's memory, counted to nobody, and who sends frames invents as many as he
// likes. What is for one that it does not remember goes to all its ports. Kernels before 6.7 know no limit, and pass it over.
const learned = 16384

func (b Bridge) add(c *Conn) error {
	r := newRequest("make bridge "+b.Name, unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL)
	r.link(unix.AF_UNSPEC, 0, 0, 0)
	r.text(unix.IFLA_IFNAME, b.Name)
	r.number(unix.IFLA_MTU, b.MTU)
	if len(b.MAC) > 0 {
		r.attr(unix.IFLA_ADDRESS, b.MAC)
	}
	r.nest(unix.IFLA_LINKINFO, func() {
		r.text(unix.IFLA_INFO_KIND, "bridge")
		r.nest(unix.IFLA_INFO_DATA, func() {
			if !b.six() {
				r.attr(bridgeSnooping, []byte{0})
			}
			r.number(unix.IFLA_BR_FDB_MAX_LEARNED, learned)
		})
	})
	if err := c.Do(r); err == nil || !errors.Is(err, unix.EEXIST) {
		return err
	}
	kind, err := c.kind(b.Name)
	if err == nil && kind != "bridge" {
		err = fmt.Errorf("make bridge %s: the host has another link of that name", b.Name)
	}
	return err
}

// kind is a link's, "" for hardware.
func (c *Conn) kind(name string) (string, error) {
	r := newRequest("look at link "+name, unix.RTM_GETLINK, 0)
	r.link(unix.AF_UNSPEC, 0, 0, 0)
	r.text(unix.IFLA_IFNAME, name)
	answers, err := c.exchange([]*Request{r})
	if err != nil || len(answers) == 0 || len(answers[0]) < unix.SizeofIfInfomsg {
		return "", err
	}
	for kind, value := range attributes(answers[0][unix.SizeofIfInfomsg:]) {
		if kind != unix.IFLA_LINKINFO {
			continue
		}
		for kind, value := range attributes(value) {
			if kind == unix.IFLA_INFO_KIND {
				return unix.ByteSliceToString(value), nil
			}
		}
	}
	return "", nil
}
