package link

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Announce tells everybody on an interface's link that an address is at a hardware address now, so that nobody goes on sending to who had it
// before: an ARP request for oneself (RFC 5227, section 3), or an unsolicited advertisement (RFC 4861, section 7.2.6). It runs on a thread in the interface's namespace.
func Announce(index int, a netip.Addr, mac net.HardwareAddr) error {
	err := announce4(index, a, mac)
	if a.Is6() {
		err = announce6(index, a, mac)
	}
	if err != nil {
		return fmt.Errorf("announce the address %s: %w", a, err)
	}
	return nil
}

func announce4(index int, a netip.Addr, mac net.HardwareAddr) error {
	if !a.Is4() {
		return nil
	}
	protocol := binary.NativeEndian.Uint16([]byte{unix.ETH_P_ARP >> 8, unix.ETH_P_ARP & 0xff})
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0) // to send only: one that receives is closed in tens of milliseconds
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	b := []byte{0, 1, 8, 0, 6, 4, 0, 1} // Ethernet, IPv4, their lengths, request
	b = append(append(b, mac...), a.AsSlice()...)
	b = append(append(b, make([]byte, 6)...), a.AsSlice()...)
	to := &unix.SockaddrLinklayer{Protocol: protocol, Ifindex: index, Halen: 6, Addr: [8]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}}
	return unix.Sendto(fd, b, 0, to)
}

func announce6(index int, a netip.Addr, mac net.HardwareAddr) error {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMPV6)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, 255); err != nil {
		return err
	}
	b := []byte{136, 0, 0, 0, 0x20, 0, 0, 0} // neighbour advertisement, checksum by the kernel, "override"
	b = append(append(b, a.AsSlice()...), 2, 1)
	to := &unix.SockaddrInet6{ZoneId: uint32(index), Addr: netip.MustParseAddr("ff02::1").As16()}
	return unix.Sendto(fd, append(b, mac...), 0, to)
}

// Neighbor tells the calling namespace of an address that is at a hardware address now, where it has asked for it on a link or knows another one. Who
// asks in vain waits for three seconds, and so does whatever is sent meanwhile: all of it fails then, though the address may be there for long.
func Neighbor(c *Conn, index int, mac net.HardwareAddr, addresses ...netip.Addr) error {
	var requests []*Request
	for _, a := range addresses {
		r := newRequest("note where "+a.String()+" is", unix.RTM_NEWNEIGH, unix.NLM_F_REPLACE) // what it does not know it asks for when it wants it
		r.b = append(r.b, family(a), 0, 0, 0)
		r.b = binary.NativeEndian.AppendUint32(r.b, uint32(index))
		r.b = binary.NativeEndian.AppendUint16(r.b, unix.NUD_STALE)
		r.b = append(r.b, 0, 0)
		r.attr(unix.NDA_DST, a.AsSlice())
		r.attr(unix.NDA_LLADDR, mac)
		r.Forgive(unix.ENOENT)
		if a.Is6() {
			r.Forgive(unix.EINVAL) // a link on which the caller has no IPv6: it can have asked for nobody
		}
		requests = append(requests, r)
	}
	return c.Do(requests...)
}
