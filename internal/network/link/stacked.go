package link

import (
	"encoding/binary"
	"errors"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// Not in x/sys: linux/if_link.h.
const (
	stackedMode  = 1 // IFLA_MACVLAN_MODE, 32 bits; IFLA_IPVLAN_MODE, 16 bits
	stackedFlags = 2 // IFLA_IPVLAN_FLAGS
	vlanID       = 1 // IFLA_VLAN_ID
)

// Kinds of stacked interfaces.
const (
	Macvlan = "macvlan"
	Ipvlan  = "ipvlan"
)

// MacvlanMode is a mode of macvlan as the kernel counts it, 0 for a word that is none.
func MacvlanMode(word string) uint32 {
	return map[string]uint32{"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}[word]
}

// IpvlanMode is a mode of ipvlan as the kernel counts it.
func IpvlanMode(word string) (mode uint32, ok bool) {
	mode, ok = map[string]uint32{"l2": 0, "l3": 1, "l3s": 2}[word]
	return mode, ok
}

// IpvlanFlag says who reaches whom on one parent.
func IpvlanFlag(word string) (flag uint16, ok bool) {
	flag, ok = map[string]uint16{"bridge": 0, "private": 1, "vepa": 2}[word]
	return flag, ok
}

// Stacked is an interface of a container that shares a link of the host with it.
type Stacked struct {
	Kind      string // Macvlan or Ipvlan
	Name      string
	Parent    int
	Namespace *os.File
	Mode      uint32
	Flag      uint16           // of Ipvlan
	MAC       net.HardwareAddr // of Macvlan; Ipvlan has the parent's
	MTU       int              // 0: the parent's
}

// Add makes the interface, down, in its namespace. The socket is one of the parent's namespace.
func (s Stacked) Add(c *Conn) error {
	r := newRequest("make the "+s.Kind+" interface "+s.Name, unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL)
	r.link(unix.AF_UNSPEC, 0, 0, 0)
	r.text(unix.IFLA_IFNAME, s.Name)
	r.number(unix.IFLA_LINK, s.Parent)
	r.number(unix.IFLA_NET_NS_FD, int(s.Namespace.Fd()))
	if s.MTU > 0 {
		r.number(unix.IFLA_MTU, s.MTU)
	}
	if len(s.MAC) > 0 && s.Kind == Macvlan {
		r.attr(unix.IFLA_ADDRESS, s.MAC)
	}
	r.nest(unix.IFLA_LINKINFO, func() {
		r.text(unix.IFLA_INFO_KIND, s.Kind)
		r.nest(unix.IFLA_INFO_DATA, func() {
			if s.Kind == Macvlan {
				r.number(stackedMode, int(s.Mode))
				return
			}
			r.attr(stackedMode, binary.NativeEndian.AppendUint16(nil, uint16(s.Mode)))
			r.attr(stackedFlags, binary.NativeEndian.AppendUint16(nil, s.Flag))
		})
	})
	return c.Do(r)
}

// VLAN is a sub-interface of a link for one tag (IEEE 802.1Q).
type VLAN struct {
	Name   string
	Parent int
	ID     uint16
	Alias  string // says whose it is
}

// Add makes the sub-interface and sets it up.
func (v VLAN) Add(c *Conn) error {
	r := newRequest("make the VLAN "+v.Name, unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL)
	r.link(unix.AF_UNSPEC, 0, 0, 0)
	r.text(unix.IFLA_IFNAME, v.Name)
	r.number(unix.IFLA_LINK, v.Parent)
	r.nest(unix.IFLA_LINKINFO, func() {
		r.text(unix.IFLA_INFO_KIND, "vlan")
		r.nest(unix.IFLA_INFO_DATA, func() { r.attr(vlanID, binary.NativeEndian.AppendUint16(nil, v.ID)) })
	})
	return c.make(v.Name, r, raised(v.Name, v.Alias))
}

// Island makes a link that leads nowhere, for interfaces to be stacked on, and sets it up: a dummy, or a bridge where the kernel has none.
func Island(c *Conn, name, alias string) error {
	var err error
	for _, kind := range []string{"dummy", "bridge"} {
		r := newRequest("make the link "+name, unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL)
		r.link(unix.AF_UNSPEC, 0, 0, 0)
		r.text(unix.IFLA_IFNAME, name)
		r.nest(unix.IFLA_LINKINFO, func() { r.text(unix.IFLA_INFO_KIND, kind) })
		if err = c.make(name, r, raised(name, alias)); !errors.Is(err, unix.EOPNOTSUPP) {
			return err
		}
	}
	return err
}

// make makes a link and raises it, or leaves nothing.
func (c *Conn) make(name string, make, raise *Request) error {
	if err := c.Do(make); err != nil {
		return err
	}
	if err := c.Do(raise); err != nil {
		return errors.Join(err, Delete(c, 0, name))
	}
	return nil
}

// raised sets a link up and notes whose it is.
func raised(name, alias string) *Request {
	r := newRequest("set "+name+" up", unix.RTM_SETLINK, 0)
	r.link(unix.AF_UNSPEC, 0, unix.IFF_UP, unix.IFF_UP)
	r.text(unix.IFLA_IFNAME, name)
	r.attr(unix.IFLA_IFALIAS, []byte(alias))
	return r
}
