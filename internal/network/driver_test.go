package network

import (
	"context"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/network"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/access"
	"wherry.dev/wherry/internal/network/link"
)

func onNetwork(name string, e network.EndpointSettings) AllocateRequest {
	return AllocateRequest{Networks: map[string]*network.EndpointSettings{name: &e}}
}

// TestMacvlan: containers are hosts of their own on the parent's network.
func TestMacvlan(t *testing.T) {
	before := snapshot(t)
	far := outside(t)
	far.serve(80, "far")
	s := open(t)
	subnet := network.IPAMConfig{Subnet: netip.MustParsePrefix("192.0.2.0/24"), Gateway: netip.MustParseAddr("192.0.2.9")}
	mustCreate(t, s, network.CreateRequest{Name: "lan", Driver: "macvlan", Options: map[string]string{"parent": "uplink0"}, IPAM: &network.IPAM{Config: []network.IPAMConfig{subnet}}})
	a, b := newBox(t), newBox(t)
	mac := network.HardwareAddr{2, 1, 2, 3, 4, 5}
	atA := a.attach(s, onNetwork("lan", network.EndpointSettings{}))
	atB := b.attach(s, onNetwork("lan", network.EndpointSettings{MacAddress: mac, Aliases: []string{"web"}, IPAMConfig: &network.EndpointIPAMConfig{IPv4Address: netip.MustParseAddr("192.0.2.77")}}))
	if ip := atA.Networks["lan"].IPAddress; ip.String() != "192.0.2.2" { // .1 is the host's
		t.Errorf("the first address is %s", ip)
	}
	if e := atB.Networks["lan"]; e.MacAddress.String() != mac.String() || e.Gateway.String() != "192.0.2.9" {
		t.Errorf("the second: %+v", e)
	}
	for _, x := range []*box{a, b} {
		if got, err := x.get("192.0.2.9"); err != nil || got != "far" {
			t.Errorf("the other host: %q, %v", got, err)
		}
	}
	b.serve(8080, "b")
	if got, err := far.get("192.0.2.77:8080"); err != nil || got != "b" {
		t.Errorf("from the other host: %q, %v", got, err)
	}
	if got, err := a.get("192.0.2.77:8080"); err != nil || got != "b" {
		t.Errorf("from a neighbour: %q, %v", got, err)
	}
	if out := far.mustRun("ip", "neigh"); !strings.Contains(out, "192.0.2.77 dev eth0 lladdr "+mac.String()) {
		t.Errorf("the other host's neighbours: %s", out)
	}
	if got := a.find("web") + " " + a.find("host.docker.internal"); got != "192.0.2.77 NXDOMAIN" && got != "192.0.2.77 SERVFAIL" {
		t.Errorf("names: %s", got)
	}
	if _, err := s.Create(t.Context(), network.CreateRequest{Name: "alone", Driver: "macvlan", Options: map[string]string{"parent": "uplink0", "macvlan_mode": "passthru"}}); !errdefs.IsPermissionDenied(err) {
		t.Errorf("passthru beside another network: %v", err)
	}
	// The engine is replaced; the container moves to another address while it runs.
	s.Close()
	s = reopen(t, s.o)
	if err := s.Disconnect(t.Context(), "lan", b.id, b.netns); err != nil {
		t.Fatal(err)
	}
	if out := b.mustRun("ip", "-o", "link"); strings.Contains(out, "eth0") {
		t.Errorf("after disconnect: %s", out)
	}
	moved := AllocateRequest{ContainerID: b.id, Name: "b", Hostname: "b"}
	e, err := s.Connect(t.Context(), "lan", moved, &network.EndpointSettings{IPAMConfig: &network.EndpointIPAMConfig{IPv4Address: netip.MustParseAddr("192.0.2.78")}}, b.netns)
	if err != nil || e.IPAddress.String() != "192.0.2.78" {
		t.Fatalf("connect: %+v, %v", e, err)
	}
	if got, err := far.get("192.0.2.78:8080"); err != nil || got != "b" {
		t.Errorf("at its new address: %q, %v", got, err)
	}
	// The same address again, for another container, while the first one's namespace is still there.
	b.release(s)
	c := newBox(t)
	c.attach(s, onNetwork("lan", network.EndpointSettings{IPAMConfig: &network.EndpointIPAMConfig{IPv4Address: netip.MustParseAddr("192.0.2.78")}}))
	c.release(s)
	a.release(s)
	if err := s.Remove(t.Context(), "lan"); err != nil {
		t.Fatal(err)
	}
	s.later.drain()
	if out := mustHost(t, "ip", "-o", "link"); !strings.Contains(out, "uplink0") {
		t.Errorf("the parent is gone: %s", out)
	}
	s.Close()
	mustHost(t, "ip", "link", "del", "uplink0")
	if after := snapshot(t); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

// TestMacvlanModes: neighbours reach each other in bridge mode only; passthru takes one container.
func TestMacvlanModes(t *testing.T) {
	outside(t)
	s := open(t)
	for _, row := range []struct {
		mode  string
		meets bool
	}{{"bridge", true}, {"private", false}, {"vepa", false}} {
		options := map[string]string{"parent": "uplink0", "macvlan_mode": row.mode}
		name := "m-" + row.mode
		mustCreate(t, s, network.CreateRequest{Name: name, Driver: "macvlan", Options: options})
		a, b := newBox(t), newBox(t)
		a.attach(s, onNetwork(name, network.EndpointSettings{}))
		address := b.attach(s, onNetwork(name, network.EndpointSettings{})).Networks[name].IPAddress.String()
		b.serve(8080, "b")
		if _, err := a.get(address + ":8080"); (err == nil) != row.meets {
			t.Errorf("%s: neighbours: %v", row.mode, err)
		}
		a.release(s)
		b.release(s)
		if err := s.Remove(t.Context(), name); err != nil {
			t.Error(err)
		}
	}
	mustCreate(t, s, network.CreateRequest{Name: "one", Driver: "macvlan", Options: map[string]string{"parent": "uplink0", "macvlan_mode": "passthru", "com.docker.network.driver.mtu": "1280"}})
	a, b := newBox(t), newBox(t)
	a.attach(s, onNetwork("one", network.EndpointSettings{}))
	if out := a.mustRun("ip", "-d", "-o", "link", "show", "eth0"); !strings.Contains(out, "mode passthru") || !strings.Contains(out, "mtu 1280") {
		t.Errorf("the interface: %s", out)
	}
	r := onNetwork("one", network.EndpointSettings{})
	r.ContainerID, r.Name = b.id, "b"
	if _, err := s.Allocate(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if err := s.Attach(t.Context(), b.id, b.netns); !errdefs.IsFailedPrecondition(err) || !strings.Contains(fmt.Sprint(err), "passthru takes one container") {
		t.Errorf("a second container: %v", err)
	}
	b.release(s)
	a.release(s)
}

// TestNetworkWithoutParent: it leads nowhere, and its link goes with it.
func TestNetworkWithoutParent(t *testing.T) {
	s := open(t)
	mustCreate(t, s, network.CreateRequest{Name: "island", Driver: "macvlan"})
	a, b := newBox(t), newBox(t)
	a.attach(s, onNetwork("island", network.EndpointSettings{}))
	address := b.attach(s, onNetwork("island", network.EndpointSettings{})).Networks["island"].IPAddress.String()
	b.serve(8080, "b")
	if got, err := a.get(address + ":8080"); err != nil || got != "b" {
		t.Errorf("a neighbour: %q, %v", got, err)
	}
	if out := a.mustRun("ip", "route"); strings.Contains(out, "default") {
		t.Errorf("a way out: %s", out)
	}
	name := s.networks[mustID(s, "island")].Bridge
	a.release(s)
	b.release(s)
	if err := s.Remove(t.Context(), "island"); err != nil {
		t.Fatal(err)
	}
	s.later.drain()
	if out := mustHost(t, "ip", "-o", "link"); strings.Contains(out, name) {
		t.Errorf("its link is left: %s", out)
	}
}

// TestIpvlanAndVLAN: where the kernel has them (the virtual machine's has).
func TestIpvlanAndVLAN(t *testing.T) {
	outside(t)
	s := open(t)
	_, err := s.Create(t.Context(), network.CreateRequest{Name: "tagged", Driver: "macvlan", Options: map[string]string{"parent": "uplink0.50"}})
	if !kernelHas(t, "vlan") {
		if !errdefs.IsNotImplemented(err) || !strings.Contains(err.Error(), "8021q") {
			t.Errorf("a VLAN on a kernel without: %v", err)
		}
	} else {
		testVLAN(t, s, err)
	}
	for _, row := range []struct{ mode, route string }{{"l2", "default via"}, {"l3", "default dev eth0"}, {"l3s", "default dev eth0"}} {
		mustCreate(t, s, network.CreateRequest{Name: row.mode, Driver: "ipvlan", Options: map[string]string{"parent": "uplink0", "ipvlan_mode": row.mode}})
		a, b := newBox(t), newBox(t)
		r := onNetwork(row.mode, network.EndpointSettings{})
		if !kernelHas(t, "ipvlan") {
			r.ContainerID, r.Name = a.id, "a"
			if _, err := s.Allocate(t.Context(), r); err != nil {
				t.Fatal(err)
			}
			if err := s.Attach(t.Context(), a.id, a.netns); !errdefs.IsNotImplemented(err) {
				t.Errorf("ipvlan on a kernel without: %v", err)
			}
			a.release(s)
			continue
		}
		a.attach(s, r)
		address := b.attach(s, r).Networks[row.mode].IPAddress.String()
		b.serve(8080, "b")
		if got, err := a.get(address + ":8080"); err != nil || got != "b" {
			t.Errorf("%s: a neighbour: %q, %v", row.mode, got, err)
		}
		if out := a.mustRun("ip", "route"); !strings.Contains(out, row.route) {
			t.Errorf("%s: routes %s", row.mode, out)
		}
		if out := a.mustRun("ip", "-d", "-o", "link", "show", "eth0"); !strings.Contains(out, "mode "+row.mode+" bridge") {
			t.Errorf("%s: %s", row.mode, out)
		}
		a.release(s)
		b.release(s)
		if err := s.Remove(t.Context(), row.mode); err != nil {
			t.Error(err)
		}
	}
}

// testVLAN: the sub-interface is made for the first network and goes with the last one.
func testVLAN(t *testing.T, s *Service, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	mustCreate(t, s, network.CreateRequest{Name: "tagged2", Driver: "macvlan", Options: map[string]string{"parent": "uplink0.50"}})
	if out := mustHost(t, "ip", "-d", "-o", "link", "show", "uplink0.50"); !strings.Contains(out, "vlan protocol 802.1Q id 50") {
		t.Errorf("the sub-interface: %s", out)
	}
	a, b := newBox(t), newBox(t)
	a.attach(s, onNetwork("tagged", network.EndpointSettings{}))
	address := b.attach(s, onNetwork("tagged", network.EndpointSettings{})).Networks["tagged"].IPAddress.String()
	b.serve(8080, "b")
	if got, err := a.get(address + ":8080"); err != nil || got != "b" {
		t.Errorf("a neighbour: %q, %v", got, err)
	}
	a.release(s)
	b.release(s)
	for i, name := range []string{"tagged", "tagged2"} {
		if err := s.Remove(t.Context(), name); err != nil {
			t.Fatal(err)
		}
		s.later.drain()
		if there := exec.Command("ip", "link", "show", "uplink0.50").Run() == nil; there != (i == 0) {
			t.Errorf("after %s went: the sub-interface is there: %t", name, there)
		}
	}
}

// kernelHas says whether the kernel knows a kind of link.
func kernelHas(t *testing.T, kind string) bool {
	t.Helper()
	args := []string{"link", "add", "link", "uplink0", "name", "probe0", "type", kind}
	if kind == "vlan" {
		args = append(args, "id", "7")
	}
	out, err := exec.Command("ip", args...).CombinedOutput()
	if err == nil {
		mustHost(t, "ip", "link", "del", "probe0")
	}
	return err == nil || !strings.Contains(string(out), "Unknown device type") && !strings.Contains(string(out), unix.EOPNOTSUPP.Error())
}

func TestDriversRefuse(t *testing.T) {
	s := open(t)
	for _, row := range []struct {
		driver  string
		options map[string]string
		want    string
	}{
		{"macvlan", map[string]string{"parent": "lo"}, "loopback interface is not a valid macvlan parent link"},
		{"macvlan", map[string]string{"parent": "gone0"}, "is not on this host"},
		{"macvlan", map[string]string{"parent": "gone0.7"}, "parent interface was not found on the host: gone0"},
		{"macvlan", map[string]string{"parent": "lo.4095"}, "vlan id must be between 1-4094"},
		{"macvlan", map[string]string{"parent": "lo.x"}, "unable to parse a valid vlan id"},
		{"macvlan", map[string]string{"macvlan_mode": "x"}, "requested macvlan mode 'x' is not valid"},
		{"ipvlan", map[string]string{"ipvlan_mode": "l4"}, "requested ipvlan mode 'l4' is not valid"},
		{"ipvlan", map[string]string{"ipvlan_flag": "x"}, "requested ipvlan flag 'x' is not valid"},
		{"host", nil, `only one instance of "host" network is allowed`},
		{"overlay", nil, `plugin "overlay" not found`},
	} {
		_, err := s.Create(t.Context(), network.CreateRequest{Name: "x", Driver: row.driver, Options: row.options})
		if err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s %v: %v", row.driver, row.options, err)
		}
	}
	if out := mustHost(t, "ip", "-o", "link"); strings.Contains(out, "gone") {
		t.Errorf("left: %s", out)
	}
	if list, err := s.List(t.Context(), nil); err != nil || len(list) != 3 {
		t.Errorf("left: %v, %v", list, err)
	}
}

func TestConfigurationNetworks(t *testing.T) {
	s := open(t)
	subnet := network.IPAMConfig{Subnet: netip.MustParsePrefix("10.9.0.0/24"), IPRange: netip.MustParsePrefix("10.9.0.128/25")}
	mustCreate(t, s, network.CreateRequest{Name: "plan", ConfigOnly: true, Options: map[string]string{"com.docker.network.driver.mtu": "1400"}, Labels: map[string]string{"of": "plan"}, IPAM: &network.IPAM{Config: []network.IPAMConfig{subnet}}})
	from := func(name string) *network.ConfigReference { return &network.ConfigReference{Network: name} }
	for _, row := range []struct {
		r    network.CreateRequest
		want string
	}{
		{network.CreateRequest{Name: "x", ConfigOnly: true, ConfigFrom: from("plan")}, "cannot depend on another configuration network"},
		{network.CreateRequest{Name: "x", ConfigOnly: true, Internal: true}, "can only contain network specific fields"},
		{network.CreateRequest{Name: "x", ConfigFrom: from("none-such")}, `configuration network "none-such" does not exist`},
		{network.CreateRequest{Name: "x", ConfigFrom: from("bridge")}, `"bridge" is not a configuration network`},
		{network.CreateRequest{Name: "x", ConfigFrom: from("plan"), Labels: map[string]string{"a": "b"}}, "user specified configurations are not supported"},
		{network.CreateRequest{Name: "x", ConfigFrom: from("plan"), Options: map[string]string{"a": "b"}}, "network driver options are not supported"},
	} {
		if _, err := s.Create(t.Context(), row.r); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%+v: %v", row.r, err)
		}
	}
	of := func(owner string) context.Context { // who may use his own only
		return access.With(t.Context(), access.Scope{Owner: owner, Limited: true})
	}
	if _, err := s.Create(of("uid:2001"), network.CreateRequest{Name: "x", ConfigFrom: from("plan")}); !errdefs.IsPermissionDenied(err) || !strings.Contains(err.Error(), "somebody else") {
		t.Errorf("another's configuration: %v", err)
	}
	mustCreate(t, s, network.CreateRequest{Name: "real", ConfigFrom: from("plan")})
	if _, err := s.Create(of("uid:2001"), network.CreateRequest{Name: "much", Labels: map[string]string{"a": strings.Repeat("x", access.Share)}}); !errdefs.IsPermissionDenied(err) || !strings.Contains(err.Error(), "remove some") {
		t.Errorf("a network that takes much memory: %v", err)
	}
	a := newBox(t)
	e := a.attach(s, onNetwork("real", network.EndpointSettings{})).Networks["real"]
	if !subnet.IPRange.Contains(e.IPAddress) {
		t.Errorf("the container: %+v", e)
	}
	if out := a.mustRun("ip", "-o", "link", "show", "eth0"); !strings.Contains(out, "mtu 1400") {
		t.Errorf("the interface: %s", out)
	}
	r := onNetwork("plan", network.EndpointSettings{})
	r.ContainerID = newID()
	if _, err := s.Allocate(t.Context(), r); !errdefs.IsPermissionDenied(err) {
		t.Errorf("a container on a configuration: %v", err)
	}
	s.Close()
	s = reopen(t, s.o)
	n, err := s.Inspect(t.Context(), "real")
	if err != nil || n.ConfigFrom.Network != "plan" || n.Labels["of"] != "plan" {
		t.Errorf("in the next life: %+v, %v", n, err)
	}
	if n, err := s.Inspect(t.Context(), "plan"); err != nil || !n.ConfigOnly || n.Driver != "null" {
		t.Errorf("the configuration: %+v, %v", n, err)
	}
	if err := s.Remove(t.Context(), "plan"); !errdefs.IsPermissionDenied(err) || !strings.Contains(err.Error(), `configuration network "plan" is in use`) {
		t.Errorf("a configuration in use: %v", err)
	}
	a.release(s)
	for _, name := range []string{"real", "plan"} {
		if err := s.Remove(t.Context(), name); err != nil {
			t.Error(err)
		}
	}
}

// TestLinksOfNobody: an engine that is killed between making a link and writing the network down leaves nothing behind for good.
func TestLinksOfNobody(t *testing.T) {
	s := open(t)
	mustCreate(t, s, network.CreateRequest{Name: "kept", Options: map[string]string{"com.docker.network.bridge.name": "kept0"}})
	s.Close()
	for _, name := range []string{"left0", "left1"} {
		b := link.Bridge{Name: name, MTU: 1500, Alias: s.names.table}
		c, err := link.Dial()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.Ensure(c); err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
	mustHost(t, "ip", "link", "set", "left1", "alias", "somebody else's")
	t.Cleanup(func() { exec.Command("ip", "link", "del", "left1").Run() })
	s = reopen(t, s.o)
	s.later.drain()
	out := mustHost(t, "ip", "-o", "link")
	for name, there := range map[string]bool{"left0": false, "left1": true, "kept0": true} {
		if strings.Contains(out, name) != there {
			t.Errorf("%s: there should be one: %t; %s", name, there, out)
		}
	}
}

func TestEndpointOptions(t *testing.T) {
	s := open(t)
	mustCreate(t, s, network.CreateRequest{Name: "one", Options: map[string]string{"com.docker.network.container_iface_prefix": "lan"}})
	mustCreate(t, s, network.CreateRequest{Name: "two"})
	a := newBox(t)
	a.attach(s, AllocateRequest{First: "one", Networks: map[string]*network.EndpointSettings{
		"one": {IPAMConfig: &network.EndpointIPAMConfig{LinkLocalIPs: []netip.Addr{netip.MustParseAddr("169.254.7.7")}}},
		"two": {DriverOpts: map[string]string{"com.docker.network.endpoint.ifname": "two.0", "com.docker.network.endpoint.sysctls": "net.ipv4.conf.IFNAME.log_martians=1,net.ipv6.conf.ifname.disable_ipv6=0"}},
	}})
	defer a.release(s)
	out := a.mustRun("ip", "-o", "addr")
	for _, want := range []string{"lan0    inet 172.", "lan0    inet 169.254.7.7/16", "two.0    inet 172."} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in %s", want, out)
		}
	}
	if out := a.mustRun("cat", "/proc/sys/net/ipv4/conf/two.0/log_martians", "/proc/sys/net/ipv4/conf/lan0/log_martians", "/proc/sys/net/ipv6/conf/two.0/disable_ipv6"); out != "1\n0\n0\n" {
		t.Errorf("settings: %q", out)
	}
	for _, row := range []struct {
		options map[string]string
		want    string
	}{
		{map[string]string{"com.docker.network.endpoint.ifname": "much-too-long-for-one"}, "is no name of an interface"},
		{map[string]string{"com.docker.network.endpoint.ifname": "a/b"}, "is no name of an interface"},
		{map[string]string{"com.docker.network.endpoint.sysctls": "net.ipv4.conf.eth0.x=1"}, "IFNAME"},
		{map[string]string{"com.docker.network.endpoint.sysctls": "kernel.x.y.IFNAME.z=1"}, "IFNAME"},
		{map[string]string{"com.docker.network.endpoint.sysctls": "net.core.y.IFNAME.z=1"}, "unrecognised network protocol"},
	} {
		r := onNetwork("one", network.EndpointSettings{DriverOpts: row.options})
		r.ContainerID = newID()
		if _, err := s.Allocate(t.Context(), r); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%v: %v", row.options, err)
		}
	}
}

// TestHostByName: without a flag, on every network that the host is on, an address at which it answers.
func TestHostByName(t *testing.T) {
	server := exec.Command("busybox", "httpd", "-f", "-p", "8099", "-h", t.TempDir())
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { server.Process.Kill(); server.Wait() }()
	s := open(t)
	six := true
	mustCreate(t, s, network.CreateRequest{Name: "one", EnableIPv6: &six})
	mustCreate(t, s, network.CreateRequest{Name: "inner", Internal: true})
	four := false
	mustCreate(t, s, network.CreateRequest{Name: "six", EnableIPv6: &six, EnableIPv4: &four})
	for _, name := range []string{"bridge", "one", "inner", "six"} {
		a := newBox(t)
		got := a.attach(s, onNetwork(name, network.EndpointSettings{}))
		e := got.Networks[name]
		var address string
		for line := range strings.Lines(string(got.Hosts)) {
			if f := strings.Fields(line); len(f) == 3 && f[1] == "host.docker.internal" && f[2] == "host.containers.internal" {
				address = f[0]
			}
		}
		if address == "" {
			t.Errorf("%s: hosts: %s", name, got.Hosts)
			continue
		}
		if name == "six" && address != e.IPv6Gateway.String() || name == "one" && address != e.Gateway.String() {
			t.Errorf("%s: %s with %+v", name, address, e)
		}
		eventually(t, func() error {
			_, err := a.get(netip.AddrPortFrom(netip.MustParseAddr(address), 8099).String())
			if err != nil && !strings.Contains(err.Error(), "exit status 22") {
				return err
			}
			return nil
		})
		if name != "bridge" && name != "six" {
			if found := a.find("host.docker.internal"); found != address {
				t.Errorf("%s: the resolver says %s, not %s", name, found, address)
			}
		}
		a.release(s)
	}
	b := newBox(t)
	r := onNetwork("bridge", network.EndpointSettings{})
	r.ExtraHosts = []string{"host.docker.internal:192.0.2.3"}
	if got := b.attach(s, r); strings.Count(string(got.Hosts), "host.docker.internal") != 1 {
		t.Errorf("the user's own: %s", got.Hosts)
	}
	b.release(s)
}
