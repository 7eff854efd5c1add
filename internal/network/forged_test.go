package network

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/network"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/network/link"
)

// datagram is a whole packet of UDP.
func datagram(from, to netip.AddrPort, text string) []byte {
	udp := binary.BigEndian.AppendUint16(nil, from.Port())
	udp = binary.BigEndian.AppendUint16(udp, to.Port())
	udp = binary.BigEndian.AppendUint16(udp, uint16(8+len(text)))
	udp = append(append(udp, 0, 0), text...)
	if from.Addr().Is4() { // the kernel fills in the header's sum; 0 is none for UDP
		head := []byte{0x45, 0, 0, byte(20 + len(udp)), 0, 1, 0, 0, 64, unix.IPPROTO_UDP, 0, 0}
		return append(append(append(head, from.Addr().AsSlice()...), to.Addr().AsSlice()...), udp...)
	}
	addresses := append(from.Addr().AsSlice(), to.Addr().AsSlice()...)
	sum := uint32(len(udp)) + unix.IPPROTO_UDP
	for all := append(append([]byte{}, addresses...), append(udp, make([]byte, len(udp)%2)...)...); len(all) > 0; all = all[2:] {
		sum += uint32(binary.BigEndian.Uint16(all))
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	binary.BigEndian.PutUint16(udp[6:], ^uint16(sum))
	return append(append([]byte{0x60, 0, 0, 0, 0, byte(len(udp)), unix.IPPROTO_UDP, 64}, addresses...), udp...)
}

// inside runs f on a thread in the box's namespace.
func (b *box) inside(f func() error) {
	b.t.Helper()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		b.t.Fatal(err)
	}
	defer home.Close()
	if err := link.Inside(b.netns, home, f); err != nil {
		b.t.Fatal(err)
	}
}

// forge sends a packet that says that it comes from somebody else.
func (b *box) forge(from, to netip.AddrPort, text string) {
	b.t.Helper()
	b.inside(func() error {
		family, at := unix.AF_INET, unix.Sockaddr(&unix.SockaddrInet4{Addr: [4]byte(to.Addr().AsSlice()[:4])})
		if to.Addr().Is6() {
			family, at = unix.AF_INET6, &unix.SockaddrInet6{Addr: to.Addr().As16()}
		}
		fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Sendto(fd, datagram(from, to, text), 0, at)
	})
}

// listen is a socket in the box's namespace; the host's where b is nil. It ends with the test.
func listen(t *testing.T, b *box, at string) *net.UDPConn {
	t.Helper()
	var c *net.UDPConn
	open := func() (err error) {
		c, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(at)))
		return err
	}
	if b != nil {
		b.inside(open)
	} else if err := open(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// heard is all that comes until the word "last" does, each with the address that it seems to come from.
func heard(t *testing.T, c *net.UDPConn) string {
	t.Helper()
	var out []string
	buf := make([]byte, 100)
	for {
		c.SetReadDeadline(time.Now().Add(5 * time.Second))
		n, _, err := c.ReadFromUDPAddrPort(buf)
		if err != nil {
			t.Fatalf("after %q: %v", out, err)
		}
		if string(buf[:n]) == "last" {
			return strings.Join(out, " ")
		}
		out = append(out, string(buf[:n]))
	}
}

// TestForgedSources: what a container sends under an address that is not behind its bridge reaches neither the host, nor other machines, nor, as an answer that
// was waited for, containers of other networks.
func TestForgedSources(t *testing.T) {
	far := outside(t)
	s := open(t)
	for _, name := range []string{"one", "two"} {
		mustCreate(t, s, network.CreateRequest{Name: name, EnableIPv6: new(true)})
	}
	liar, victim, twin := newBox(t), newBox(t), newBox(t)
	own := liar.attach(s, onNetwork("one", network.EndpointSettings{})).Networks["one"]
	others := victim.attach(s, onNetwork("two", network.EndpointSettings{})).Networks["two"]
	beside := twin.attach(s, onNetwork("one", network.EndpointSettings{})).Networks["one"]
	for _, b := range []*box{liar, victim, twin} {
		defer b.release(s)
	}
	at := func(a netip.Addr, port uint16) netip.AddrPort { return netip.AddrPortFrom(a, port) }
	farAddress, hostAddress := netip.MustParseAddr("192.0.2.9"), netip.MustParseAddr("192.0.2.1")
	nobody, nobody6 := netip.MustParseAddr("8.8.8.8"), netip.MustParseAddr("2001:db8::8")

	for name, row := range map[string]struct {
		c  *net.UDPConn
		to netip.AddrPort
	}{
		"the host":        {listen(t, nil, "192.0.2.1:5300"), at(hostAddress, 5300)},
		"its gateway":     {listen(t, nil, own.Gateway.String()+":5301"), at(own.Gateway, 5301)},
		"another machine": {listen(t, far, "192.0.2.9:5302"), at(farAddress, 5302)},
	} {
		for text, from := range map[string]netip.Addr{"forged-nobody": nobody, "forged-machine": farAddress, "forged-neighbour": others.IPAddress} {
			liar.forge(at(from, 1), row.to, text)
		}
		liar.forge(at(own.IPAddress, 1), row.to, "own")
		liar.forge(at(own.IPAddress, 1), row.to, "last")
		if got := heard(t, row.c); got != "own" {
			t.Errorf("%s hears %q", name, got)
		}
	}
	gateway6 := listen(t, nil, at(own.IPv6Gateway, 5303).String())
	for text, from := range map[string]netip.Addr{"forged-nobody": nobody6, "forged-neighbour": others.GlobalIPv6Address} {
		liar.forge(at(from, 1), at(own.IPv6Gateway, 5303), text)
	}
	liar.forge(at(own.GlobalIPv6Address, 1), at(own.IPv6Gateway, 5303), "last")
	if got := heard(t, gateway6); got != "" {
		t.Errorf("the host hears by IPv6 %q", got)
	}

	server := listen(t, far, "192.0.2.9:5304")
	asks := listen(t, victim, "0.0.0.0:5305")
	if _, err := asks.WriteToUDPAddrPort([]byte("question"), at(farAddress, 5304)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	server.SetReadDeadline(time.Now().Add(5 * time.Second))
	_, asker, err := server.ReadFromUDPAddrPort(buf)
	if err != nil {
		t.Fatal(err)
	}
	liar.forge(at(farAddress, 5304), asker, "forged-answer")
	if _, err := server.WriteToUDPAddrPort([]byte("last"), asker); err != nil {
		t.Fatal(err)
	}
	if got := heard(t, asks); got != "" {
		t.Errorf("a container of another network hears %q", got)
	}
	// Within a network containers are as machines on one wire.
	wire := listen(t, twin, "0.0.0.0:5306")
	liar.forge(at(nobody, 1), at(beside.IPAddress, 5306), "last")
	heard(t, wire)
}

// TestAnswersByAnotherWay: a container that others reach at its own address answers by its way out, which leads through another network.
func TestAnswersByAnotherWay(t *testing.T) {
	far := outside(t)
	far.mustRun("ip", "route", "add", "172.16.0.0/12", "via", "192.0.2.1")
	s := open(t)
	mustCreate(t, s, network.CreateRequest{Name: "nat"})
	for name, options := range map[string]string{"open": "bridge.gateway_mode_ipv4=nat-unprotected", "routed": "bridge.gateway_mode_ipv4=routed"} {
		mustCreate(t, s, network.CreateRequest{Name: name, Options: bridgeOptions(options)})
		a := newBox(t)
		got := a.attach(s, AllocateRequest{Ports: portMap("|28080|8080/tcp"), Networks: map[string]*network.EndpointSettings{"nat": {GwPriority: 1}, name: {}}})
		a.serve(8080, "a")
		if answer, err := far.get(got.Networks[name].IPAddress.String() + ":8080"); err != nil || answer != "a" {
			t.Errorf("%s: %q, %v", name, answer, err)
		}
		a.release(s)
	}
}

// TestConnectionsGoOn: those that a container has go on when it gets another way out, in this life of the engine and in the next one.
func TestConnectionsGoOn(t *testing.T) {
	far := outside(t)
	s := open(t)
	for _, name := range []string{"one", "another", "aaa"} {
		mustCreate(t, s, network.CreateRequest{Name: name, EnableIPv6: new(true)})
	}
	a := newBox(t)
	a.attach(s, AllocateRequest{Ports: portMap("|28080|8080/tcp"), Networks: map[string]*network.EndpointSettings{"one": {}}})
	ends := map[string][2]net.Conn{}
	join := func(what, network, to string, asks, answers *box, port string) {
		l := listenStream(t, answers, port)
		var c net.Conn
		asks.inside(func() (err error) {
			c, err = net.DialTimeout(network, to, 5*time.Second)
			return err
		})
		d, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close(); d.Close(); l.Close() })
		ends[what] = [2]net.Conn{c, d}
	}
	join("from outside", "tcp4", "192.0.2.1:28080", far, a, ":8080")
	join("to the outside", "tcp4", "192.0.2.9:5400", a, far, ":5400")
	goOn := func(when string) {
		t.Helper()
		for what, pair := range ends {
			for i, c := range pair {
				buf := make([]byte, 10)
				pair[1-i].SetReadDeadline(time.Now().Add(3 * time.Second))
				if _, err := c.Write([]byte("x")); err != nil {
					t.Fatal(err)
				}
				if _, err := pair[1-i].Read(buf); err != nil {
					t.Errorf("%s: a connection %s: %v", when, what, err)
				}
			}
		}
	}
	goOn("at first")
	if _, err := s.Connect(t.Context(), "another", AllocateRequest{ContainerID: a.id, Name: "a"}, nil, a.netns); err != nil {
		t.Fatal(err)
	}
	if out := a.mustRun("ip", "route", "show", "default"); !strings.Contains(out, "dev eth1") {
		t.Errorf("the way out is the old one: %s", out)
	}
	goOn("with another way out")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	a.mustRun("ip", "route", "del", "default") // as if it had been killed before it set it
	s = reopen(t, s.o)
	goOn("in the next life")
	if _, err := s.Connect(t.Context(), "aaa", AllocateRequest{ContainerID: a.id, Name: "a"}, nil, a.netns); err != nil {
		t.Fatal(err)
	}
	if err := s.Disconnect(t.Context(), "another", a.id, a.netns); err != nil {
		t.Fatal(err)
	}
	goOn("with a third one")
	if !s.fire.Whole() {
		t.Error("the table is not whole")
	}
	a.release(s)
	if out, err := exec.Command("nft", "list", "table", "inet", s.names.table).CombinedOutput(); err != nil || strings.Contains(string(out), "172.19.0.2 }") || !s.fire.Whole() {
		t.Errorf("after the release: %v: %s", err, out)
	}
}

// listenStream listens inside a box.
func listenStream(t *testing.T, b *box, at string) (l net.Listener) {
	t.Helper()
	b.inside(func() (err error) {
		l, err = net.Listen("tcp4", at)
		return err
	})
	return l
}

// TestGatewayIsNoWayAround: containers that do not reach each other on their network do not by the host's forwarding either.
func TestGatewayIsNoWayAround(t *testing.T) {
	s := open(t)
	mustCreate(t, s, network.CreateRequest{Name: "apart", EnableIPv6: new(true), Options: bridgeOptions("bridge.enable_icc=false")})
	liar, victim := newBox(t), newBox(t)
	own := liar.attach(s, onNetwork("apart", network.EndpointSettings{})).Networks["apart"]
	others := victim.attach(s, onNetwork("apart", network.EndpointSettings{})).Networks["apart"]
	defer liar.release(s)
	defer victim.release(s)
	for _, row := range []struct{ from, to, via netip.Addr }{
		{own.IPAddress, others.IPAddress, own.Gateway}, {own.GlobalIPv6Address, others.GlobalIPv6Address, own.IPv6Gateway},
	} {
		liar.mustRun("ip", "route", "add", row.to.String(), "via", row.via.String())
		c := listen(t, victim, netip.AddrPortFrom(row.to, 5300).String())
		liar.forge(netip.AddrPortFrom(row.from, 1), netip.AddrPortFrom(row.to, 5300), "around")
		sender, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(row.to, 5300)))
		if err != nil {
			t.Fatal(err)
		}
		sender.Write([]byte("last")) // from the host, after it
		if got := heard(t, c); got != "" {
			t.Errorf("%s hears %q", row.to, got)
		}
		sender.Close()
	}
}

// TestInternalIsInternal: a container on an internal network reaches the host at its gateway, and at none of its other addresses.
func TestInternalIsInternal(t *testing.T) {
	outside(t)
	s := open(t)
	mustCreate(t, s, network.CreateRequest{Name: "inner", Internal: true, EnableIPv6: new(true)})
	mustCreate(t, s, network.CreateRequest{Name: "other", EnableIPv6: new(true)})
	liar, b := newBox(t), newBox(t)
	liar.attach(s, onNetwork("inner", network.EndpointSettings{}))
	other := b.attach(s, onNetwork("other", network.EndpointSettings{})).Networks["other"]
	defer liar.release(s)
	defer b.release(s)
	n, err := s.find("inner")
	if err != nil {
		t.Fatal(err)
	}
	for gateway, elsewhere := range map[netip.Addr]netip.Addr{n.v4.gateway: netip.MustParseAddr("192.0.2.1"), n.v6.gateway: other.IPv6Gateway} {
		liar.mustRun("ip", "route", "add", "default", "via", gateway.String())
		c := listen(t, nil, "[::]:5300")
		liar.say(elsewhere, "elsewhere")
		liar.say(gateway, "last")
		if got := heard(t, c); got != "" {
			t.Errorf("the host hears %q", got)
		}
		c.Close()
	}
}

// say sends a datagram to port 5300.
func (b *box) say(to netip.Addr, text string) {
	b.t.Helper()
	b.inside(func() error {
		c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, 5300)))
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write([]byte(text))
		return err
	})
}
