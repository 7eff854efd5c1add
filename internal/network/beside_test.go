package network

import (
	"net/netip"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/network"
)

// TestNetworksShareASubnet: two networks of one LAN give out a part each, and no address twice.
func TestNetworksShareASubnet(t *testing.T) {
	outside(t)
	s := open(t)
	lan := func(name, within string) error {
		c := network.IPAMConfig{Subnet: netip.MustParsePrefix("192.0.2.0/24"), Gateway: netip.MustParseAddr("192.0.2.9")}
		if within != "" {
			c.IPRange = netip.MustParsePrefix(within)
		}
		_, err := s.Create(t.Context(), network.CreateRequest{Name: name, Driver: "macvlan", Options: map[string]string{"parent": "uplink0"}, IPAM: &network.IPAM{Config: []network.IPAMConfig{c}}})
		return err
	}
	for name, within := range map[string]string{"low": "192.0.2.16/29", "all": "192.0.2.0/24"} {
		if err := lan(name, within); err != nil {
			t.Fatal(err)
		}
	}
	for name, within := range map[string]string{"again": "192.0.2.16/29", "whole": ""} {
		if err := lan(name, within); !errdefs.IsPermissionDenied(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	at := func(b *box, name, want string) (string, error) {
		e := network.EndpointSettings{}
		if want != "" {
			e.IPAMConfig = &network.EndpointIPAMConfig{IPv4Address: netip.MustParseAddr(want)}
		}
		r := onNetwork(name, e)
		r.ContainerID, r.Name = b.id, "box-"+b.id[:6]
		got, err := s.Allocate(t.Context(), r)
		if err != nil {
			return "", err
		}
		return got.Networks[name].IPAddress.String(), nil
	}
	a, b := newBox(t), newBox(t)
	if got, err := at(a, "low", ""); got != "192.0.2.16" {
		t.Errorf("a part's first address: %s, %v", got, err)
	}
	if _, err := at(b, "all", "192.0.2.16"); !errdefs.IsConflict(err) {
		t.Errorf("a neighbour's address: %v", err)
	}
	if got, err := at(b, "all", "192.0.2.17"); got != "192.0.2.17" {
		t.Errorf("a free one of the other's part: %s, %v", got, err)
	}
	a.release(s)
	if got, err := at(a, "low", ""); got != "192.0.2.16" {
		t.Errorf("given back: %s, %v", got, err)
	}
	c := newBox(t)
	if got, err := at(c, "low", ""); got != "192.0.2.18" {
		t.Errorf("past what the other one has given out: %s, %v", got, err)
	}
	c.release(s)
	b.release(s)
	if got, err := at(c, "low", ""); got != "192.0.2.17" {
		t.Errorf("given back by the other one: %s, %v", got, err)
	}
	if out, err := s.Inspect(t.Context(), "all"); err != nil || out.Status.IPAM.Subnets[netip.MustParsePrefix("192.0.2.0/24")].IPsInUse != 6 { // the first, the last, the host's, the gateway, two
		t.Errorf("in use: %+v, %v", out.Status, err)
	}
	a.release(s)
	c.release(s)
	if err := s.Remove(t.Context(), "all"); err != nil {
		t.Fatal(err)
	}
	s.later.drain()
	s.Close()
	s = reopen(t, s.o)
	if err := lan("all", "192.0.2.0/24"); err != nil {
		t.Error(err)
	}
	if err := s.Remove(t.Context(), "low"); err != nil {
		t.Error(err)
	}
	if got, err := at(a, "all", "192.0.2.16"); got != "192.0.2.16" {
		t.Errorf("nobody else is there any more: %s, %v", got, err)
	}
	a.release(s)
}
