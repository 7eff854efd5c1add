package network

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/network"
)

// subnetsOf are a network's, with the gateways' addresses.
func subnetsOf(t *testing.T, s *Service, name string) (out []string) {
	t.Helper()
	n, err := s.Inspect(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range n.IPAM.Config {
		out = append(out, fmt.Sprintf("%s/%d", c.Gateway, c.Subnet.Bits()))
	}
	return out
}

// TestDefaultNetworkBySettings: addresses, IPv6 and options of the network bridge are the settings', as soon as nobody is on it; other bridge networks have those
// that they do not name.
func TestDefaultNetworkBySettings(t *testing.T) {
	s := open(t)
	before := subnetsOf(t, s, "bridge")
	if len(before) != 1 {
		t.Fatalf("without settings: %v", before)
	}
	a := newBox(t)
	a.attach(s, onNetwork("bridge", network.EndpointSettings{}))
	plain := s.o
	var told []string
	said := plain
	said.Log = func(err error) { told = append(told, err.Error()) }
	said.Defaults = Defaults{IPv6: true, Bridge: []string{"10.45.0.7/24", "fd00:45::/64"}, Range: []string{"10.45.0.64/26"}, Options: []string{"com.docker.network.driver.mtu=1400", "com.docker.network.bridge.host_binding_ipv4=127.0.0.1"}}

	s.Close()
	s = reopen(t, said)
	if got := subnetsOf(t, s, "bridge"); !slices.Equal(got, before) || len(told) != 1 || !strings.Contains(told[0], "containers are on it") {
		t.Errorf("with a container on it: %v, %q", got, told)
	}
	a.release(s)
	s.later.drain()
	s.Close()

	s = reopen(t, said)
	if got, want := subnetsOf(t, s, "bridge"), []string{"10.45.0.7/24", "fd00:45::1/64"}; !slices.Equal(got, want) {
		t.Errorf("by the settings: %v, not %v", got, want)
	}
	if n, _ := s.Inspect(t.Context(), "bridge"); !n.EnableIPv6 || n.Options["com.docker.network.driver.mtu"] != "1400" || n.Options["com.docker.network.bridge.enable_icc"] != "true" {
		t.Errorf("by the settings: %+v", n)
	}
	b := newBox(t)
	got := b.attach(s, AllocateRequest{Name: "b", Networks: map[string]*network.EndpointSettings{"bridge": {}}, Ports: network.PortMap{network.MustParsePort("80/tcp"): {{HostPort: "8045"}}}})
	if at := got.Networks["bridge"]; at.IPAddress != netip.MustParseAddr("10.45.0.64") || !at.GlobalIPv6Address.IsValid() {
		t.Errorf("a container's addresses: %+v", at)
	}
	if link := b.mustRun("ip", "-o", "link", "show", "eth0"); !strings.Contains(link, "mtu 1400") {
		t.Errorf("the interface: %s", link)
	}
	b.mustRun("busybox", "ping6", "-c1", "-W5", "fd00:45::1")
	b.serve(80, "hello")
	if p := got.Ports[network.MustParsePort("80/tcp")]; len(p) != 1 || p[0].HostIP != netip.MustParseAddr("127.0.0.1") {
		t.Errorf("published: %v", p)
	}
	mustCreate(t, s, network.CreateRequest{Name: "one"})
	mustCreate(t, s, network.CreateRequest{Name: "two", EnableIPv6: new(false), Options: bridgeOptions("driver.mtu=1300")})
	for name, want := range map[string]string{"one": "true 1400", "two": "false 1300"} {
		if n, _ := s.Inspect(t.Context(), name); fmt.Sprint(n.EnableIPv6, " ", n.Options["com.docker.network.driver.mtu"]) != want {
			t.Errorf("network %s: %+v, not %s", name, n, want)
		}
	}
	b.release(s)
	s.later.drain()
	s.Close()

	said.Defaults.Range = nil
	s = reopen(t, said)
	b = newBox(t)
	if at := b.attach(s, AllocateRequest{Name: "b"}).Networks["bridge"].IPAddress; at != netip.MustParseAddr("10.45.0.1") {
		t.Errorf("without a range: %s", at)
	}
	b.release(s)
	s.later.drain()
	s.Close()

	s = reopen(t, plain)
	if got := subnetsOf(t, s, "bridge"); len(got) != 1 || strings.HasPrefix(got[0], "10.45.") {
		t.Errorf("without the settings again: %v", got)
	}
	mustCreate(t, s, network.CreateRequest{Name: "in the way", IPAM: &network.IPAM{Config: []network.IPAMConfig{{Subnet: netip.MustParsePrefix("10.45.0.0/16")}}}})
	s.Close()
	told = nil
	s = reopen(t, said)
	if got := subnetsOf(t, s, "bridge"); len(got) != 1 || len(told) != 1 || !strings.Contains(told[0], "in the way has 10.45.0.0/16") {
		t.Errorf("with another network there: %v, %q", got, told)
	}
	for _, wrong := range []Defaults{{Options: []string{"com.docker.network.driver.mtu=3"}}, {Options: []string{"com.docker.network.enable_ipv6=perhaps"}}, {Bridge: []string{"10.45.0.1"}}, {Range: []string{"x"}}} {
		o := open(t).o
		o.Defaults = wrong
		if s, err := Open(t.Context(), o); err == nil || !strings.Contains(err.Error(), "setting network.") {
			t.Errorf("%+v: %v", wrong, err)
			if err == nil {
				s.Close()
			}
		}
	}
}

// TestResolversBySettings: containers that name no servers get those of the settings, not the host's.
func TestResolversBySettings(t *testing.T) {
	withResolvers(t, "nameserver 198.51.100.1\nsearch corp.example\n")
	o := open(t).o
	o.State += "2"
	o.Root += "2"
	o.Resolvers = Resolvers{Servers: []string{"203.0.113.53"}, Search: []string{"lab.example"}, Options: []string{"timeout:2"}}
	s := reopen(t, o)
	mustCreate(t, s, network.CreateRequest{Name: "one"})
	for name, row := range map[string]struct {
		r        AllocateRequest
		conf     string
		upstream string
	}{
		"the default network":  {AllocateRequest{}, "nameserver 203.0.113.53\nsearch lab.example\noptions timeout:2\n", ""},
		"the host's":           {AllocateRequest{Networks: map[string]*network.EndpointSettings{"host": {}}}, "nameserver 203.0.113.53\nsearch lab.example\noptions timeout:2\n", ""},
		"another network":      {AllocateRequest{Networks: map[string]*network.EndpointSettings{"one": {}}}, "nameserver 127.0.0.11\nsearch lab.example\noptions timeout:2 ndots:0\n", "203.0.113.53:53"},
		"with its own servers": {AllocateRequest{DNS: []string{"203.0.113.9"}, DNSSearch: []string{"."}}, "nameserver 203.0.113.9\noptions timeout:2\n", ""},
	} {
		if row.r.Networks == nil {
			row.r.Networks = map[string]*network.EndpointSettings{"bridge": {}}
		}
		row.r.ContainerID, row.r.Name = newID(), "c"
		a, err := s.Allocate(t.Context(), row.r)
		if err != nil {
			t.Fatal(err)
		}
		if string(a.ResolvConf) != row.conf {
			t.Errorf("%s: %q, not %q", name, a.ResolvConf, row.conf)
		}
		if up := (view{s}).Upstream(row.r.ContainerID); row.upstream != "" && fmt.Sprint(up) != "["+row.upstream+"]" {
			t.Errorf("%s: asked are %v", name, up)
		}
	}
}
