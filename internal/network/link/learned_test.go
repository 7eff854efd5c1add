package link

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// remembered is how many hardware addresses a bridge has learned.
func remembered(t *testing.T, c *Conn, name string) int {
	t.Helper()
	r := newRequest("look at link "+name, unix.RTM_GETLINK, 0)
	r.link(unix.AF_UNSPEC, 0, 0, 0)
	r.text(unix.IFLA_IFNAME, name)
	answers, err := c.exchange([]*Request{r})
	if err != nil || len(answers) == 0 {
		t.Fatalf("%v, %d answers", err, len(answers))
	}
	n := -1
	within := func(b []byte, wanted uint16) []byte {
		for kind, value := range attributes(b) {
			if kind == wanted {
				return value
			}
		}
		return nil
	}
	if v := within(within(within(answers[0][unix.SizeofIfInfomsg:], unix.IFLA_LINKINFO), unix.IFLA_INFO_DATA), unix.IFLA_BR_FDB_N_LEARNED); len(v) == 4 {
		n = int(binary.NativeEndian.Uint32(v))
	}
	return n
}

// TestInventedAddressesAreBounded: who sends frames from ever new hardware addresses does not take the host's memory.
func TestInventedAddressesAreBounded(t *testing.T) {
	c := dial(t)
	index := bridge(t, c, "br2", netip.MustParsePrefix("10.3.0.1/24"))
	ns := namespace(t)
	home, err := Home()
	if err != nil {
		t.Fatal(err)
	}
	defer home.Close()
	const frames = 2 * learned
	err = Inside(ns, home, func() error {
		if err := (Pair{Host: "liar", Inside: "eth0", Bridge: index, Namespace: ns, MTU: 1500}).Add(c); err != nil {
			return err
		}
		inner, err := Dial()
		if err != nil {
			return err
		}
		defer inner.Close()
		if err := Configure(inner, []Interface{{Name: "eth0"}}); err != nil {
			return err
		}
		eth0, err := inner.Index("eth0")
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		frame := make([]byte, 60)
		copy(frame, []byte{2, 0, 0, 0, 0, 1, 2})
		frame[12], frame[13] = 0x88, 0xb5 // for experiments (IEEE 802)
		for i := range uint32(frames) {
			binary.BigEndian.PutUint32(frame[8:], i)
			if err := unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: eth0}); err != nil && err != unix.ENOBUFS {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if n := remembered(t, c, "br2"); n > learned || n < learned/2 {
		t.Errorf("of %d invented addresses the bridge remembers %d, %d are the most", frames, n, learned)
	}
}
