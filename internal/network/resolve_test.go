package network

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/moby/moby/api/types/network"

	"wherry.dev/wherry/internal/network/link"
)

// ask sends a question to the resolver at 127.0.0.11 from inside.
func (b *box) ask(proto, name string, kind uint16) (*dns.Msg, error) {
	return b.askAt("127.0.0.11", proto, name, kind)
}

func (b *box) askAt(server, proto, name string, kind uint16) (*dns.Msg, error) {
	home, err := link.Home()
	if err != nil {
		return nil, err
	}
	defer home.Close()
	var conn net.Conn
	err = link.Inside(b.netns, home, func() (err error) {
		conn, err = net.DialTimeout(proto, server+":53", 2*time.Second)
		return err
	})
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	q := new(dns.Msg).SetQuestion(dns.Fqdn(name), kind)
	c := dns.Client{Net: proto, Timeout: 5 * time.Second}
	a, _, err := c.ExchangeWithConn(q, &dns.Conn{Conn: conn})
	return a, err
}

// find is the sorted answer to a question for a name's addresses.
func (b *box) find(name string) string {
	b.t.Helper()
	a, err := b.ask("udp", name, dns.TypeA)
	if err != nil {
		return err.Error()
	}
	var out []string
	for _, rr := range a.Answer {
		if rr, ok := rr.(*dns.A); ok {
			out = append(out, rr.A.String())
		}
	}
	slices.Sort(out)
	if len(out) == 0 {
		return dns.RcodeToString[a.Rcode]
	}
	return strings.Join(out, " ")
}

// withResolvers gives the test's mount namespace another /etc/resolv.conf.
func withResolvers(t *testing.T, content string) {
	t.Helper()
	path := t.TempDir() + "/resolv.conf"
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount(path, "/etc/resolv.conf", "", syscall.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Unmount("/etc/resolv.conf", syscall.MNT_DETACH) })
}

// upstream is a name server at 127.0.0.53, where systemd-resolved's stub is.
func upstream(t *testing.T) {
	t.Helper()
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		a := new(dns.Msg).SetReply(q)
		name := q.Question[0].Name
		switch {
		case strings.HasSuffix(name, "slow.example."):
			return // nobody answers that
		case name == "world.example." && q.Question[0].Qtype == dns.TypeA:
			a.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 9}, A: net.IPv4(203, 0, 113, 7)}}
		case name == "long.example.":
			for range 40 {
				a.Answer = append(a.Answer, &dns.TXT{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: 9}, Txt: []string{strings.Repeat("x", 100)}})
			}
			if _, udp := w.RemoteAddr().(*net.UDPAddr); udp {
				a.Truncate(512)
			}
		default:
			a.Rcode = dns.RcodeNameError
		}
		w.WriteMsg(a)
	})
	for _, proto := range []string{"udp", "tcp"} {
		ready := make(chan struct{})
		server := &dns.Server{Addr: "127.0.0.53:53", Net: proto, Handler: handler, NotifyStartedFunc: func() { close(ready) }}
		done := make(chan error, 1)
		go func() { done <- server.ListenAndServe() }()
		select {
		case <-ready:
		case err := <-done:
			t.Fatal(err)
		}
		t.Cleanup(func() { server.Shutdown(); <-done })
	}
	withResolvers(t, "nameserver 127.0.0.53\nsearch corp.example\noptions edns0\n")
}

// TestNamesBehindContainer: the resolver of a privileged container answers at the host's address, too, to the container and to namespaces behind it: kind and k3d
// write that address into /etc/resolv.conf of their nodes, since pods do not reach 127.0.0.11. Other containers find there what the host has.
func TestNamesBehindContainer(t *testing.T) {
	withResolvers(t, "nameserver 192.0.2.53\n")
	s := open(t)
	mustCreate(t, s, network.CreateRequest{Name: "one"})
	on := map[string]*network.EndpointSettings{"one": {}}
	node, plain, pod := newBox(t), newBox(t), newBox(t)
	got := node.attach(s, AllocateRequest{Name: "node", Networks: on, Privileged: true})
	defer node.release(s)
	plain.attach(s, AllocateRequest{Name: "plain", Networks: on})
	defer plain.release(s)
	for _, c := range [][]string{
		{"ip", "link", "add", "pod0", "type", "veth", "peer", "name", "eth0", "netns", fmt.Sprint(pod.pid)},
		{"ip", "address", "add", "10.42.0.1/24", "dev", "pod0"}, {"ip", "link", "set", "pod0", "up"},
		{"sysctl", "-q", "-w", "net.ipv4.conf.pod0.route_localnet=1"},
	} {
		node.mustRun(c...)
	}
	for _, c := range [][]string{
		{"ip", "address", "add", "10.42.0.5/24", "dev", "eth0"}, {"ip", "link", "set", "eth0", "up"}, {"ip", "route", "add", "default", "via", "10.42.0.1"},
	} {
		pod.mustRun(c...)
	}
	settings := got.Networks["one"]
	host, want := settings.Gateway.String(), settings.IPAddress.String()
	for _, row := range []struct {
		from   *box
		server string
	}{{node, host}, {node, "127.0.0.11"}, {pod, host}} {
		for _, proto := range []string{"udp", "tcp"} {
			a, err := row.from.askAt(row.server, proto, "node", dns.TypeA)
			if err != nil || len(a.Answer) != 1 || a.Answer[0].(*dns.A).A.String() != want {
				t.Errorf("at %s by %s: %v %v, want %s", row.server, proto, a, err, want)
			}
		}
	}
	if a, err := plain.askAt(host, "udp", "node", dns.TypeA); err == nil {
		t.Errorf("a container that is not privileged gets an answer at the host's address: %v", a)
	}
}

func TestNames(t *testing.T) {
	upstream(t)
	s := open(t)
	for _, name := range []string{"one", "two"} {
		mustCreate(t, s, network.CreateRequest{Name: name})
	}
	mustCreate(t, s, network.CreateRequest{Name: "inner", Internal: true})
	boxes := map[string]*box{}
	address := map[string]string{}
	for _, row := range []struct {
		name, network string
		settings      network.EndpointSettings
	}{
		{"a", "one", network.EndpointSettings{Aliases: []string{"web"}}},
		{"b", "one", network.EndpointSettings{Aliases: []string{"web", "Big"}, Links: []string{"a:friend"}}},
		{"c", "two", network.EndpointSettings{}},
		{"d", "inner", network.EndpointSettings{}},
	} {
		b := newBox(t)
		boxes[row.name] = b
		got := b.attach(s, AllocateRequest{Name: row.name, Hostname: "host-" + row.name, Networks: map[string]*network.EndpointSettings{row.network: &row.settings}})
		defer b.release(s)
		address[row.name] = got.Networks[row.network].IPAddress.String()
		if conf := string(got.ResolvConf); conf != "nameserver 127.0.0.11\nsearch corp.example\noptions edns0 ndots:0\n" {
			t.Errorf("resolv.conf of %s: %q", row.name, conf)
		}
	}
	a, b := boxes["a"], boxes["b"]
	for _, row := range []struct{ who, name, want string }{
		{"a", "b", address["b"]},
		{"a", "B", address["b"]},
		{"a", "b.one", address["b"]},
		{"a", b.id[:12], address["b"]},
		{"a", "BIG", address["b"]},
		{"a", "web", address["a"] + " " + address["b"]},
		{"a", "host-b", address["b"]},
		{"a", "c", "NXDOMAIN"},
		{"a", "friend", "NXDOMAIN"},
		{"b", "friend", address["a"]},
		{"c", "web", "NXDOMAIN"},
		{"a", "world.example", "203.0.113.7"},
		{"d", "d", address["d"]},
		{"d", "world.example", "SERVFAIL"},
	} {
		if got := boxes[row.who].find(row.name); got != row.want {
			t.Errorf("%s asks for %s: %s, not %s", row.who, row.name, got, row.want)
		}
	}
	first := map[string]bool{}
	for range 8 {
		m, err := a.ask("tcp", "web", dns.TypeA)
		if err != nil || len(m.Answer) != 2 {
			t.Fatalf("over TCP: %v, %v", m, err)
		}
		first[m.Answer[0].(*dns.A).A.String()] = true
	}
	if len(first) != 2 {
		t.Errorf("an alias of two begins with %v", first)
	}
	if m, err := a.ask("udp", "b", dns.TypeAAAA); err != nil || m.Rcode != dns.RcodeSuccess || len(m.Answer) != 0 {
		t.Errorf("a family that the container has not: %v, %v", m, err)
	}
	reverse, _ := dns.ReverseAddr(address["b"])
	if m, err := a.ask("udp", reverse, dns.TypePTR); err != nil || len(m.Answer) != 1 || m.Answer[0].(*dns.PTR).Ptr != "b.one." {
		t.Errorf("reverse: %v, %v", m, err)
	}
	if m, err := a.ask("udp", "long.example", dns.TypeTXT); err != nil || !m.Truncated {
		t.Errorf("a long answer in one packet: %v, %v", m, err)
	}
	if m, err := a.ask("tcp", "long.example", dns.TypeTXT); err != nil || len(m.Answer) != 40 {
		t.Errorf("a long answer: %v, %v", m, err)
	}
	s.Rename(b.id, "bb")
	if got := a.find("bb") + a.find("b"); got != address["b"]+"NXDOMAIN" {
		t.Errorf("after a rename: %s", got)
	}
	b.release(s)
	if got := a.find("bb") + a.find("web"); got != "NXDOMAIN"+address["a"] {
		t.Errorf("after a release: %s", got)
	}
	s.Close()
	if _, err := a.ask("udp", "a", dns.TypeA); err == nil {
		t.Error("an answer while no engine runs")
	}
	again := reopen(t, s.o)
	if got := a.find("a"); got != address["a"] {
		t.Errorf("in the next life: %s", got)
	}
	for _, x := range boxes {
		x.release(again)
	}
}

func TestPort53StaysFree(t *testing.T) {
	s := open(t)
	mustCreate(t, s, network.CreateRequest{Name: "one"})
	a := newBox(t)
	got := a.attach(s, AllocateRequest{Name: "a", Networks: map[string]*network.EndpointSettings{"one": {}}})
	defer a.release(s)
	home, err := link.Home()
	if err != nil {
		t.Fatal(err)
	}
	defer home.Close()
	var listener net.Listener
	var packets net.PacketConn
	err = link.Inside(a.netns, home, func() (err error) {
		if listener, err = net.Listen("tcp4", "0.0.0.0:53"); err == nil {
			packets, err = net.ListenPacket("udp4", "0.0.0.0:53")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	defer packets.Close()
	if found := a.find("a"); found != got.Networks["one"].IPAddress.String() {
		t.Errorf("the resolver says %s", found)
	}
}

func TestDefaultBridgeKnowsNoNames(t *testing.T) {
	s := open(t)
	withResolvers(t, "nameserver 127.0.0.1\nnameserver 198.51.100.3\n")
	a, b, c := newBox(t), newBox(t), newBox(t)
	got := a.attach(s, AllocateRequest{Name: "a", Hostname: "host-a", Domainname: "corp.example", ExtraHosts: []string{"db:10.1.1.1", "host.docker.internal:host-gateway"}})
	if conf := string(got.ResolvConf); conf != "nameserver 198.51.100.3\n" {
		t.Errorf("resolv.conf: %q", conf)
	}
	for _, line := range []string{"127.0.0.1\tlocalhost\n", "10.1.1.1\tdb\n", "172.17.0.1\thost.docker.internal\n", "172.17.0.2\thost-a.corp.example host-a\n"} {
		if !strings.Contains(string(got.Hosts), line) {
			t.Errorf("hosts has no %q: %s", line, got.Hosts)
		}
	}
	linked := b.attach(s, AllocateRequest{Name: "b", DNS: []string{"198.51.100.9"}, DNSOptions: []string{"timeout:1"}, DNSSearch: []string{"x.example"}, Networks: map[string]*network.EndpointSettings{"bridge": {Links: []string{"/a:/b/store"}}}})
	if !strings.Contains(string(linked.Hosts), "172.17.0.2\tstore host-a a "+a.id[:12]+"\n") {
		t.Errorf("hosts of a linked container: %s", linked.Hosts)
	}
	if conf := string(linked.ResolvConf); conf != "nameserver 198.51.100.9\nsearch x.example\noptions timeout:1\n" {
		t.Errorf("resolv.conf: %q", conf)
	}
	// Where the host only asks itself, the container asks the engine, which asks the host's.
	upstream(t)
	got = c.attach(s, AllocateRequest{Name: "c"})
	if !strings.Contains(string(got.ResolvConf), "nameserver 127.0.0.11") || c.find("world.example") != "203.0.113.7" || c.find("a") != "NXDOMAIN" {
		t.Errorf("resolv.conf %q, the world %s, a neighbour %s", got.ResolvConf, c.find("world.example"), c.find("a"))
	}
	for _, x := range []*box{a, b, c} {
		x.release(s)
	}
	if _, err := s.Allocate(t.Context(), AllocateRequest{ContainerID: newID(), Name: "x", Networks: map[string]*network.EndpointSettings{"bridge": {Links: []string{"nobody"}}}}); err == nil {
		t.Error("a link to nobody")
	}
}

// TestFloodOfQuestions: a container that asks without end for what nobody answers takes nothing from its neighbour, and itself finds the
// containers beside it.
func TestFloodOfQuestions(t *testing.T) {
	upstream(t)
	s := open(t)
	mustCreate(t, s, network.CreateRequest{Name: "one"})
	a, b := newBox(t), newBox(t)
	a.attach(s, AllocateRequest{Name: "a", Networks: map[string]*network.EndpointSettings{"one": {}}})
	address := b.attach(s, AllocateRequest{Name: "b", Networks: map[string]*network.EndpointSettings{"one": {}}}).Networks["one"].IPAddress.String()
	defer a.release(s)
	defer b.release(s)
	home, err := link.Home()
	if err != nil {
		t.Fatal(err)
	}
	defer home.Close()
	var conn net.Conn
	err = link.Inside(a.netns, home, func() (err error) {
		conn, err = net.Dial("udp", "127.0.0.11:53")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	before := runtime.NumGoroutine()
	for i := range 20000 {
		packed, err := new(dns.Msg).SetQuestion(fmt.Sprintf("x%d.slow.example.", i), dns.TypeA).Pack()
		if err != nil {
			t.Fatal(err)
		}
		conn.Write(packed) // some find no room in the socket: that is the flooder's own loss
		if i%5000 == 4999 {
			if got := b.find("b") + " " + b.find("world.example"); got != address+" 203.0.113.7" {
				t.Errorf("the neighbour's answers: %s", got)
			}
			eventually(t, func() error { // its own socket is full for a moment: a client asks again
				if got := a.find("b"); got != address {
					return fmt.Errorf("its own answer: %s", got)
				}
				return nil
			})
			if n := runtime.NumGoroutine() - before; n > 1000 {
				t.Errorf("%d goroutines more", n)
			}
		}
	}
	conn.Close()
}

// TestServerBesideTheHost: a name server on a macvlan network, which the host does not reach, is asked from inside the container that names it.
func TestServerBesideTheHost(t *testing.T) {
	outside(t)
	withResolvers(t, "nameserver 192.0.2.99\n") // nobody
	s := open(t)
	subnet := network.IPAMConfig{Subnet: netip.MustParsePrefix("192.0.2.0/24"), Gateway: netip.MustParseAddr("192.0.2.9")}
	mustCreate(t, s, network.CreateRequest{Name: "lan", Driver: "macvlan", Options: map[string]string{"parent": "uplink0"}, IPAM: &network.IPAM{Config: []network.IPAMConfig{subnet}}})
	at, a := newBox(t), newBox(t)
	address := at.attach(s, onNetwork("lan", network.EndpointSettings{})).Networks["lan"].IPAddress.String()
	var packets net.PacketConn
	var stream net.Listener
	err := link.Inside(at.netns, s.home, func() (err error) {
		if packets, err = net.ListenPacket("udp", address+":53"); err == nil {
			stream, err = net.Listen("tcp", address+":53")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		r := new(dns.Msg).SetReply(q)
		switch q.Question[0].Qtype {
		case dns.TypeA:
			r.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 9}, A: net.IPv4(203, 0, 113, 9)}}
		case dns.TypePTR:
			r.Answer = []dns.RR{&dns.PTR{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypePTR, Class: dns.ClassINET, Ttl: 9}, Ptr: "printer.lan."}}
		}
		w.WriteMsg(r)
	})
	for _, server := range []*dns.Server{{PacketConn: packets, Handler: handler}, {Listener: stream, Handler: handler}} {
		done := make(chan error, 1)
		go func() { done <- server.ActivateAndServe() }()
		t.Cleanup(func() { server.Shutdown(); <-done })
	}
	r := onNetwork("lan", network.EndpointSettings{})
	r.DNS = []string{address}
	a.attach(s, r)
	defer func() { a.release(s); at.release(s) }()
	for _, proto := range []string{"udp", "tcp"} {
		if got, err := a.ask(proto, "web.lan", dns.TypeA); err != nil || len(got.Answer) != 1 {
			t.Errorf("%s: %v, %v", proto, got, err)
		}
	}
	// Who has an address of the LAN without being a container is known there.
	if got, err := a.ask("udp", "200.2.0.192.in-addr.arpa", dns.TypePTR); err != nil || len(got.Answer) != 1 || !strings.Contains(got.Answer[0].String(), "printer.lan.") {
		t.Errorf("a machine of the LAN: %v, %v", got, err)
	}
	if got, err := a.ask("udp", "2.2.0.192.in-addr.arpa", dns.TypePTR); err != nil || len(got.Answer) != 1 || !strings.Contains(got.Answer[0].String(), ".lan.") || strings.Contains(got.Answer[0].String(), "printer") {
		t.Errorf("a container: %v, %v", got, err)
	}
}
