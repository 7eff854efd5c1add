package network

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/network"

	"wherry.dev/wherry/internal/network/link"
)

// TestExplanationsAreTrue holds what is said of who reaches a port against connections from another host, this one, and neighbours.
func TestExplanationsAreTrue(t *testing.T) {
	s := open(t)
	far := outside(t)
	mustCreate(t, s, network.CreateRequest{Name: "two"})
	mustCreate(t, s, network.CreateRequest{Name: "shut", Internal: true})
	web, near, other, inner := newBox(t), newBox(t), newBox(t), newBox(t)
	web.attach(s, AllocateRequest{Name: "web", Ports: portMap("|28080|8080/tcp", "127.0.0.1|28081|8080/tcp", "192.0.2.1|28082|8080/tcp", "|28083|9/tcp")})
	near.attach(s, AllocateRequest{})
	other.attach(s, AllocateRequest{Networks: map[string]*network.EndpointSettings{"two": {}}})
	inner.attach(s, AllocateRequest{Networks: map[string]*network.EndpointSettings{"shut": {}}})
	defer func() {
		for _, b := range []*box{web, near, other, inner} {
			b.release(s)
		}
	}()
	web.serve(8080, "web")
	host, err := net.Listen("tcp4", "0.0.0.0:28084")
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	froms := map[string]func(string) (string, error){
		"this machine": get, "other machines by uplink0 (192.0.2.0/24)": far.get, "containers on network bridge": near.get,
		"containers on network two": other.get, "containers on network shut": inner.get,
	}
	check := func(when string, port uint16) {
		t.Helper()
		list, err := ExplainPort(s, port, network.TCP)
		if err != nil || len(list) != 1 {
			t.Fatalf("%s, port %d: %+v, %v", when, port, list, err)
		}
		l, found := list[0], 0
		for _, r := range l.Reach {
			get := froms[r.From]
			if get == nil {
				continue
			}
			found++
			address := "192.0.2.1"
			if l.Address.IsLoopback() && r.From == "this machine" {
				address = "127.0.0.1"
			}
			if r.From == "this machine" {
				_, err := get(fmt.Sprintf("[::1]:%d", port))
				if said := r.Why == "at [::1], too"; said != (err == nil) {
					t.Errorf("%s, port %d: at [::1] it is said to be %t: %v", when, port, said, err)
				}
			}
			_, err := get(fmt.Sprintf("%s:%d", address, port))
			if want := map[bool]string{true: reachYes, false: reachNo}[err == nil]; r.Can != want {
				t.Errorf("%s, port %d, from %s: said to be %s (%s), and it is %s: %v", when, port, r.From, r.Can, r.Why, want, err)
			}
		}
		if found != len(froms) {
			t.Errorf("%s, port %d: %+v", when, port, l.Reach)
		}
		if l.Listens != (port != 28083) || l.Published == nil || l.Name != "web" || port == 28080 && !strings.Contains(l.Process, "busybox") && !strings.Contains(l.Process, "httpd") {
			t.Errorf("%s, port %d: %+v", when, port, l)
		}
		if out := nft(t, "list", "map", "inet", s.names.table, l.Map); !strings.Contains(out, l.Element) {
			t.Errorf("%s, port %d: no %q in %s", when, port, l.Element, out)
		}
	}
	for port := uint16(28080); port <= 28083; port++ {
		check("without a firewall", port)
	}
	nft(t, "-f", "-", "add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }; add rule ip filter FORWARD ct state established,related accept")
	defer nft(t, "delete", "table", "ip", "filter")
	check("behind a firewall that drops what it forwards", 28080)
	for _, rule := range []string{"iifname uplink0 tcp dport 8080 accept", "ip daddr 172.16.0.0/12 tcp dport { 22, 8080 } iifname != uplink0 accept"} {
		nft(t, "add rule ip filter FORWARD "+rule)
		check("and accepts "+rule, 28080)
	}
	// As firewalld has it: zones by interface, and what was published passes.
	nft(t, "flush chain ip filter FORWARD")
	nft(t, "add rule ip filter FORWARD ct state { established, related } accept")
	nft(t, "-f", "-", "add chain ip filter ZONES; add chain ip filter ZONE_public; add rule ip filter ZONES iifname uplink0 goto ZONE_public; add rule ip filter ZONE_public reject with icmp admin-prohibited; add rule ip filter FORWARD jump ZONES")
	check("behind zones", 28080)
	nft(t, "insert rule ip filter FORWARD ct status dnat accept")
	check("with what is published let through", 28080)
	if err := link.SetSysctl("net/ipv4/conf/uplink0/forwarding", "0"); err != nil {
		t.Fatal(err)
	}
	check("where nothing is forwarded that comes from there", 28080)
	list, err := ExplainPort(s, 28084, network.TCP)
	if err != nil || len(list) != 1 || list[0].Published != nil || !list[0].Listens {
		t.Errorf("a process of the host: %+v, %v", list, err)
	}
	if list, err := ExplainPort(s, 28085, network.TCP); err != nil || len(list) != 0 {
		t.Errorf("nobody's port: %+v, %v", list, err)
	}
}

// TestExplainWithoutIPv6: that others do not come by IPv6 is said of ports of containers without it, and of no other.
func TestExplainWithoutIPv6(t *testing.T) {
	s := open(t)
	mustCreate(t, s, network.CreateRequest{Name: "both", EnableIPv6: new(true)})
	four, both := newBox(t), newBox(t)
	four.attach(s, AllocateRequest{Ports: portMap("|28086|8080/tcp", "127.0.0.1|28087|8080/tcp")})
	both.attach(s, AllocateRequest{Networks: map[string]*network.EndpointSettings{"both": {}}, Ports: portMap("|28088|8080/tcp")})
	for _, b := range []*box{four, both} {
		b.serve(8080, "here")
	}
	for port, said := range map[uint16]bool{28086: true, 28087: false, 28088: false} {
		list, err := ExplainPort(s, port, network.TCP)
		if err != nil || len(list) == 0 {
			t.Fatalf("%d: %v, %v", port, list, err)
		}
		is := func(r Reach) bool {
			return r.From == "other machines by IPv6" && r.Can == reachNo && strings.Contains(r.Why, "network.ipv6 = true")
		}
		if got := slices.ContainsFunc(list[0].Reach, is); got != said {
			t.Errorf("%d: %+v", port, list[0].Reach)
		}
	}
}

// TestThousandsOfPorts: a row of ports is one element, whatever its protocol.
func TestThousandsOfPorts(t *testing.T) {
	s := open(t)
	for _, proto := range []string{"tcp", "udp", "sctp"} {
		ports := network.PortMap{}
		for i := range 5000 {
			ports[network.MustParsePort(fmt.Sprintf("%d/%s", 20000+i, proto))] = []network.PortBinding{{HostPort: fmt.Sprint(20000 + i)}}
		}
		a := newBox(t)
		began := time.Now()
		got := a.attach(s, AllocateRequest{Ports: ports})
		t.Logf("5000 ports of %s: %s", proto, time.Since(began))
		if len(got.Ports) != 5000 {
			t.Errorf("%s: %d ports", proto, len(got.Ports))
		}
		if list := ListPorts(s); len(list) != 1 || list[0].First != 20000 || list[0].Last != 24999 {
			t.Errorf("%s: %+v", proto, list)
		}
		if out := nft(t, "list", "map", "inet", s.names.table, "any_ranges4"); !strings.Contains(out, proto+" . 20000-24999 : ") {
			t.Errorf("%s: %s", proto, out)
		}
		if proto == "tcp" {
			a.serve(24999, "last")
			if got, err := get("127.0.0.1:24999"); err != nil || got != "last" {
				t.Errorf("the last port: %q, %v", got, err)
			}
			// One of them taken back parts the row, and connections to the others go on.
			delete(ports, network.MustParsePort("22000/tcp"))
			if _, err := SetPorts(s, PortsRequest{ContainerID: a.id, Ports: ports}); err != nil {
				t.Fatal(err)
			}
			if list := ListPorts(s); len(list) != 2 || list[0].Last != 21999 || list[1].First != 22001 {
				t.Errorf("without one of them: %+v", list)
			}
		}
		a.release(s)
		if len(ListPorts(s)) != 0 || !s.fire.Whole() {
			t.Errorf("%s: after the release: %+v", proto, ListPorts(s))
		}
	}
}

var errSilent = errors.New("no answer")

// TestNeverMoreOpen: while others flush the rules, nothing is reached that is not published, and what is comes back.
func TestNeverMoreOpen(t *testing.T) {
	far := outside(t)
	s := open(t)
	a := newBox(t)
	got := a.attach(s, AllocateRequest{Ports: portMap("127.0.0.1|28080|8080/tcp", "|28081|8080/tcp")})
	defer a.release(s)
	a.serve(8080, "a")
	targets := []string{"192.0.2.1:28080"}
	if strings.Contains(nft(t, "list", "table", "inet", s.names.table), "flags owner") { // else there is a moment
		targets = append(targets, got.Networks["bridge"].IPAddress.String()+":8080")
	}
	far.mustRun("ip", "route", "add", "172.16.0.0/12", "via", "192.0.2.1")
	nft(t, "add", "table", "ip", "foreign")
	nft(t, "add chain ip foreign mine { type filter hook input priority 5; policy accept; }")
	nft(t, "add rule ip foreign mine counter comment \"theirs\"")
	// Another host tries the port that is for this machine all the time, and the container's own address.
	script := `import socket,sys,time
end=time.time()+float(sys.argv[1])
n=0
while time.time()<end:
    for to in sys.argv[2:]:
        host,port=to.split(':')
        c=socket.socket(); c.settimeout(0.05)
        try:
            c.connect((host,int(port))); print('open',to,flush=True)
        except OSError: pass
        c.close(); n+=1
print('tried',n)`
	probe := make(chan string, 1)
	go func() {
		out, err := far.run(append([]string{"python3", "-c", script, "4"}, targets...)...)
		probe <- fmt.Sprint(out, err)
	}()
	for range 5 {
		nft(t, "flush", "ruleset")
		nft(t, "add", "table", "ip", "foreign")
		eventually(t, func() error {
			if got, err := get("127.0.0.1:28080"); err != nil || got != "a" {
				return fmt.Errorf("%w: %q, %v", errSilent, got, err)
			}
			return nil
		})
	}
	if out := <-probe; strings.Contains(out, "open") || !strings.Contains(out, "tried") {
		t.Errorf("what was reached meanwhile: %s", out)
	}
	nft(t, "delete", "table", "ip", "foreign")
}
