package link

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// Not in x/sys: linux/veth.h, linux/if_link.h.
const (
	vethInfoPeer    = 1
	brportIsolated  = 33
	brportHairpin   = 4 // IFLA_BRPORT_MODE
	inet6GenMode    = 8
	genModeNone     = 1
	bridgeSnooping  = 23 // IFLA_BR_MCAST_SNOOPING
	queuesOfOneLink = 1
)

// Pair is a veth pair: one end on a bridge of the host, the other one in a container's namespace.
type Pair struct {
	Host, Inside string // names of the ends
	Bridge       int    // the bridge's number
	Namespace    *os.File
	MAC          net.HardwareAddr // of the inner end
	MTU          int
	Isolated     bool // other isolated ends on the bridge are not reached
	Hairpin      bool // the bridge sends frames back where they came from
}

// Add makes the pair with its host end up and on the bridge. The ends have one queue each: making a queue per processor is most of the
// cost of a pair. The host's end needs no address, so it is not to make itself one for IPv6.
func (p Pair) Add(c *Conn) error {
	add := newRequest("make the pair of interfaces "+p.Host+" and "+p.Inside, unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL)
	add.link(unix.AF_UNSPEC, 0, 0, 0)
	add.text(unix.IFLA_IFNAME, p.Host)
	add.number(unix.IFLA_MTU, p.MTU)
	add.number(unix.IFLA_NUM_TX_QUEUES, queuesOfOneLink)
	add.number(unix.IFLA_NUM_RX_QUEUES, queuesOfOneLink)
	add.nest(unix.IFLA_LINKINFO, func() {
		add.text(unix.IFLA_INFO_KIND, "veth")
		add.nest(unix.IFLA_INFO_DATA, func() {
			add.nest(vethInfoPeer, func() {
				add.link(unix.AF_UNSPEC, 0, 0, 0)
				add.text(unix.IFLA_IFNAME, p.Inside)
				add.number(unix.IFLA_MTU, p.MTU)
				add.number(unix.IFLA_NUM_TX_QUEUES, queuesOfOneLink)
				add.number(unix.IFLA_NUM_RX_QUEUES, queuesOfOneLink)
				add.number(unix.IFLA_NET_NS_FD, int(p.Namespace.Fd()))
				if len(p.MAC) > 0 {
					add.attr(unix.IFLA_ADDRESS, p.MAC)
				}
			})
		})
	})
	requests := []*Request{add, p.plug(true)}
	if p.Isolated || p.Hairpin {
		requests = append(requests, p.port())
	}
	err := c.Do(requests...)
	if errors.Is(err, unix.EAFNOSUPPORT) { // a kernel, or a link of a small size, without IPv6
		requests[1] = p.plug(false)
		err = c.Do(requests[1:]...)
	}
	return err
}

// port sets what the bridge does for the pair.
func (p Pair) port() *Request {
	r := newRequest("set up "+p.Host+" as a port of its bridge", unix.RTM_NEWLINK, 0)
	r.link(unix.AF_UNSPEC, 0, 0, 0)
	r.text(unix.IFLA_IFNAME, p.Host)
	r.nest(unix.IFLA_LINKINFO, func() {
		r.text(unix.IFLA_INFO_SLAVE_KIND, "bridge")
		r.nest(unix.IFLA_INFO_SLAVE_DATA, func() {
			if p.Isolated {
				r.attr(brportIsolated, []byte{1})
			}
			if p.Hairpin {
				r.attr(brportHairpin, []byte{1})
			}
		})
	})
	return r
}

// Replug puts a pair that is there on its bridge again.
func (p Pair) Replug(c *Conn) error { return c.Do(p.plug(false)) }

func (p Pair) plug(six bool) *Request {
	r := newRequest("put "+p.Host+" on its bridge", unix.RTM_SETLINK, 0)
	r.link(unix.AF_UNSPEC, 0, unix.IFF_UP, unix.IFF_UP)
	r.text(unix.IFLA_IFNAME, p.Host)
	r.number(unix.IFLA_MASTER, p.Bridge)
	if six {
		r.nest(unix.IFLA_AF_SPEC, func() {
			r.nest(unix.AF_INET6, func() { r.attr(inet6GenMode, []byte{genModeNone}) })
		})
	}
	return r
}

// Delete removes links by name, and with them their other ends; it returns when they are gone. Several are gathered in a group (which must
// not be in use for anything else), for the kernel waits once per request for all readers of links. Unknown names are fine.
func Delete(c *Conn, group int, names ...string) error {
	switch len(names) {
	case 0:
		return nil
	case 1:
		r := newRequest("delete link "+names[0], unix.RTM_DELLINK, 0)
		r.link(unix.AF_UNSPEC, 0, 0, 0)
		r.text(unix.IFLA_IFNAME, names[0])
		return c.Do(r.Forgive(unix.ENODEV))
	}
	requests := make([]*Request, 0, len(names))
	for _, name := range names {
		r := newRequest("mark link "+name+" for deletion", unix.RTM_SETLINK, 0)
		r.link(unix.AF_UNSPEC, 0, 0, 0)
		r.text(unix.IFLA_IFNAME, name)
		r.number(unix.IFLA_GROUP, group)
		requests = append(requests, r.Forgive(unix.ENODEV))
	}
	if err := c.Do(requests...); err != nil {
		return err
	}
	r := newRequest("delete links", unix.RTM_DELLINK, 0)
	r.link(unix.AF_UNSPEC, 0, 0, 0)
	r.number(unix.IFLA_GROUP, group)
	return c.Do(r.Forgive(unix.ENODEV))
}

// Interface is what a container's end needs beside existing.
type Interface struct {
	Name      string
	Addresses []netip.Prefix
	Gateways  []netip.Addr // default routes, at most one of each family; an unspecified address: everybody is behind the interface itself
}

// Configure gives interfaces of the calling thread's namespace their addresses and routes and sets them and the loopback up.
func Configure(c *Conn, interfaces []Interface) error {
	up := newRequest("set the loopback interface up", unix.RTM_SETLINK, 0)
	up.link(unix.AF_UNSPEC, 1, unix.IFF_UP, unix.IFF_UP) // the loopback's number is 1 in every namespace
	requests := []*Request{up}
	for _, i := range interfaces {
		index, err := c.Index(i.Name)
		if err != nil {
			return err
		}
		for _, p := range i.Addresses {
			requests = append(requests, addAddress(index, i.Name, p))
		}
		up := newRequest("set interface "+i.Name+" up", unix.RTM_SETLINK, 0)
		up.link(unix.AF_UNSPEC, index, unix.IFF_UP, unix.IFF_UP)
		requests = append(requests, up)
		for _, g := range i.Gateways {
			requests = append(requests, route(unix.RTM_NEWROUTE, index, g))
		}
	}
	return c.Do(requests...)
}

func addAddress(index int, name string, p netip.Prefix) *Request {
	r := newRequest("add address "+p.String()+" to "+name, unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL)
	flags := uint8(0)
	if p.Addr().Is6() {
		flags = unix.IFA_F_NODAD // the pool gives an address to one endpoint only
	}
	r.b = append(r.b, family(p.Addr()), uint8(p.Bits()), flags, unix.RT_SCOPE_UNIVERSE)
	r.b = append(r.b, byte(index), byte(index>>8), byte(index>>16), byte(index>>24))
	r.attr(unix.IFA_LOCAL, p.Addr().AsSlice())
	r.attr(unix.IFA_ADDRESS, p.Addr().AsSlice())
	if p.Addr().Is4() && p.Bits() < 31 {
		r.attr(unix.IFA_BROADCAST, broadcast(p))
	}
	return r
}

// RemoveAddress takes an address from a link.
func RemoveAddress(c *Conn, index int, name string, p netip.Prefix) error {
	r := newRequest("take address "+p.String()+" from "+name, unix.RTM_DELADDR, 0)
	r.b = append(r.b, family(p.Addr()), uint8(p.Bits()), 0, unix.RT_SCOPE_UNIVERSE)
	r.b = binary.NativeEndian.AppendUint32(r.b, uint32(index))
	r.attr(unix.IFA_LOCAL, p.Addr().AsSlice())
	r.attr(unix.IFA_ADDRESS, p.Addr().AsSlice())
	return c.Do(r.Forgive(unix.EADDRNOTAVAIL))
}

func route(kind uint16, index int, gateway netip.Addr) *Request {
	flags := uint16(0)
	if kind == unix.RTM_NEWROUTE {
		flags = unix.NLM_F_CREATE | unix.NLM_F_REPLACE
	}
	r := newRequest("set the default route to "+gateway.String(), kind, flags)
	scope := byte(unix.RT_SCOPE_UNIVERSE)
	if gateway.IsUnspecified() && gateway.Is4() {
		scope = unix.RT_SCOPE_LINK
	}
	r.b = append(r.b, family(gateway), 0, 0, 0, unix.RT_TABLE_MAIN, unix.RTPROT_BOOT, scope, unix.RTN_UNICAST, 0, 0, 0, 0)
	if !gateway.IsUnspecified() {
		r.attr(unix.RTA_GATEWAY, gateway.AsSlice())
	}
	r.number(unix.RTA_OIF, index)
	return r
}

// SetDefault replaces the default route of the gateway's family.
func SetDefault(c *Conn, name string, gateway netip.Addr) error {
	index, err := c.Index(name)
	if err != nil {
		return err
	}
	return c.Do(route(unix.RTM_NEWROUTE, index, gateway))
}

func family(a netip.Addr) uint8 {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func broadcast(p netip.Prefix) []byte {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < 32; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	return b
}
