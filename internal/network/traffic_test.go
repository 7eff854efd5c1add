package network

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/network"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/network/link"
)

func TestBridgeCarriesTraffic(t *testing.T) {
	far := outside(t)
	far.serve(80, "far")
	s := open(t)
	a, b := newBox(t), newBox(t)
	aa, ab := a.attach(s, AllocateRequest{}), b.attach(s, AllocateRequest{})
	defer a.release(s)
	defer b.release(s)
	if ip := aa.Networks["bridge"].IPAddress.String(); ip != "172.17.0.2" {
		t.Errorf("address %s", ip)
	}
	a.serve(8080, "a")
	b.serve(8080, "b")
	if got, err := a.get(ab.Networks["bridge"].IPAddress.String() + ":8080"); err != nil || got != "b" {
		t.Errorf("a to b: %q, %v", got, err)
	}
	if got, err := get(aa.Networks["bridge"].IPAddress.String() + ":8080"); err != nil || got != "a" {
		t.Errorf("host to a: %q, %v", got, err)
	}
	if got, err := a.get("192.0.2.9"); err != nil || got != "far" {
		t.Errorf("a to the other host, which knows no route back: %q, %v", got, err)
	}
	if out := a.mustRun("ip", "route"); !strings.Contains(out, "default via 172.17.0.1 dev eth0") {
		t.Errorf("routes: %s", out)
	}
	if out := a.mustRun("ip", "-o", "link", "show", "lo"); !strings.Contains(out, "UP") {
		t.Errorf("loopback: %s", out)
	}
	if out := a.mustRun("cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start", "/proc/sys/net/ipv4/ping_group_range"); out != "0\n0\t4294967294\n" {
		t.Errorf("settings: %q", out)
	}
}

func TestNetworksAreApart(t *testing.T) {
	s := open(t)
	mustCreate(t, s, network.CreateRequest{Name: "one"})
	mustCreate(t, s, network.CreateRequest{Name: "inner", Internal: true})
	far := outside(t)
	far.serve(80, "far")
	a, b, c, d := newBox(t), newBox(t), newBox(t), newBox(t)
	on := func(n string) AllocateRequest {
		return AllocateRequest{Networks: map[string]*network.EndpointSettings{n: {}}}
	}
	a.attach(s, on("bridge"))
	addressB := b.attach(s, on("one")).Networks["one"].IPAddress.String()
	c.attach(s, on("inner"))
	addressD := d.attach(s, on("inner")).Networks["inner"].IPAddress.String()
	for _, x := range []*box{a, b, c, d} {
		defer x.release(s)
	}
	b.serve(8080, "b")
	d.serve(8080, "d")
	if got, err := a.get(addressB + ":8080"); err == nil {
		t.Errorf("from another network: %q", got)
	}
	far.mustRun("ip", "route", "add", "172.16.0.0/12", "via", "192.0.2.1")
	if got, err := far.get(addressB + ":8080"); err == nil {
		t.Errorf("from another host that routes to the container: %q", got)
	}
	if got, err := c.get(addressD + ":8080"); err != nil || got != "d" {
		t.Errorf("within an internal network: %q, %v", got, err)
	}
	c.run("ip", "route", "add", "default", "via", s.networksGateway("inner"))
	if got, err := c.get("192.0.2.9"); err == nil {
		t.Errorf("out of an internal network: %q", got)
	}
	if got, err := b.get("192.0.2.9"); err != nil || got != "far" {
		t.Errorf("out of a user-defined network: %q, %v", got, err)
	}
}

// TestNoContainerIsARouter: what a container announces (RFC 4861, 4.2; CVE-2020-10749, CVE-2020-13401) gives neither the host nor its neighbours a route.
func TestNoContainerIsARouter(t *testing.T) {
	s := open(t)
	yes := true
	mustCreate(t, s, network.CreateRequest{Name: "six", EnableIPv6: &yes})
	mustCreate(t, s, network.CreateRequest{Name: "four"})
	on := func(name string, sysctls map[string]string) AllocateRequest {
		return AllocateRequest{Networks: map[string]*network.EndpointSettings{name: {}}, Sysctls: sysctls}
	}
	liar, neighbour, router := newBox(t), newBox(t), newBox(t)
	liar.attach(s, on("six", nil))
	addresses := neighbour.attach(s, on("six", nil)).Networks["six"]
	defer liar.release(s)
	defer neighbour.release(s)
	const routes = "ip -6 route show default; ip -6 route show table all type unicast 2001:db8:bad::/64"
	host := func() string {
		out, err := exec.Command("sh", "-c", routes).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return string(out)
	}
	hostBefore, neighbourBefore := host(), neighbour.mustRun("sh", "-c", routes)
	if !strings.Contains(neighbourBefore, "via "+addresses.IPv6Gateway.String()) {
		t.Fatalf("the neighbour's routes: %q", neighbourBefore)
	}
	liar.announceRouter()
	// What was sent before has been heard when these are answered.
	liar.mustRun("busybox", "ping", "-c1", "-W5", addresses.IPv6Gateway.String())
	liar.mustRun("busybox", "ping", "-c1", "-W5", addresses.GlobalIPv6Address.String())
	if now := host(); now != hostBefore {
		t.Errorf("the host's routes were %q and are\n%s", hostBefore, now)
	}
	if now := neighbour.mustRun("sh", "-c", routes); now != neighbourBefore {
		t.Errorf("the neighbour's routes were %q and are\n%s", neighbourBefore, now)
	}
	// Who asks for IPv6 where the network has none hears no routers either.
	router.attach(s, on("four", map[string]string{"net.ipv6.conf.all.disable_ipv6": "0"}))
	defer router.release(s)
	if out := router.mustRun("cat", "/proc/sys/net/ipv6/conf/eth0/accept_ra"); out != "0\n" {
		t.Errorf("accept_ra %q", out)
	}
}

// announceRouter sends a router advertisement to all nodes of the network: a default route, and a prefix for addresses.
func (b *box) announceRouter() {
	b.t.Helper()
	message := []byte{134, 0, 0, 0, 64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0, // the router is one for 1800 s
		3, 4, 64, 0xc0, 0, 0, 0x07, 0x08, 0, 0, 0x07, 0x08, 0, 0, 0, 0, 0x20, 0x01, 0x0d, 0xb8, 0x0b, 0xad, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		b.t.Fatal(err)
	}
	defer home.Close()
	err = link.Inside(b.netns, home, func() error {
		eth0, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMPV6)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, 255); err != nil {
			return err
		}
		return unix.Sendto(fd, message, 0, &unix.SockaddrInet6{Addr: [16]byte{0: 0xff, 1: 2, 15: 1}, ZoneId: uint32(eth0.Index)})
	})
	if err != nil {
		b.t.Fatal(err)
	}
}

func (s *state) networksGateway(name string) string {
	n, _ := s.find(name)
	return n.gateway().String()
}

func TestPublishedPorts(t *testing.T) {
	far := outside(t)
	s := open(t)
	mustCreate(t, s, network.CreateRequest{Name: "other"})
	a, b, c := newBox(t), newBox(t), newBox(t)
	got := a.attach(s, AllocateRequest{Ports: portMap("|28080|8080/tcp", "127.0.0.1|28081|8080/tcp", "192.0.2.1|28082|8080/tcp", "||9000/udp")})
	b.attach(s, AllocateRequest{})
	c.attach(s, AllocateRequest{Networks: map[string]*network.EndpointSettings{"other": {}}})
	defer a.release(s)
	defer b.release(s)
	defer c.release(s)
	a.serve(8080, "a")
	if p := got.Ports[network.MustParsePort("8080/tcp")]; len(p) != 3 || p[0].HostIP.String() != "0.0.0.0" || p[0].HostPort != "28080" {
		t.Errorf("ports: %+v", got.Ports)
	}
	if p := got.Ports[network.MustParsePort("9000/udp")]; len(p) != 1 || p[0].HostPort == "" || p[0].HostPort == "0" {
		t.Errorf("a free port: %+v", p)
	}
	for name, row := range map[string]struct {
		get  func(string) (string, error)
		at   string
		fine bool
	}{
		"loopback":                        {get, "127.0.0.1:28080", true},
		"another loopback address":        {get, "127.1.2.3:28080", true},
		"own address":                     {get, "192.0.2.1:28080", true},
		"bridge address":                  {get, "172.17.0.1:28080", true},
		"other host":                      {far.get, "192.0.2.1:28080", true},
		"itself":                          {a.get, "192.0.2.1:28080", true},
		"neighbour":                       {b.get, "192.0.2.1:28080", true},
		"neighbour, gateway":              {b.get, "172.17.0.1:28080", true},
		"another network":                 {c.get, "192.0.2.1:28080", true},
		"loopback only, here":             {get, "127.0.0.1:28081", true},
		"loopback only, own address":      {get, "192.0.2.1:28081", false},
		"loopback only, other host":       {far.get, "192.0.2.1:28081", false},
		"one address":                     {far.get, "192.0.2.1:28082", true},
		"one address, from here":          {get, "192.0.2.1:28082", true},
		"one address, through loopback":   {get, "127.0.0.1:28082", false},
		"one address, through the bridge": {b.get, "172.17.0.1:28082", false},
		"a port that nobody published":    {far.get, "192.0.2.1:8080", false},
	} {
		out, err := row.get(row.at)
		if row.fine && (err != nil || out != "a") || !row.fine && err == nil {
			t.Errorf("%s: %q, %v", name, out, err)
		}
	}
	// A neighbour on the wire may send packets for 127.0.0.1: they are not to arrive, neither at published ports nor anywhere.
	far.mustRun("sysctl", "-qw", "net.ipv4.conf.all.route_localnet=1")
	far.mustRun("ip", "route", "del", "local", "127.0.0.0/8", "dev", "lo", "table", "local")
	far.mustRun("ip", "route", "del", "local", "127.0.0.1", "dev", "lo", "table", "local")
	far.mustRun("ip", "route", "add", "127.0.0.1", "via", "192.0.2.1", "src", "192.0.2.9")
	for _, port := range []string{"28080", "28081"} {
		if out, err := far.get("127.0.0.1:" + port); err == nil {
			t.Errorf("port %s of 127.0.0.1 from the wire: %q", port, out)
		}
	}
	b.mustRun("sysctl", "-qw", "net.ipv4.conf.all.route_localnet=1")
	b.mustRun("ip", "route", "del", "local", "127.0.0.0/8", "dev", "lo", "table", "local")
	b.mustRun("ip", "route", "del", "local", "127.0.0.1", "dev", "lo", "table", "local")
	b.mustRun("ip", "route", "add", "127.0.0.1", "via", "172.17.0.1", "src", "172.17.0.3")
	local := exec.Command("busybox", "httpd", "-f", "-p", "127.0.0.1:28099", "-h", t.TempDir())
	if err := local.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { local.Process.Kill(); local.Wait() }()
	eventually(t, func() error { _, err := get("127.0.0.1:28099"); return err })
	for _, port := range []string{"28080", "28081", "28099"} {
		if out, err := b.get("127.0.0.1:" + port); err == nil {
			t.Errorf("port %s of 127.0.0.1 from a container: %q", port, out)
		}
	}
	a.release(s)
	if out, err := get("127.0.0.1:28080"); err == nil {
		t.Errorf("after the release: %q", out)
	}
}

func TestRowOfPorts(t *testing.T) {
	s := open(t)
	a := newBox(t)
	ports := network.PortMap{}
	for i := 30000; i < 31000; i++ {
		p := fmt.Sprintf("|%d|%d/tcp", i, i)
		for k, v := range portMap(p) {
			ports[k] = v
		}
	}
	a.attach(s, AllocateRequest{Ports: ports})
	defer a.release(s)
	a.serve(30500, "middle")
	a.serve(30999, "last")
	for port, want := range map[string]string{"30500": "middle", "30999": "last"} {
		if out, err := get("127.0.0.1:" + port); err != nil || out != want {
			t.Errorf("port %s: %q, %v", port, out, err)
		}
	}
	out, err := exec.Command("nft", "list", "table", "inet", s.names.table).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "30000-30999") {
		t.Errorf("the row is no single element: %v, %s", err, out)
	}
}

func TestLeavesNothing(t *testing.T) {
	before := snapshot(t)
	s := open(t)
	id := mustCreate(t, s, network.CreateRequest{Name: "one"})
	for range 3 {
		var boxes []*box
		for range 5 {
			b := newBox(t)
			b.attach(s, AllocateRequest{Networks: map[string]*network.EndpointSettings{"bridge": {}, id: {}}, Ports: portMap("||80/tcp")})
			boxes = append(boxes, b)
		}
		for _, b := range boxes {
			b.release(s)
		}
		s.later.drain()
	}
	if list, _ := os.ReadDir(s.o.live()); len(list) > 1 {
		t.Errorf("live endpoints: %v", list)
	}
	if err := s.Remove(t.Context(), "one"); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if after := snapshot(t); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

// snapshot is what the engine could leave in the namespace.
func snapshot(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	for _, args := range [][]string{{"ip", "-o", "-br", "link"}, {"nft", "list", "ruleset"}, {"ip", "route"}} {
		out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
		if err != nil {
			t.Fatalf("%q: %v: %s", args, err, out)
		}
		b.Write(out)
	}
	return b.String()
}

// TestSenderFollowsThePort: who keeps sending UDP from one port reaches the container that has the published port now.
func TestSenderFollowsThePort(t *testing.T) {
	s := open(t)
	c, err := net.Dial("udp4", "127.0.0.1:28053")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := echo(c); err == nil {
		t.Fatal("an answer without a container")
	}
	for range 2 {
		a := newBox(t)
		a.attach(s, AllocateRequest{Ports: portMap("|28053|9053/udp")})
		server := a.command("python3", "-c", upper)
		if err := server.Start(); err != nil {
			t.Fatal(err)
		}
		eventually(t, func() error { return echo(c) })
		a.release(s)
		server.Process.Kill()
		server.Wait()
		if err := echo(c); err == nil {
			t.Error("an answer after the release")
		}
	}
}

// upper is a server that answers packets at port 9053 in capitals.
const upper = "import socket\ns=socket.socket(socket.AF_INET,socket.SOCK_DGRAM)\ns.bind(('',9053))\nwhile True:\n d,p=s.recvfrom(99)\n s.sendto(d.upper(),p)"

func TestNoneAndHost(t *testing.T) {
	s := open(t)
	a := newBox(t)
	got := a.attach(s, AllocateRequest{Networks: map[string]*network.EndpointSettings{"none": {}}, Ports: portMap("|28080|80/tcp")})
	if out := a.mustRun("ip", "-o", "-br", "addr"); !strings.Contains(out, "127.0.0.1/8") || strings.Contains(out, "eth0") {
		t.Errorf("links on none: %s", out)
	}
	if len(got.Ports[network.MustParsePort("80/tcp")]) != 0 {
		t.Errorf("ports of a container without a network: %v", got.Ports)
	}
	a.release(s)
	before := snapshot(t)
	id := newID()
	request := AllocateRequest{ContainerID: id, Name: "h", Networks: map[string]*network.EndpointSettings{"host": {}}}
	b, err := s.Allocate(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	home, err := link.Home()
	if err != nil {
		t.Fatal(err)
	}
	defer home.Close()
	if err := s.Attach(t.Context(), id, home); err != nil {
		t.Fatal(err)
	}
	hosts, _ := os.ReadFile("/etc/hosts")
	if string(b.Hosts) != string(hosts)+"127.0.0.1\thost.docker.internal host.containers.internal\n" || b.Networks["host"] == nil {
		t.Errorf("on the host's network: %+v", b)
	}
	if n, err := s.Inspect(t.Context(), "host"); err != nil || len(n.Containers) != 1 {
		t.Errorf("the network host: %+v, %v", n, err)
	}
	if err := s.Release(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if after := snapshot(t); after != before {
		t.Errorf("a container on the host's network changed it: %s, then %s", before, after)
	}
	request.Networks["bridge"] = &network.EndpointSettings{}
	if _, err := s.Allocate(t.Context(), request); !errdefs.IsInvalidArgument(err) {
		t.Errorf("on host and bridge: %v", err)
	}
}

func TestEvents(t *testing.T) {
	s := open(t)
	began := time.Now()
	id := mustCreate(t, s, network.CreateRequest{Name: "one"})
	a := newBox(t)
	a.attach(s, AllocateRequest{Networks: map[string]*network.EndpointSettings{"one": {}}})
	a.release(s)
	if err := s.Remove(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Prune(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	var got []string
	err := s.o.Events.Subscribe(t.Context(), began.Add(-time.Second), time.Now(), func(m events.Message) error {
		if m.Action == events.ActionPrune && m.Actor.ID == "" && m.Type == events.NetworkEventType {
			got = append(got, "prune")
			return nil
		}
		if m.Actor.ID != id || m.Actor.Attributes["name"] != "one" || m.Actor.Attributes["type"] != "bridge" || m.Type != events.NetworkEventType {
			t.Errorf("event %+v", m)
		}
		got = append(got, string(m.Action)+" "+m.Actor.Attributes["container"])
		return nil
	})
	if want := "create |connect " + a.id + "|disconnect " + a.id + "|destroy |prune"; err != nil || strings.Join(got, "|") != want {
		t.Errorf("events %q, %v; not %q", got, err, want)
	}
}

// TestDefaultNetworkYields: while no engine ran the host came to use the default network's addresses.
func TestDefaultNetworkYields(t *testing.T) {
	s := open(t)
	s.Close()
	mustHost(t, "ip", "link", "add", "vpn0", "type", "bridge")
	t.Cleanup(func() { exec.Command("ip", "link", "del", "vpn0").Run() })
	mustHost(t, "ip", "addr", "add", "172.17.5.1/24", "dev", "vpn0")
	mustHost(t, "ip", "link", "set", "vpn0", "up")
	again := reopen(t, s.o)
	if g := again.Gateway().String(); g != "172.18.0.1" {
		t.Errorf("gateway %s", g)
	}
	a := newBox(t)
	a.attach(again, AllocateRequest{})
	a.serve(80, "a")
	if got, err := get("172.18.0.2"); err != nil || got != "a" {
		t.Errorf("%q, %v", got, err)
	}
}

// TestManyAtOnce: containers come and go at the same time, and each has what is its own.
func TestManyAtOnce(t *testing.T) {
	s := open(t)
	mustCreate(t, s, network.CreateRequest{Name: "one"})
	var wg sync.WaitGroup
	var mu sync.Mutex
	seen := map[string]bool{}
	for range 8 {
		boxes := []*box{newBox(t), newBox(t), newBox(t)}
		wg.Go(func() {
			for _, b := range boxes {
				r := AllocateRequest{ContainerID: b.id, Name: b.id[:8], Networks: map[string]*network.EndpointSettings{"bridge": {}, "one": {}}, Ports: portMap("||80/tcp")}
				a, err := s.Allocate(t.Context(), r)
				if err == nil {
					err = s.Attach(t.Context(), b.id, b.netns)
				}
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				for _, key := range []string{a.Networks["bridge"].IPAddress.String(), a.Networks["one"].IPAddress.String(), a.Ports[network.MustParsePort("80/tcp")][0].HostPort} {
					if seen[key] {
						t.Errorf("%s was given out twice", key)
					}
					seen[key] = true
				}
				mu.Unlock()
				if _, err := s.List(t.Context(), nil); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if !s.fire.Whole() {
		t.Error("the rules are not whole")
	}
	if n, err := s.Inspect(t.Context(), "one"); err != nil || len(n.Containers) != 24 {
		t.Errorf("%d containers, %v", len(n.Containers), err)
	}
	if err := s.Retain(t.Context(), nil); err != nil {
		t.Error(err)
	}
	s.later.drain()
	if out := mustHost(t, "ip", "-o", "link"); strings.Contains(out, s.names.ends) {
		t.Errorf("ends are left: %s", out)
	}
	if n := len(s.networks[mustID(s, "one")].v4.used); n != 3 {
		t.Errorf("%d addresses are in use, not the network's own three", n)
	}
}

func mustID(s *Service, name string) string {
	n, _ := s.find(name)
	return n.ID
}

func TestOwnSettingsWin(t *testing.T) {
	s := open(t)
	a := newBox(t)
	a.attach(s, AllocateRequest{Sysctls: map[string]string{"net/ipv4/ip_unprivileged_port_start": "1024", "net.ipv6.conf.all.disable_ipv6": "0"}})
	defer a.release(s)
	if out := a.mustRun("cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start", "/proc/sys/net/ipv6/conf/eth0/disable_ipv6"); out != "1024\n0\n" {
		t.Errorf("settings that the container made: %q", out)
	}
}

// TestNothingIsLostByTheEngine: containers that came and went leave neither descriptors nor goroutines in the engine.
func TestNothingIsLostByTheEngine(t *testing.T) {
	s := open(t)
	mustCreate(t, s, network.CreateRequest{Name: "one"})
	cycle := func() {
		t.Run("cycle", func(t *testing.T) {
			for range 4 {
				b := newBox(t)
				b.attach(s, AllocateRequest{Name: "b", Networks: map[string]*network.EndpointSettings{"one": {}, "bridge": {}}, Ports: portMap("||80/tcp", "||81/udp")})
				if b.find("b") == "NXDOMAIN" {
					t.Error("the resolver does not work")
				}
				if err := s.Disconnect(t.Context(), "bridge", b.id, b.netns); err != nil {
					t.Error(err)
				}
				b.release(s)
			}
			s.later.drain()
		})
	}
	count := func() (descriptors, goroutines int) {
		list, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(list), runtime.NumGoroutine()
	}
	cycle()
	descriptors, goroutines := count()
	for range 4 {
		cycle()
	}
	eventually(t, func() error {
		if d, g := count(); d > descriptors || g > goroutines {
			return fmt.Errorf("%d descriptors and %d goroutines, %d and %d before", d, g, descriptors, goroutines)
		}
		return nil
	})
}

// TestFailedAttach: what cannot be plumbed leaves nothing when it is released.
func TestFailedAttach(t *testing.T) {
	before := snapshot(t)
	s := open(t)
	a := newBox(t)
	r := AllocateRequest{ContainerID: a.id, Name: "a", Networks: map[string]*network.EndpointSettings{
		"bridge": {DriverOpts: map[string]string{"com.docker.network.endpoint.sysctls": "net.ipv4.conf.IFNAME.nothing=1"}},
	}, Ports: portMap("|28080|80/tcp")}
	if _, err := s.Allocate(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if err := s.Attach(t.Context(), a.id, a.netns); err == nil {
		t.Error("an interface with a setting that there is not")
	}
	a.release(s)
	if err := s.Attach(t.Context(), a.id, a.netns); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("attach what is released: %v", err)
	}
	r.Networks["bridge"] = &network.EndpointSettings{}
	if _, err := s.Allocate(t.Context(), r); err != nil {
		t.Errorf("the same again: %v", err)
	}
	a.release(s)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if after := snapshot(t); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}
