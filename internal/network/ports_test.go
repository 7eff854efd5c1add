package network

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/network"
	"golang.org/x/sys/unix"
)

func (s *Service) tryPorts(t *testing.T, ports network.PortMap) (*Allocation, string, error) {
	t.Helper()
	id := newID()
	a, err := s.Allocate(t.Context(), AllocateRequest{ContainerID: id, Name: "box-" + id[:6], Networks: map[string]*network.EndpointSettings{"bridge": {}}, Ports: ports})
	return a, id, err
}

func TestPortConflicts(t *testing.T) {
	s := open(t)
	tcp, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	udp, err := net.ListenPacket("udp", "[::]:0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	for _, row := range []string{
		fmt.Sprintf("|%d|80/tcp", tcp.Addr().(*net.TCPAddr).Port),
		fmt.Sprintf("127.0.0.1|%d|80/tcp", tcp.Addr().(*net.TCPAddr).Port),
		fmt.Sprintf("|%d|80/udp", udp.LocalAddr().(*net.UDPAddr).Port),
	} {
		_, _, err := s.tryPorts(t, portMap(row))
		if !errdefs.IsConflict(err) || !strings.Contains(err.Error(), "port is already allocated") || !strings.Contains(err.Error(), fmt.Sprintf("(pid %d)", os.Getpid())) {
			t.Errorf("%s: %v", row, err)
		}
	}
	if _, _, err := s.tryPorts(t, portMap("127.0.0.2|"+fmt.Sprint(tcp.Addr().(*net.TCPAddr).Port)+"|80/tcp")); err != nil {
		t.Errorf("another address with the same port: %v", err)
	}
	if _, _, err := s.tryPorts(t, portMap("192.0.2.77|28080|80/tcp")); !errdefs.IsInvalidArgument(err) {
		t.Errorf("an address that the host has not: %v", err)
	}
	_, id, err := s.tryPorts(t, portMap("|28080|80/tcp", "|28081|81/tcp"))
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = s.tryPorts(t, portMap("|28099|80/tcp", "|28081|80/tcp"))
	if !errdefs.IsConflict(err) || !strings.Contains(err.Error(), "Bind for 0.0.0.0:28081 failed: port is already allocated: container box-"+id[:6]+" has it") {
		t.Errorf("another container's port: %v", err)
	}
	if _, err := net.Listen("tcp", ":28080"); err == nil {
		t.Error("the host took a published port")
	}
	if l, err := net.Listen("tcp", ":28099"); err != nil {
		t.Errorf("what failed kept a port: %v", err)
	} else {
		l.Close()
	}
	if err := s.Release(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if l, err := net.Listen("tcp", ":28080"); err != nil {
		t.Errorf("after the release: %v", err)
	} else {
		l.Close()
	}
}

// TestPortOfSCTP is published once, also where the kernel has no sockets of SCTP that could stand in the way.
func TestPortOfSCTP(t *testing.T) {
	s := open(t)
	_, id, err := s.tryPorts(t, portMap("|28055|5555/sctp"))
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		ports string
		taken bool
	}{{"|28055|6666/sctp", true}, {"127.0.0.1|28055|5555/sctp", true}, {"|28055|5555/udp", false}, {"|28056|5555/sctp", false}} {
		_, other, err := s.tryPorts(t, portMap(row.ports))
		if taken := err != nil; taken != row.taken || taken && (!errdefs.IsConflict(err) || !strings.Contains(err.Error(), "has it: stop that")) {
			t.Errorf("%s: %v", row.ports, err)
		}
		if err == nil {
			err = s.Release(t.Context(), other)
		}
		if err != nil && !row.taken {
			t.Error(err)
		}
	}
	if _, _, err := s.tryPorts(t, portMap("|28057|5555/sctp", "|28057|6666/sctp")); !errdefs.IsConflict(err) {
		t.Errorf("twice in one container: %v", err)
	}
	if err := s.Release(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.tryPorts(t, portMap("|28055|6666/sctp")); err != nil {
		t.Errorf("after the release: %v", err)
	}
}

// TestPortHeldByAFork: a socket that a child of the engine has for a moment longer, and that nothing lists, is waited for.
func TestPortHeldByAFork(t *testing.T) {
	s := open(t)
	ports := portMap("|28085|80/tcp")
	_, id, err := s.tryPorts(t, ports)
	if err != nil {
		t.Fatal(err)
	}
	copied, err := unix.Dup(s.holdings[id].Reserved[0].fd) // as a fork does
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Release(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if l, err := net.Listen("tcp4", ":28085"); err == nil {
		l.Close()
		t.Error("the copy does not hold the port")
	}
	closed := make(chan error, 1)
	time.AfterFunc(3*portPause, func() { closed <- unix.Close(copied) })
	if _, _, err := s.tryPorts(t, ports); err != nil {
		t.Error(err)
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
}

// TestPortLeftByAServer: connections of a server that has just ended linger, its port is free all the same.
func TestPortLeftByAServer(t *testing.T) {
	s := open(t)
	l, err := net.Listen("tcp4", "127.0.0.1:28077")
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp4", "127.0.0.1:28077")
	if err != nil {
		t.Fatal(err)
	}
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	server.Close() // the side that closes first lingers
	bufio.NewReader(c).ReadByte()
	c.Close()
	l.Close()
	if _, _, err := s.tryPorts(t, portMap("|28077|80/tcp")); err != nil {
		t.Error(err)
	}
}

func TestChosenPorts(t *testing.T) {
	s := open(t)
	a, _, err := s.tryPorts(t, portMap("|28000-28002|80/tcp"))
	if err != nil || a.Ports[network.MustParsePort("80/tcp")][0].HostPort != "28000" {
		t.Fatalf("the first of a range: %v, %v", a, err)
	}
	b, _, err := s.tryPorts(t, portMap("|28000-28002|80/tcp", "|28001|81/tcp"))
	if err != nil || b.Ports[network.MustParsePort("80/tcp")][0].HostPort != "28002" {
		t.Fatalf("the free one of a range: %v, %v", b, err)
	}
	if _, _, err := s.tryPorts(t, portMap("|28000-28002|80/tcp")); !errdefs.IsConflict(err) {
		t.Errorf("a range without a free one: %v", err)
	}
	for _, bad := range []string{"x", "70000", "3-2", "-1"} {
		if _, _, err := s.tryPorts(t, portMap("|"+bad+"|80/tcp")); !errdefs.IsInvalidArgument(err) {
			t.Errorf("host port %q: %v", bad, err)
		}
	}
	exposed := network.PortSet{network.MustParsePort("90/tcp"): {}, network.MustParsePort("91/udp"): {}}
	for _, all := range []bool{false, true} {
		c, err := s.Allocate(t.Context(), AllocateRequest{ContainerID: newID(), Networks: map[string]*network.EndpointSettings{"bridge": {}}, Exposed: exposed, PublishAll: all})
		if err != nil || len(c.Ports) != 2 {
			t.Fatalf("exposed ports: %+v, %v", c, err)
		}
		for p, bindings := range c.Ports {
			if all != (len(bindings) == 1 && bindings[0].HostPort != "" && bindings[0].HostIP == netip.IPv4Unspecified()) {
				t.Errorf("publish all %t: %s is %v", all, p, bindings)
			}
		}
	}
}

func TestHostBinding(t *testing.T) {
	s := open(t)
	mustCreate(t, s, network.CreateRequest{Name: "local", Options: map[string]string{"com.docker.network.bridge.host_binding_ipv4": "127.0.0.1"}})
	a, err := s.Allocate(t.Context(), AllocateRequest{ContainerID: newID(), Networks: map[string]*network.EndpointSettings{"local": {}}, Ports: portMap("|28080|80/tcp")})
	if err != nil || a.Ports[network.MustParsePort("80/tcp")][0].HostIP.String() != "127.0.0.1" {
		t.Errorf("%+v, %v", a, err)
	}
	for name, four := range map[string]bool{"both": true, "six": false} {
		mustCreate(t, s, network.CreateRequest{Name: name, EnableIPv4: &four, EnableIPv6: new(true), Options: map[string]string{"com.docker.network.bridge.host_binding_ipv4": "127.0.0.1"}})
		a, err := s.Allocate(t.Context(), AllocateRequest{ContainerID: newID(), Networks: map[string]*network.EndpointSettings{name: {}}, Ports: portMap("|28081|80/tcp")})
		if err != nil {
			t.Fatal(err)
		}
		want := ""
		if four {
			want = "127.0.0.1 "
		}
		got := ""
		for _, b := range a.Ports[network.MustParsePort("80/tcp")] {
			got += b.HostIP.String() + " "
		}
		if got != want { // never on [::], which is everybody's
			t.Errorf("network %s publishes on %q, not on %q", name, got, want)
		}
	}
}

func TestUDPThroughLoopback(t *testing.T) {
	s := open(t)
	a := newBox(t)
	a.attach(s, AllocateRequest{Ports: portMap("|28053|9053/udp")})
	defer a.release(s)
	server := a.command("python3", "-c", upper)
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { server.Process.Kill(); server.Wait() }()
	eventually(t, func() error {
		c, err := net.Dial("udp4", "127.0.0.1:28053")
		if err != nil {
			return err
		}
		defer c.Close()
		return echo(c)
	})
}

func echo(c net.Conn) error {
	if err := c.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	asked := fmt.Sprintf("ping %d", time.Now().UnixNano())
	if _, err := c.Write([]byte(asked)); err != nil {
		return err
	}
	b := make([]byte, 64)
	for {
		n, err := c.Read(b)
		if err != nil || string(b[:n]) == strings.ToUpper(asked) {
			return err
		}
		if !strings.HasPrefix(string(b[:n]), "PING ") { // else a late answer to an earlier question
			return fmt.Errorf("the answer is %q", b[:n])
		}
	}
}

func FuzzKernelAddress(f *testing.F) {
	f.Add("0100007F", "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1234 1")
	f.Add("00000000000000000000000001000000", "x")
	f.Fuzz(func(t *testing.T, address, line string) {
		kernelAddress(address)
		socketsAt(bufio.NewScanner(strings.NewReader(line)), netip.MustParseAddrPort("127.0.0.1:8080"), network.TCP)
	})
}

func FuzzResolvConf(f *testing.F) {
	f.Add("nameserver 1.1.1.1\nsearch a b\noptions x\n; comment\nnameserver fe80::1%eth0")
	f.Fuzz(func(t *testing.T, s string) {
		r := parseResolvConf([]byte(s))
		if again := parseResolvConf(r.format()); len(again.servers) != len(r.servers) {
			t.Errorf("%q has %v, written and read again %v", s, r.servers, again.servers)
		}
	})
}

func FuzzDefinition(f *testing.F) {
	f.Add([]byte(`{"Name":"a","Id":"x","Driver":"bridge","Bridge":"b","IPAM":{"Config":[{"Subnet":"10.0.0.0/24","Gateway":"10.0.0.1"}]}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if d, err := decodeDefinition(strings.Repeat("0", 64), b); err == nil {
			if _, err := newLan(d, nil); err != nil {
				t.Errorf("what was accepted makes no network: %v", err)
			}
		}
	})
}
