package network

import (
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/network"
)

// TestNewRoutes: a VPN that is switched on while the engine runs. Networks that nobody is on make room; of one that is in use, or whose addresses
// somebody chose, the engine says so.
func TestNewRoutes(t *testing.T) {
	first := open(t)
	first.Close()
	var mu sync.Mutex
	var told []string
	o := first.o
	o.Log = func(err error) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, err.Error())
	}
	s := reopen(t, o)
	heard := func(parts ...string) func() error {
		return func() error {
			mu.Lock()
			defer mu.Unlock()
			for _, line := range told {
				all := true
				for _, p := range parts {
					all = all && strings.Contains(line, p)
				}
				if all {
					return nil
				}
			}
			return fmt.Errorf("nothing with %q in %q", parts, told)
		}
	}
	mustCreate(t, s, network.CreateRequest{Name: "idle"}) // 172.18
	mustCreate(t, s, network.CreateRequest{Name: "busy"}) // 172.19
	mustCreate(t, s, network.CreateRequest{Name: "named", IPAM: &network.IPAM{Config: []network.IPAMConfig{{Subnet: netip.MustParsePrefix("10.66.0.0/24")}}}})
	a := newBox(t)
	a.attach(s, onNetwork("busy", network.EndpointSettings{}))
	a.serve(8080, "a")
	mustHost(t, "ip", "link", "add", "vpn0", "type", "bridge")
	t.Cleanup(func() { exec.Command("ip", "link", "del", "vpn0").Run() })
	mustHost(t, "ip", "addr", "add", "198.51.100.1/24", "dev", "vpn0")
	mustHost(t, "ip", "link", "set", "vpn0", "up")
	for _, to := range []string{"172.18.4.0/24", "172.19.200.0/24", "10.64.0.0/10"} {
		mustHost(t, "ip", "route", "add", to, "dev", "vpn0")
	}
	eventually(t, heard("network busy", "172.19.200.0/24", "vpn0", "network.pools"))
	eventually(t, heard("network named", "10.64.0.0/10"))
	eventually(t, heard("the network idle has 172.20.0.0/16 now"))
	eventually(t, func() error {
		if out := mustHost(t, "ip", "-o", "addr"); !strings.Contains(out, "172.20.0.1/16") || strings.Contains(out, "172.18.0.1/16") {
			return fmt.Errorf("the bridge: %s", out)
		}
		return nil
	})
	b := newBox(t)
	if e := b.attach(s, onNetwork("idle", network.EndpointSettings{})).Networks["idle"]; e.IPAddress.String() != "172.20.0.2" {
		t.Errorf("a container on it: %+v", e)
	}
	b.serve(8080, "b")
	if got, err := get("172.20.0.2:8080"); err != nil || got != "b" {
		t.Errorf("from the host: %q, %v", got, err)
	}
	if got, err := get("172.19.0.2:8080"); err != nil || got != "a" {
		t.Errorf("the other network's container: %q, %v", got, err)
	}
	if n, err := s.Inspect(t.Context(), "named"); err != nil || n.IPAM.Config[0].Subnet.String() != "10.66.0.0/24" {
		t.Errorf("addresses that were asked for: %+v, %v", n, err)
	}
	a.release(s)
	b.release(s)
	s.Close()
	s = reopen(t, o)
	if n, err := s.Inspect(t.Context(), "idle"); err != nil || n.IPAM.Config[0].Subnet.String() != "172.20.0.0/16" {
		t.Errorf("in the next life: %+v, %v", n, err)
	}
}

func TestPools(t *testing.T) {
	first := open(t)
	first.Close()
	o := first.o
	o.Root, o.Pools = t.TempDir(), []string{"base=10.200.0.0/22,size=24", "base=fd00:7::/48,size=64"}
	s := reopen(t, o)
	six := true
	var got []string
	for _, name := range []string{"bridge", "a", "b"} {
		if name != "bridge" {
			mustCreate(t, s, network.CreateRequest{Name: name, EnableIPv6: &six})
		}
		n, err := s.Inspect(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range n.IPAM.Config {
			got = append(got, c.Subnet.String())
		}
	}
	if want := "10.200.0.0/24 10.200.1.0/24 fd00:7::/64 10.200.2.0/24 fd00:7:0:1::/64"; strings.Join(got, " ") != want {
		t.Errorf("subnets %s, not %s", got, want)
	}
	mustCreate(t, s, network.CreateRequest{Name: "c"})
	if _, err := s.Create(t.Context(), network.CreateRequest{Name: "d"}); !errdefs.IsResourceExhausted(err) || !strings.Contains(err.Error(), "all predefined address pools have been fully subnetted") {
		t.Errorf("when all are taken: %v", err)
	}
	for _, bad := range []string{"", "10.0.0.0/8", "base=10.0.0.1/8,size=24", "base=10.0.0.0/24,size=16", "base=10.0.0.0/24,size=32", "base=10.0.0.0/8", "base=127.0.0.0/8,size=24", "base=x,size=y", "base=10.0.0.0/8,size=24,more=1"} {
		o.Pools = []string{bad}
		if s, err := Open(t.Context(), o); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "network.pools") {
			t.Errorf("%q: %v", bad, err)
			if s != nil {
				s.Close()
			}
		}
	}
}
