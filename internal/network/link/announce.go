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
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, int(protocol))
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
