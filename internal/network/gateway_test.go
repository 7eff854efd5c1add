package network

import (
	"net"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/network"

	"wherry.dev/wherry/internal/network/link"
)

func bridgeOptions(rows ...string) map[string]string {
	out := map[string]string{}
	for _, row := range rows {
		key, value, _ := strings.Cut(row, "=")
		out["com.docker.network."+key] = value
	}
	return out
}

// TestGatewayModes: who reaches a container at its own address, and by which address it is known outside.
func TestGatewayModes(t *testing.T) {
	far := outside(t)
	far.serve(80, "far")
	far.mustRun("ip", "route", "add", "172.16.0.0/12", "via", "192.0.2.1")
	s := open(t)
	for _, row := range []struct {
		name            string
		options         map[string]string
		published, more bool // reached at the container's own address: a published port, and one that is not
	}{
		{"nat", bridgeOptions("bridge.gateway_mode_ipv4=nat"), false, false},
		{"open", bridgeOptions("bridge.gateway_mode_ipv4=nat-unprotected"), true, true},
		{"routed", bridgeOptions("bridge.gateway_mode_ipv4=routed"), true, false},
		{"trusting", bridgeOptions("bridge.trusted_host_interfaces=other0:uplink0"), true, false},
		{"distrusting", bridgeOptions("bridge.trusted_host_interfaces=other0"), false, false},
	} {
		mustCreate(t, s, network.CreateRequest{Name: row.name, Options: row.options})
		a := newBox(t)
		r := onNetwork(row.name, network.EndpointSettings{})
		r.Ports = portMap("|28080|8080/tcp")
		got := a.attach(s, r)
		address := got.Networks[row.name].IPAddress.String()
		a.serve(8080, "a")
		a.serve(8081, "more")
		if answer, err := far.get(address + ":8080"); (err == nil && answer == "a") != row.published {
			t.Errorf("%s: the published port: %q, %v", row.name, answer, err)
		}
		if answer, err := far.get(address + ":8081"); (err == nil && answer == "more") != row.more {
			t.Errorf("%s: another port: %q, %v", row.name, answer, err)
		}
		answer, err := far.get("192.0.2.1:28080")
		if routed := row.name == "routed"; (err == nil && answer == "a") == routed {
			t.Errorf("%s: at the host's address: %q, %v", row.name, answer, err)
		} else if b := got.Ports[network.MustParsePort("8080/tcp")]; len(b) != 1 || (b[0].HostPort == "") != routed {
			t.Errorf("%s: inspect shows %+v", row.name, b)
		}
		if !s.fire.Whole() {
			t.Errorf("%s: the table is not whole", row.name)
		}
		// The packets of a routed network keep their addresses: the other host sees the container's own.
		far.mustRun("ip", "neigh", "flush", "dev", "eth0")
		if answer, err := a.get("192.0.2.9"); err != nil || answer != "far" {
			t.Errorf("%s: outwards: %q, %v", row.name, answer, err)
		}
		a.release(s)
		if err := s.Remove(t.Context(), row.name); err != nil {
			t.Error(err)
		}
		s.later.drain()
	}
	if out := nft(t, "list", "table", "inet", s.names.table); strings.Contains(out, "8080") {
		t.Errorf("ports are left: %s", out)
	}
}

// TestSourceAddress: packets leave with the address that the network names.
func TestSourceAddress(t *testing.T) {
	far := outside(t)
	mustHost(t, "ip", "addr", "add", "192.0.2.44/24", "dev", "uplink0")
	s := open(t)
	mustCreate(t, s, network.CreateRequest{Name: "one", Options: bridgeOptions("host_ipv4=192.0.2.44")})
	mustCreate(t, s, network.CreateRequest{Name: "two", Options: bridgeOptions("bridge.enable_ip_masquerade=false")})
	far.mustRun("ip", "route", "add", "172.16.0.0/12", "via", "192.0.2.1")
	home, err := link.Home()
	if err != nil {
		t.Fatal(err)
	}
	defer home.Close()
	var l net.Listener
	err = link.Inside(far.netns, home, func() (err error) {
		l, err = net.Listen("tcp4", "192.0.2.9:7000")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for name, want := range map[string]string{"one": "192.0.2.44", "bridge": "192.0.2.1", "two": "172."} {
		a := newBox(t)
		a.attach(s, onNetwork(name, network.EndpointSettings{}))
		cmd := a.command("busybox", "nc", "-w", "5", "192.0.2.9", "7000")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if from := c.RemoteAddr().String(); !strings.HasPrefix(from, want) {
			t.Errorf("%s: the other host sees %s", name, from)
		}
		c.Close()
		cmd.Wait()
		a.release(s)
	}
}

// TestIsolatedGateway6: the host has no IPv6 on the bridge of such a network, and the containers speak it with one another all the same.
func TestIsolatedGateway6(t *testing.T) {
	s := open(t)
	mustCreate(t, s, network.CreateRequest{Name: "apart6", Internal: true, EnableIPv6: new(true), Options: bridgeOptions("bridge.gateway_mode_ipv4=isolated", "bridge.gateway_mode_ipv6=isolated")})
	a, b := newBox(t), newBox(t)
	a.attach(s, onNetwork("apart6", network.EndpointSettings{}))
	address := b.attach(s, onNetwork("apart6", network.EndpointSettings{})).Networks["apart6"].GlobalIPv6Address.String()
	b.serve(8080, "b")
	if got, err := a.get("[" + address + "]:8080"); err != nil || got != "b" {
		t.Errorf("a neighbour: %q, %v", got, err)
	}
	if out := mustHost(t, "ip", "-o", "addr", "show", s.networks[mustID(s, "apart6")].Bridge); strings.Contains(out, "inet") {
		t.Errorf("the host is on it: %s", out)
	}
	a.release(s)
	b.release(s)
}

func TestIsolatedGateway(t *testing.T) {
	s := open(t)
	mustCreate(t, s, network.CreateRequest{Name: "apart", Internal: true, Options: bridgeOptions("bridge.gateway_mode_ipv4=isolated")})
	mustCreate(t, s, network.CreateRequest{Name: "bare", Options: bridgeOptions("bridge.inhibit_ipv4=true")})
	a, b, c := newBox(t), newBox(t), newBox(t)
	a.attach(s, onNetwork("apart", network.EndpointSettings{}))
	address := b.attach(s, onNetwork("apart", network.EndpointSettings{})).Networks["apart"].IPAddress.String()
	b.serve(8080, "b")
	if got, err := a.get(address + ":8080"); err != nil || got != "b" {
		t.Errorf("a neighbour: %q, %v", got, err)
	}
	c.attach(s, onNetwork("bare", network.EndpointSettings{}))
	for _, name := range []string{"apart", "bare"} {
		if out := mustHost(t, "ip", "-o", "addr", "show", s.networks[mustID(s, name)].Bridge); strings.Contains(out, "inet ") {
			t.Errorf("%s: the host is on it: %s", name, out)
		}
	}
	if out := c.mustRun("ip", "route"); !strings.Contains(out, "default via") {
		t.Errorf("routes: %s", out)
	}
	for _, x := range []*box{a, b, c} {
		x.release(s)
	}
	for _, row := range []struct{ option, want string }{
		{"bridge.gateway_mode_ipv4=isolated", "can only be used for an internal network"},
		{"bridge.gateway_mode_ipv6=x", "unknown gateway mode x"},
		{"host_ipv4=fd00::1", "is no address of that family"},
		{"container_iface_prefix=much-too-long-prefix", "cannot begin an interface's name"},
		{"bridge.inhibit_ipv4=maybe", "is neither true nor false"},
		{"enable_ipv6=maybe", "is neither true nor false"},
	} {
		if _, err := s.Create(t.Context(), network.CreateRequest{Name: "x", Options: bridgeOptions(row.option)}); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v", row.option, err)
		}
	}
}
