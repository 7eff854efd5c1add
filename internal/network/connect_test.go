package network

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/network"
)

func TestConnectAndDisconnect(t *testing.T) {
	far := outside(t)
	far.serve(80, "far")
	s := open(t)
	mustCreate(t, s, network.CreateRequest{Name: "one", IPAM: &network.IPAM{Config: []network.IPAMConfig{{Subnet: netip.MustParsePrefix("10.7.0.0/24")}}}})
	a, b := newBox(t), newBox(t)
	b.attach(s, AllocateRequest{Name: "b", Networks: map[string]*network.EndpointSettings{"one": {}}})
	a.attach(s, AllocateRequest{Name: "a", Ports: portMap("|28080|8080/tcp")})
	defer a.release(s)
	defer b.release(s)
	a.serve(8080, "a")
	b.serve(8080, "b")
	request := AllocateRequest{ContainerID: a.id, Name: "a"}
	got, err := s.Connect(t.Context(), "one", request, &network.EndpointSettings{
		Aliases: []string{"alias"}, MacAddress: network.HardwareAddr{2, 0, 0, 0, 0, 9},
		IPAMConfig: &network.EndpointIPAMConfig{IPv4Address: netip.MustParseAddr("10.7.0.77")},
	}, a.netns)
	if err != nil {
		t.Fatal(err)
	}
	if got.IPAddress.String() != "10.7.0.77" || got.MacAddress.String() != "02:00:00:00:00:09" || got.IPPrefixLen != 24 {
		t.Errorf("settings: %+v", got)
	}
	if out := a.mustRun("ip", "-o", "addr", "show", "eth1"); !strings.Contains(out, "10.7.0.77/24") {
		t.Errorf("eth1: %s", out)
	}
	if out, err := a.get("10.7.0.2:8080"); err != nil || out != "b" {
		t.Errorf("over the second network: %q, %v", out, err)
	}
	if found := a.find("b") + " " + b.find("alias"); found != "10.7.0.2 10.7.0.77" {
		t.Errorf("names: %s", found)
	}
	if live, ok := s.Live(a.id); !ok || !strings.Contains(string(live.ResolvConf), "127.0.0.11") || !strings.Contains(string(live.Hosts), "10.7.0.77") {
		t.Errorf("files after the connection: %+v", live)
	}
	if _, err := s.Connect(t.Context(), "one", request, nil, a.netns); !errdefs.IsPermissionDenied(err) {
		t.Errorf("connected twice: %v", err)
	}
	if _, err := s.Connect(t.Context(), "host", request, nil, a.netns); !errdefs.IsInvalidArgument(err) {
		t.Errorf("connected to the host: %v", err)
	}

	// The first network goes: the way out and the published port move to the second one.
	if err := s.Disconnect(t.Context(), "bridge", a.id, a.netns); err != nil {
		t.Fatal(err)
	}
	if out, err := a.run("ip", "link", "show", "eth0"); err == nil {
		t.Errorf("eth0 is still there: %s", out)
	}
	if out, err := a.get("192.0.2.9"); err != nil || out != "far" {
		t.Errorf("the way out over the second network: %q, %v", out, err)
	}
	if out, err := get("127.0.0.1:28080"); err != nil || out != "a" {
		t.Errorf("the published port over the second network: %q, %v", out, err)
	}
	if err := s.Disconnect(t.Context(), "bridge", a.id, a.netns); err == nil {
		t.Error("disconnected twice")
	}
	if err := s.Disconnect(t.Context(), "one", a.id, a.netns); err != nil {
		t.Fatal(err)
	}
	if out, err := a.get("10.7.0.2:8080"); err == nil {
		t.Errorf("without a network: %q", out)
	}
	if strings.HasPrefix(b.find("alias"), "10.") {
		t.Error("the alias is still known")
	}
	// And back on the first one, under the first name of an interface.
	if _, err := s.Connect(t.Context(), "bridge", request, nil, a.netns); err != nil {
		t.Fatal(err)
	}
	if out, err := get("127.0.0.1:28080"); err != nil || out != "a" {
		t.Errorf("the published port after coming back: %q, %v", out, err)
	}
}

func TestWayOutByPriority(t *testing.T) {
	s := open(t)
	for _, name := range []string{"alpha", "beta", "gamma"} {
		mustCreate(t, s, network.CreateRequest{Name: name, Internal: name == "alpha"})
	}
	a := newBox(t)
	got := a.attach(s, AllocateRequest{First: "beta", Networks: map[string]*network.EndpointSettings{"alpha": {}, "beta": {}, "gamma": {GwPriority: 5}}})
	defer a.release(s)
	if out := a.mustRun("ip", "route", "show", "default"); !strings.Contains(out, "via "+got.Networks["gamma"].Gateway.String()+" dev eth2") || strings.Count(out, "default") != 1 {
		t.Errorf("the way out: %s", out)
	}
	for i, name := range []string{"beta", "alpha", "gamma"} {
		if out := a.mustRun("ip", "-o", "-4", "addr", "show", "eth"+string(rune('0'+i))); !strings.Contains(out, got.Networks[name].IPAddress.String()+"/") {
			t.Errorf("eth%d is not on %s: %s", i, name, out)
		}
	}
}

func TestStaticAddressComesBack(t *testing.T) {
	s := open(t)
	mustCreate(t, s, network.CreateRequest{Name: "one", IPAM: &network.IPAM{Config: []network.IPAMConfig{{Subnet: netip.MustParsePrefix("10.7.0.0/24")}}}})
	fixed := map[string]*network.EndpointSettings{"one": {IPAMConfig: &network.EndpointIPAMConfig{IPv4Address: netip.MustParseAddr("10.7.0.5")}}}
	for range 5 { // each time the last one's interface is only just on its way out
		a := newBox(t)
		a.attach(s, AllocateRequest{Networks: fixed})
		if _, err := s.Allocate(t.Context(), AllocateRequest{ContainerID: newID(), Name: "x", Networks: fixed}); !errdefs.IsConflict(err) {
			t.Fatalf("an address was given out twice: %v", err)
		}
		a.release(s)
	}
}

func TestIsolatedPorts(t *testing.T) {
	s := open(t)
	mustCreate(t, s, network.CreateRequest{Name: "quiet", Options: map[string]string{"com.docker.network.bridge.enable_icc": "false", "com.docker.network.driver.mtu": "1280"}})
	a, b := newBox(t), newBox(t)
	on := map[string]*network.EndpointSettings{"quiet": {}}
	a.attach(s, AllocateRequest{Networks: on})
	got := b.attach(s, AllocateRequest{Networks: on})
	defer a.release(s)
	defer b.release(s)
	b.serve(8080, "b")
	address := got.Networks["quiet"].IPAddress.String() + ":8080"
	if out, err := get(address); err != nil || out != "b" {
		t.Errorf("from the host: %q, %v", out, err)
	}
	if out, err := a.get(address); err == nil {
		t.Errorf("from a neighbour: %q", out)
	}
	if out := a.mustRun("ip", "link", "show", "eth0"); !strings.Contains(out, "mtu 1280") {
		t.Errorf("mtu: %s", out)
	}
}

func TestIPv6(t *testing.T) {
	far := outside(t)
	far.mustRun("ip", "addr", "add", "2001:db8::9/64", "dev", "eth0", "nodad")
	mustHost(t, "ip", "addr", "add", "2001:db8::1/64", "dev", "uplink0", "nodad")
	far.serve(80, "far")
	s := open(t)
	yes := true
	mustCreate(t, s, network.CreateRequest{Name: "six", EnableIPv6: &yes, IPAM: &network.IPAM{Config: []network.IPAMConfig{{Subnet: netip.MustParsePrefix("fd00:7::/64")}}}})
	a, b, c := newBox(t), newBox(t), newBox(t)
	on := map[string]*network.EndpointSettings{"six": {}}
	got := a.attach(s, AllocateRequest{Name: "a", Networks: on, Ports: portMap("|28080|8080/tcp")})
	b.attach(s, AllocateRequest{Name: "b", Networks: on})
	c.attach(s, AllocateRequest{Name: "c"})
	for _, x := range []*box{a, b, c} {
		defer x.release(s)
	}
	a.serve(8080, "a")
	e := got.Networks["six"]
	if e.GlobalIPv6Address.String() != "fd00:7::2" || e.GlobalIPv6PrefixLen != 64 || e.IPv6Gateway.String() != "fd00:7::1" || !e.IPAddress.Is4() {
		t.Errorf("endpoint: %+v", e)
	}
	if p := got.Ports[network.MustParsePort("8080/tcp")]; len(p) != 2 || p[0].HostIP.String() != "0.0.0.0" || p[1].HostIP.String() != "::" || p[1].HostPort != "28080" {
		t.Errorf("ports: %+v", p)
	}
	if out, err := b.get("[fd00:7::2]:8080"); err != nil || out != "a" {
		t.Errorf("neighbour: %q, %v", out, err)
	}
	if out, err := a.get("[2001:db8::9]"); err != nil || out != "far" {
		t.Errorf("the way out: %q, %v", out, err)
	}
	for name, get := range map[string]func(string) (string, error){"other host": far.get, "here": get, "neighbour": b.get, "itself": a.get} {
		if out, err := get("[2001:db8::1]:28080"); err != nil || out != "a" {
			t.Errorf("the published port from %s: %q, %v", name, out, err)
		}
	}
	if out, err := get("[::1]:28080"); err != nil || out != "a" {
		t.Errorf("the published port at ::1: %q, %v", out, err)
	}
	if _, err := s.Allocate(t.Context(), AllocateRequest{ContainerID: newID(), Networks: on, Ports: network.PortMap{network.MustParsePort("80/tcp"): {{HostIP: netip.IPv6Loopback(), HostPort: "28081"}}}}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("publishing at ::1: %v", err)
	}
	far.mustRun("ip", "route", "add", "fd00:7::/64", "via", "2001:db8::1")
	if out, err := far.get("[fd00:7::2]:8080"); err == nil {
		t.Errorf("an unpublished address from another host: %q", out)
	}
	if out := c.mustRun("cat", "/proc/net/if_inet6"); strings.Contains(out, "eth0") {
		t.Errorf("IPv6 on a network without: %s", out)
	}
}

func TestOnlyIPv6(t *testing.T) {
	s := open(t)
	yes, no := true, false
	mustCreate(t, s, network.CreateRequest{Name: "six", EnableIPv4: &no, EnableIPv6: &yes})
	a, b := newBox(t), newBox(t)
	on := map[string]*network.EndpointSettings{"six": {}}
	got := a.attach(s, AllocateRequest{Name: "a", Networks: on, Ports: portMap("|28080|8080/tcp")})
	b.attach(s, AllocateRequest{Name: "b", Networks: on})
	defer a.release(s)
	defer b.release(s)
	a.serve(8080, "a")
	e := got.Networks["six"]
	if e.IPAddress.IsValid() || !e.GlobalIPv6Address.IsValid() || !strings.HasPrefix(e.GlobalIPv6Address.String(), "fd") {
		t.Errorf("endpoint: %+v", e)
	}
	if out, err := b.get("[" + e.IPv6Gateway.String() + "]:28080"); err != nil || out != "a" {
		t.Errorf("the published port: %q, %v", out, err)
	}
	if out := b.find("a"); out != "NOERROR" {
		t.Errorf("an IPv4 address: %s", out)
	}
}

// TestAskedMACs: containers that take over each other's IP addresses can reach each other, though one asks for the hardware address that the
// other one's IP address has or would have.
func TestAskedMACs(t *testing.T) {
	second := network.HardwareAddr{2, 0x42, 172, 17, 0, 3} // of the second IP address
	mine := network.HardwareAddr{2, 0, 0, 0, 0, 9}
	for _, r := range []struct{ first, second, third, others network.HardwareAddr }{
		{first: second},                             // the second one gets another
		{third: second},                             // is the second one's, so the third one gets its own
		{second: second, third: second},             // they asked for the same
		{first: mine, others: mine, second: second}, // nobody has it
	} {
		t.Run("", func(t *testing.T) {
			s := open(t)
			taken := map[string]bool{}
			attach := func(mac network.HardwareAddr) (*box, *network.EndpointSettings) {
				b := newBox(t)
				e := b.attach(s, onNetwork("bridge", network.EndpointSettings{MacAddress: mac})).Networks["bridge"]
				t.Cleanup(func() { b.release(s) })
				if len(e.MacAddress) != 6 || taken[e.MacAddress.String()] {
					t.Errorf("%v: %s is at %q, where another one is", r, e.IPAddress, e.MacAddress)
				}
				taken[e.MacAddress.String()] = true
				return b, e
			}
			a, at := attach(r.first)
			b, _ := attach(r.second)
			c, _ := attach(r.third)
			if r.others != nil && at.MacAddress.String() != r.others.String() {
				t.Errorf("asked for %s, got %s", r.others, at.MacAddress)
			}
			a.serve(8080, "a")
			for _, other := range []*box{b, c} {
				if out, err := other.get(at.IPAddress.String() + ":8080"); err != nil || out != "a" {
					t.Errorf("%v: the first container does not answer: %q, %v", r, out, err)
				}
			}
		})
	}
}
