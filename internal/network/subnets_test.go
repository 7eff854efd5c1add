package network

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/network"
)

func withSubnets(name, driver string, subnets ...string) network.CreateRequest {
	r := network.CreateRequest{Name: name, Driver: driver, IPAM: &network.IPAM{}}
	for _, s := range subnets {
		r.IPAM.Config = append(r.IPAM.Config, network.IPAMConfig{Subnet: netip.MustParsePrefix(s)})
	}
	return r
}

// TestSubnetsAreFreeAtOnce: the addresses of a network that was removed can be asked for again in the next moment.
func TestSubnetsAreFreeAtOnce(t *testing.T) {
	s := open(t)
	for range 5 {
		mustCreate(t, s, withSubnets("again", "bridge", "10.44.0.0/24"))
		if err := s.Remove(t.Context(), "again"); err != nil {
			t.Fatal(err)
		}
	}
}

// TestSeveralSubnets: a network on a link of the host's has several of one family, a bridge has not.
func TestSeveralSubnets(t *testing.T) {
	s := open(t)
	mustCreate(t, s, withSubnets("island", "macvlan", "10.45.0.0/30", "10.46.0.0/24"))
	first, second, named := newBox(t), newBox(t), newBox(t)
	at := func(b *box, e network.EndpointSettings) *network.EndpointSettings {
		return b.attach(s, onNetwork("island", e)).Networks["island"]
	}
	at(first, network.EndpointSettings{})
	if e := at(second, network.EndpointSettings{}); e.IPAddress.String() != "10.45.0.2" || e.IPPrefixLen != 30 {
		t.Errorf("the second address: %s/%d", e.IPAddress, e.IPPrefixLen)
	}
	wanted := network.EndpointSettings{IPAMConfig: &network.EndpointIPAMConfig{IPv4Address: netip.MustParseAddr("10.46.0.9")}}
	if e := at(named, wanted); e.IPAddress.String() != "10.46.0.9" || e.IPPrefixLen != 24 {
		t.Errorf("an address of the other subnet: %s/%d", e.IPAddress, e.IPPrefixLen)
	}
	if out := named.mustRun("ip", "-4", "addr", "show", "eth0"); !strings.Contains(out, "10.46.0.9/24") {
		t.Errorf("inside: %s", out)
	}
	third := newBox(t)
	if e := at(third, network.EndpointSettings{}); e.IPAddress.String() != "10.46.0.1" {
		t.Errorf("when the first subnet is full: %s", e.IPAddress)
	}
	n, err := s.Inspect(t.Context(), "island")
	if err != nil || len(n.Status.IPAM.Subnets) != 2 || n.Status.IPAM.Subnets[netip.MustParsePrefix("10.45.0.0/30")].DynamicIPsAvailable != 0 {
		t.Errorf("inspect: %+v, %v", n.Status, err)
	}
	third.release(s)
	s.later.drain()
	if e := at(newBox(t), network.EndpointSettings{}); e.IPAddress.String() != "10.46.0.1" {
		t.Errorf("what was given back: %s", e.IPAddress)
	}
	if _, err := s.Create(t.Context(), withSubnets("two", "bridge", "10.47.0.0/24", "10.48.0.0/24")); !errdefs.IsInvalidArgument(err) {
		t.Errorf("two subnets of a bridge: %v", err)
	}
	if _, err := s.Create(t.Context(), withSubnets("twice", "macvlan", "10.47.0.0/16", "10.47.8.0/24")); !errdefs.IsPermissionDenied(err) {
		t.Errorf("a subnet in another one of the same network: %v", err)
	}
}

// TestNetworkWithoutAddresses: containers have an interface, and whatever gives addresses there gives them theirs.
func TestNetworkWithoutAddresses(t *testing.T) {
	s := open(t)
	for _, driver := range []string{"macvlan", "bridge"} {
		r := withSubnets(driver+"0", driver)
		r.IPAM.Driver = "null"
		mustCreate(t, s, r)
		a, b := newBox(t), newBox(t)
		if e := a.attach(s, onNetwork(r.Name, network.EndpointSettings{})).Networks[r.Name]; e.IPAddress.IsValid() || len(e.MacAddress) == 0 {
			t.Errorf("%s: %+v", driver, e)
		}
		b.attach(s, onNetwork(r.Name, network.EndpointSettings{}))
		a.mustRun("ip", "addr", "add", "10.49.0.1/24", "dev", "eth0")
		b.mustRun("ip", "addr", "add", "10.49.0.2/24", "dev", "eth0")
		b.serve(8080, "b")
		if got, err := a.get("10.49.0.2:8080"); err != nil || got != "b" {
			t.Errorf("%s: addresses of their own: %q, %v", driver, got, err)
		}
		a.release(s)
		b.release(s)
	}
	bad := withSubnets("bad", "macvlan", "10.50.0.0/24")
	bad.IPAM.Driver = "null"
	if _, err := s.Create(t.Context(), bad); !errdefs.IsInvalidArgument(err) {
		t.Errorf("a subnet, and nobody who gives its addresses: %v", err)
	}
}

// TestSizesOfSubnets: a subnet of no address says only how many there are to be, and two addresses are enough for two containers.
func TestSizesOfSubnets(t *testing.T) {
	s := open(t)
	r := withSubnets("sized", "bridge", "::/120", "0.0.0.0/26")
	six := true
	r.EnableIPv6 = &six
	mustCreate(t, s, r)
	n, err := s.Inspect(t.Context(), "sized")
	if err != nil || len(n.IPAM.Config) != 2 {
		t.Fatalf("%+v, %v", n, err)
	}
	four, other := n.IPAM.Config[0].Subnet, n.IPAM.Config[1].Subnet
	if !four.Addr().Is4() || four.Bits() != 26 || four.Addr().IsUnspecified() || other.Bits() != 120 || !netip.MustParsePrefix("fd00::/8").Contains(other.Addr()) {
		t.Errorf("chosen: %s, %s", four, other)
	}
	large := withSubnets("large", "bridge", "::/56")
	large.EnableIPv6 = &six
	mustCreate(t, s, large)
	if n, err := s.Inspect(t.Context(), "large"); err != nil || n.IPAM.Config[1].Subnet.Bits() != 56 {
		t.Errorf("larger than usual: %+v, %v", n.IPAM.Config, err)
	}
	twice := withSubnets("twice", "macvlan", "0.0.0.0/26", "0.0.0.0/26")
	if _, err := s.Create(t.Context(), twice); !errdefs.IsPermissionDenied(err) {
		t.Errorf("the same one twice: %v", err)
	}
	large = withSubnets("too-large", "bridge", "::/40")
	large.EnableIPv6 = &six
	if _, err := s.Create(t.Context(), large); !errdefs.IsInvalidArgument(err) {
		t.Errorf("larger than there are any: %v", err)
	}
	r = withSubnets("pair", "bridge", "10.51.0.0/31")
	r.Internal, r.Options = true, map[string]string{"com.docker.network.bridge.gateway_mode_ipv4": "isolated"}
	mustCreate(t, s, r)
	a, b := newBox(t), newBox(t)
	a.attach(s, onNetwork("pair", network.EndpointSettings{}))
	if e := b.attach(s, onNetwork("pair", network.EndpointSettings{})).Networks["pair"]; e.IPAddress.String() != "10.51.0.1" || e.Gateway.IsValid() {
		t.Errorf("the second of two: %+v", e)
	}
	b.serve(8080, "b")
	if got, err := a.get("10.51.0.1:8080"); err != nil || got != "b" {
		t.Errorf("from one to the other: %q, %v", got, err)
	}
}
