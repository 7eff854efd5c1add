package network

import (
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/network"
	"github.com/vishvananda/netlink"
)

// crowd fills one bridge of a network with endpoints that exist in memory only, and gives what takes them away again.
func crowd(s *Service, id string, annex int) (leave func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.networks[id]
	for i := range portsPerBridge {
		n.endpoints[fmt.Sprint("crowd-", annex, "-", i)] = &endpoint{NetworkID: id, Annex: annex}
	}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for i := range portsPerBridge {
			delete(n.endpoints, fmt.Sprint("crowd-", annex, "-", i))
		}
	}
}

// TestAnnexes: containers that find a network's bridge full are on others, and it makes no difference to anybody, in the engine's next life
// neither. Nothing stays when the network goes.
func TestAnnexes(t *testing.T) {
	s := open(t)
	id := mustCreate(t, s, network.CreateRequest{Name: "large"})
	on := AllocateRequest{Networks: map[string]*network.EndpointSettings{"large": {}}}
	var boxes []*box
	var addresses []string
	var leave []func()
	for i := range 4 { // one on the network's own bridge, two on an annex, one on another
		b := newBox(t)
		on.Ports = nil
		if i == 3 {
			on.Ports = portMap("|28081|8080/tcp")
		}
		a := b.attach(s, on)
		b.serve(8080, fmt.Sprint("box ", i))
		boxes, addresses = append(boxes, b), append(addresses, a.Networks["large"].IPAddress.String()+":8080")
		if i != 1 {
			leave = append(leave, crowd(s, id, len(leave)))
		}
	}
	for _, f := range leave {
		f()
	}
	links := func() string { return mustHost(t, "ip", "-o", "link") }
	annexes := func() int {
		count := 0
		for _, prefix := range s.names.annexes {
			count += strings.Count(links(), ": "+prefix)
		}
		return count
	}
	if n := annexes(); n != 6 {
		t.Fatalf("two annexes have %d links instead of 6:\n%s", n, links())
	}
	all := func(when string) {
		t.Helper()
		for i, b := range boxes {
			for j, address := range addresses {
				if got, err := b.get(address); err != nil || got != fmt.Sprint("box ", j) {
					t.Errorf("%s: box %d asks box %d: %q, %v", when, i, j, got, err)
				}
			}
		}
		for j, address := range append(addresses, "127.0.0.1:28081") {
			if got, err := get(address); err != nil || got != fmt.Sprint("box ", min(j, 3)) {
				t.Errorf("%s: the host asks %s: %q, %v", when, address, got, err)
			}
		}
	}
	all("new")
	lower := s.names.annexOf(id, 1).lower
	mustHost(t, "ip", "link", "delete", lower) // somebody takes a trunk away, and the engine is killed
	o := s.o
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	if err := s.shut(); err != nil {
		t.Fatal(err)
	}
	s = reopen(t, o)
	all("in the next life")
	for _, b := range boxes {
		b.release(s)
	}
	if err := s.Remove(t.Context(), "large"); err != nil {
		t.Fatal(err)
	}
	s.later.drain()
	if n := annexes(); n != 0 {
		t.Errorf("%d links of annexes are left:\n%s", n, links())
	}
}

// TestAnnexesApart: where containers of a network are not to reach each other, those on different bridges do not either.
func TestAnnexesApart(t *testing.T) {
	s := open(t)
	id := mustCreate(t, s, network.CreateRequest{Name: "quiet", Options: map[string]string{"com.docker.network.bridge.enable_icc": "false"}})
	on := AllocateRequest{Networks: map[string]*network.EndpointSettings{"quiet": {}}}
	var addresses []string
	var boxes []*box
	for i := range 3 {
		b := newBox(t)
		a := b.attach(s, on)
		b.serve(8080, "reached")
		boxes, addresses = append(boxes, b), append(addresses, a.Networks["quiet"].IPAddress.String()+":8080")
		defer crowd(s, id, i)()
	}
	for i, b := range boxes {
		for j, address := range addresses {
			if got, err := b.get(address); i != j && err == nil {
				t.Errorf("box %d reaches box %d: %q", i, j, got)
			}
		}
		if got, err := get(addresses[i]); err != nil || got != "reached" {
			t.Errorf("the host does not reach box %d: %q, %v", i, got, err)
		}
	}
}

// TestAnnexesOfNobody: what an earlier life has left goes with the first look.
func TestAnnexesOfNobody(t *testing.T) {
	s := open(t)
	id := mustCreate(t, s, network.CreateRequest{Name: "left"})
	n := s.networks[id]
	if _, err := s.raiseAnnex(n, s.names.annexOf(id, 1)); err != nil {
		t.Fatal(err)
	}
	o := s.o
	if err := s.shut(); err != nil {
		t.Fatal(err)
	}
	s.closed = true
	s = reopen(t, o)
	s.later.drain()
	for _, name := range []string{s.names.annexOf(id, 1).bridge, s.names.annexOf(id, 1).upper} {
		if out, err := exec.Command("ip", "link", "show", name).CombinedOutput(); err == nil {
			t.Errorf("left: %s", out)
		}
	}
	if err := s.Remove(t.Context(), "left"); err != nil {
		t.Fatal(err)
	}
}

// TestLinksThatBeginLikeAnnexes: what is tidied up after an earlier life is what it has made, not what has a name that begins alike.
func TestLinksThatBeginLikeAnnexes(t *testing.T) {
	link := func(kind, name string) netlink.Link {
		return &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Name: name}, LinkType: kind}
	}
	id := strings.Repeat("0123456789abcdef", 4)
	for _, state := range []string{"/run/wherry", "/run/another"} {
		n := namesOf(state)
		own := n.annexOf(id, 12)
		for _, l := range []netlink.Link{link("bridge", own.bridge), link("veth", own.upper), link("veth", own.lower)} {
			if !n.isAnnexes(l) {
				t.Errorf("%s: %s %s is not an annex's", state, l.Type(), l.Attrs().Name)
			}
		}
		end := n.endOf(id)
		for name, want := range map[string]bool{end: true, end + "0": false, end[:len(end)-1]: false, end[:len(end)-1] + "x": false, "eth0": false} {
			if n.isEnd(link("veth", name)) != want || n.isEnd(link("bridge", name)) {
				t.Errorf("%s: %s is an end of a pair: not %v", state, name, want)
			}
		}
		foreign := []netlink.Link{link("veth", own.bridge), link("bridge", own.upper), link("dummy", own.bridge)}
		for _, prefix := range n.annexes {
			for _, rest := range []string{"", "tever0", id[:n.annexDigits], id[:n.annexDigits] + "-", id[:n.annexDigits] + "-x", id[:n.annexDigits] + "-0", id[:n.annexDigits-1] + "x-1"} {
				foreign = append(foreign, link("bridge", prefix+rest), link("veth", prefix+rest))
			}
		}
		for _, l := range foreign {
			if n.isAnnexes(l) {
				t.Errorf("%s: %s %s is taken for an annex's", state, l.Type(), l.Attrs().Name)
			}
		}
	}
}

// TestHostIsNotOnAnnexes: the way to the host is through the network's own bridge, which the firewall knows, whatever a container sends.
func TestHostIsNotOnAnnexes(t *testing.T) {
	s := open(t)
	id := mustCreate(t, s, network.CreateRequest{Name: "large"})
	defer crowd(s, id, 0)()
	b := newBox(t)
	a := b.attach(s, AllocateRequest{Networks: map[string]*network.EndpointSettings{"large": {}}})
	defer b.release(s)
	l, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	host := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "host") })}
	go host.Serve(l)
	defer host.Close()
	gateway := a.Networks["large"].Gateway.String()
	address := fmt.Sprint(gateway, ":", l.Addr().(*net.TCPAddr).Port)
	if got, err := b.get(address); err != nil || got != "host" {
		t.Fatalf("%q, %v", got, err)
	}
	s.mu.Lock()
	own := s.networks[id].Bridge
	s.mu.Unlock()
	hardware := func(link string) string {
		i, err := net.InterfaceByName(link)
		if err != nil {
			t.Fatal(err)
		}
		return i.HardwareAddr.String()
	}
	if out := b.mustRun("ip", "neigh", "show", gateway); !strings.Contains(out, hardware(own)) {
		t.Errorf("the gateway is not %s (%s): %s", own, hardware(own), out)
	}
	b.mustRun("ip", "neigh", "replace", gateway, "lladdr", hardware(s.names.annexOf(id, 1).bridge), "nud", "permanent", "dev", "eth0")
	if got, err := b.get(address); err == nil {
		t.Errorf("the host answers on an annex: %q", got)
	}
}
