package network

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/network"
)

// shownPorts are the host's addresses and ports of a running container's port 8080, as inspect has them.
func shownPorts(s *Service, id string) string {
	_, ports, _ := s.Endpoints(id)
	var out []string
	for _, b := range ports[network.MustParsePort("8080/tcp")] {
		out = append(out, netip.AddrPortFrom(b.HostIP, 0).Addr().String()+"|"+b.HostPort)
	}
	return strings.Join(out, " ")
}

// TestEachFamilyHasItsWayOut: a port is published on IPv4 through the network that leads out there, and on IPv6 through the one that does there.
func TestEachFamilyHasItsWayOut(t *testing.T) {
	s := open(t)
	mustCreate(t, s, network.CreateRequest{Name: "four"})
	mustCreate(t, s, network.CreateRequest{Name: "six", EnableIPv4: new(false), EnableIPv6: new(true)})
	a := newBox(t)
	got := a.attach(s, AllocateRequest{Ports: portMap("|28080|8080/tcp", "||9000/tcp"), Networks: map[string]*network.EndpointSettings{"four": {}, "six": {}}})
	defer a.release(s)
	a.serve(8080, "a")
	six := "[" + got.Networks["six"].IPv6Gateway.String() + "]:28080"
	check := func(what string, four bool, sixth bool) {
		t.Helper()
		for address, want := range map[string]bool{"127.0.0.1:28080": four, six: sixth} {
			if answer, err := get(address); (err == nil && answer == "a") != want {
				t.Errorf("%s: at %s: %q, %v", what, address, answer, err)
			}
		}
		var want []string
		if four {
			want = append(want, "0.0.0.0|28080")
		}
		if sixth {
			want = append(want, "::|28080")
		}
		if out := shownPorts(s, a.id); out != strings.Join(want, " ") {
			t.Errorf("%s: shown are %s", what, out)
		}
		if !s.fire.Whole() {
			t.Errorf("%s: the table is not whole", what)
		}
	}
	check("on both", true, true)
	free := got.Ports[network.MustParsePort("9000/tcp")]
	if len(free) != 2 || free[0].HostPort != free[1].HostPort {
		t.Errorf("a free port: %v", free)
	}
	if err := s.Disconnect(t.Context(), "six", a.id, a.netns); err != nil {
		t.Fatal(err)
	}
	check("without IPv6", true, false)
	r := AllocateRequest{ContainerID: a.id, Name: "a"}
	if _, err := s.Connect(t.Context(), "six", r, nil, a.netns); err != nil {
		t.Fatal(err)
	}
	check("with IPv6 again", true, true)
	_, ports, _ := s.Endpoints(a.id)
	if again := ports[network.MustParsePort("9000/tcp")]; fmt.Sprint(again) != fmt.Sprint(free) {
		t.Errorf("a free port is another one: %v after %v", again, free)
	}
	if err := s.Disconnect(t.Context(), "four", a.id, a.netns); err != nil {
		t.Fatal(err)
	}
	check("without IPv4", false, true)
}

// TestSendersFollow: who keeps sending datagrams to a published port reaches the container there where it is published now, on whatever network.
func TestSendersFollow(t *testing.T) {
	s := open(t)
	mustCreate(t, s, network.CreateRequest{Name: "one"})
	mustCreate(t, s, network.CreateRequest{Name: "two"})
	a := newBox(t)
	got := a.attach(s, AllocateRequest{Ports: portMap("|28053|9053/udp"), Networks: map[string]*network.EndpointSettings{"one": {}, "two": {}}})
	defer a.release(s)
	server := listen(t, a, "0.0.0.0:9053")
	sender, err := net.Dial("udp", net.JoinHostPort(got.Networks["two"].Gateway.String(), "28053"))
	if err != nil {
		t.Fatal(err)
	}
	defer sender.Close()
	arrives := func(when string) {
		t.Helper()
		buf := make([]byte, 100)
		eventually(t, func() error { // as somebody who does not give up, and so is never forgotten for his silence
			if _, err := sender.Write([]byte("question")); err != nil {
				return err
			}
			server.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
			if _, _, err := server.ReadFromUDPAddrPort(buf); err != nil {
				return fmt.Errorf("%s nothing arrives: %w", when, err)
			}
			return nil
		})
	}
	arrives("at first")
	if err := s.Disconnect(t.Context(), "one", a.id, a.netns); err != nil {
		t.Fatal(err)
	}
	arrives("by the other network")
	if err := s.Disconnect(t.Context(), "two", a.id, a.netns); err != nil {
		t.Fatal(err)
	}
	sender.Write([]byte("question")) // goes to the host itself, where nobody listens
	if _, err := s.Connect(t.Context(), "one", AllocateRequest{ContainerID: a.id, Name: "a"}, nil, a.netns); err != nil {
		t.Fatal(err)
	}
	arrives("by a new network")
}

// TestPortTakenAtConnect: a network that cannot be published through is not connected, and nothing has changed.
func TestPortTakenAtConnect(t *testing.T) {
	s := open(t)
	mustCreate(t, s, network.CreateRequest{Name: "six", EnableIPv4: new(false), EnableIPv6: new(true)})
	a, b := newBox(t), newBox(t)
	a.attach(s, AllocateRequest{Ports: portMap("|28080|8080/tcp")})
	b.attach(s, AllocateRequest{Name: "holder", Ports: portMap("|28080|8080/tcp"), Networks: map[string]*network.EndpointSettings{"six": {}}})
	defer func() { a.release(s); b.release(s) }()
	a.serve(8080, "a")
	_, err := s.Connect(t.Context(), "six", AllocateRequest{ContainerID: a.id, Name: "a"}, nil, a.netns)
	if err == nil || !strings.Contains(err.Error(), "container holder has it") {
		t.Errorf("the port is another container's: %v", err)
	}
	if out := shownPorts(s, a.id); out != "0.0.0.0|28080" {
		t.Errorf("shown are %s", out)
	}
	if answer, err := get("127.0.0.1:28080"); err != nil || answer != "a" {
		t.Errorf("the port on IPv4: %q, %v", answer, err)
	}
	b.release(s)
	if _, err := s.Connect(t.Context(), "six", AllocateRequest{ContainerID: a.id, Name: "a"}, nil, a.netns); err != nil {
		t.Errorf("the port is free: %v", err)
	}
}

// TestRoutedBesideTheWayOut: on a routed network a published port is reached at the container's own address, also where another one leads out.
func TestRoutedBesideTheWayOut(t *testing.T) {
	far := outside(t)
	far.mustRun("ip", "route", "add", "172.16.0.0/12", "via", "192.0.2.1")
	s := open(t)
	mustCreate(t, s, network.CreateRequest{Name: "nat"})
	mustCreate(t, s, network.CreateRequest{Name: "routed", Options: bridgeOptions("bridge.gateway_mode_ipv4=routed")})
	a := newBox(t)
	got := a.attach(s, AllocateRequest{Ports: portMap("|28080|8080/tcp"), Networks: map[string]*network.EndpointSettings{"nat": {GwPriority: 1}, "routed": {}}})
	defer a.release(s)
	a.serve(8080, "a")
	a.mustRun("ip", "route", "add", "192.0.2.0/24", "via", got.Networks["routed"].Gateway.String()) // answers go back as questions came
	direct := got.Networks["routed"].IPAddress.String() + ":8080"
	if answer, err := far.get(direct); err != nil || answer != "a" {
		t.Errorf("at its own address: %q, %v", answer, err)
	}
	if out := shownPorts(s, a.id); out != "0.0.0.0|28080" {
		t.Errorf("shown are %s", out)
	}
	if err := s.Disconnect(t.Context(), "nat", a.id, a.netns); err != nil {
		t.Fatal(err)
	}
	if out := shownPorts(s, a.id); out != "0.0.0.0|" {
		t.Errorf("on the routed network alone: shown are %s", out)
	}
}

// TestWithoutIPv6: who switches IPv6 off for a container has neither addresses nor ports of it.
func TestWithoutIPv6(t *testing.T) {
	s := open(t)
	mustCreate(t, s, network.CreateRequest{Name: "both", EnableIPv6: new(true)})
	for name, r := range map[string]AllocateRequest{
		"all":      {Sysctls: map[string]string{"net.ipv6.conf.all.disable_ipv6": "1"}, Networks: map[string]*network.EndpointSettings{"both": {}}},
		"endpoint": onNetwork("both", network.EndpointSettings{DriverOpts: map[string]string{"com.docker.network.endpoint.sysctls": "net.ipv6.conf.IFNAME.disable_ipv6=1"}}),
	} {
		a := newBox(t)
		if name == "all" {
			a.mustRun("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1") // as the runtime does
		}
		r.Ports = portMap("|28080|8080/tcp")
		got := a.attach(s, r).Networks["both"]
		if got.GlobalIPv6Address.IsValid() || got.GlobalIPv6PrefixLen != 0 || !got.IPAddress.IsValid() {
			t.Errorf("%s: %+v", name, got)
		}
		if out := a.mustRun("ip", "addr", "show", "eth0"); strings.Contains(out, "inet6") {
			t.Errorf("%s: it has an address: %s", name, out)
		}
		if out := shownPorts(s, a.id); out != "0.0.0.0|28080" {
			t.Errorf("%s: shown are %s", name, out)
		}
		a.release(s)
	}
}
