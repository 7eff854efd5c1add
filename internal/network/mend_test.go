package network

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/network"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/network/link"
)

func nft(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("nft", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("nft %q: %v: %s", args, err, out)
	}
	return string(out)
}

func TestRulesAreMended(t *testing.T) {
	idle := open(t)
	idle.Close()
	nft(t, "add", "table", "inet", idle.names.table) // so that it is anybody's, as on older kernels
	s := reopen(t, idle.o)
	a := newBox(t)
	a.attach(s, AllocateRequest{Ports: portMap("|28080|8080/tcp")})
	defer a.release(s)
	a.serve(8080, "a")
	table := s.names.table
	nft(t, "add", "table", "ip", "foreign")
	nft(t, "add", "chain", "ip", "foreign", "mine")
	nft(t, "add", "rule", "ip", "foreign", "mine", "counter")
	for _, harm := range [][]string{
		{"flush", "table", "inet", table},
		{"flush", "map", "inet", table, "any_ports4"},
		{"flush", "chain", "inet", table, "pass"},
		{"delete", "table", "inet", table}, // from then on it may have an owner
	} {
		nft(t, harm...)
		eventually(t, func() error {
			if !s.fire.Whole() {
				return fmt.Errorf("after %q the table is not whole", harm)
			}
			return nil
		})
		if got, err := get("127.0.0.1:28080"); err != nil || got != "a" {
			t.Errorf("after %q: %q, %v", harm, got, err)
		}
	}
	if out := nft(t, "list", "table", "ip", "foreign"); !strings.Contains(out, "counter") {
		t.Errorf("a foreign table: %s", out)
	}
	nft(t, "delete", "table", "ip", "foreign")
	if err := link.SetSysctl(forward4, "0"); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		if readSysctl(forward4) != "1" {
			return fmt.Errorf("the host does not forward")
		}
		return nil
	})
}

func TestAnotherLifeOfTheEngine(t *testing.T) {
	far := outside(t)
	s := open(t)
	mustCreate(t, s, network.CreateRequest{Name: "one"})
	a, gone := newBox(t), newBox(t)
	request := AllocateRequest{
		Networks: map[string]*network.EndpointSettings{"one": {Aliases: []string{"web"}}},
		Ports:    portMap("|28080|8080/tcp"), Name: "a",
	}
	before := a.attach(s, request)
	gone.attach(s, AllocateRequest{Ports: portMap("|28081|8080/tcp")})
	a.serve(8080, "a")
	check := func(when string) {
		t.Helper()
		for name, get := range map[string]func(string) (string, error){"here": get, "another host": far.get} {
			if got, err := get("192.0.2.1:28080"); err != nil || got != "a" {
				t.Errorf("%s, from %s: %q, %v", when, name, got, err)
			}
		}
	}
	check("in the first life")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	check("while no engine runs")
	again := reopen(t, s.o)
	check("in the next life")
	live, ok := again.Live(a.id)
	if !ok || live.Networks["one"].IPAddress != before.Networks["one"].IPAddress || len(live.Ports[network.MustParsePort("8080/tcp")]) != 1 {
		t.Errorf("live: %+v, %t", live, ok)
	}
	if _, ok := again.Live(strings.Repeat("0", 64)); ok {
		t.Error("a container that never was is live")
	}
	if err := again.Retain(t.Context(), map[string]bool{a.id: true}); err != nil {
		t.Fatal(err)
	}
	if _, ok := again.Live(gone.id); ok {
		t.Error("a container that is gone is live")
	}
	// Its port is free, that of the other one is not.
	c, d := newBox(t), newBox(t)
	c.attach(again, AllocateRequest{Ports: portMap("|28081|8080/tcp")})
	if _, err := again.Allocate(t.Context(), AllocateRequest{ContainerID: d.id, Networks: map[string]*network.EndpointSettings{"bridge": {}}, Ports: portMap("|28080|80/tcp")}); err == nil {
		t.Error("a port was given out twice")
	}
	// Links that somebody deleted meanwhile are made again.
	again.Close()
	n := again.networks[before.Networks["one"].NetworkID]
	if out, err := exec.Command("ip", "link", "del", n.Bridge).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	third := reopen(t, s.o)
	check("after the bridge was deleted")
	a.release(third)
	c.release(third)
}

// TestEndsWhileNoEngineRuns: that the interface of a container has gone with it is nothing to be told of.
func TestEndsWhileNoEngineRuns(t *testing.T) {
	s := open(t)
	a := newBox(t)
	a.attach(s, AllocateRequest{})
	end := s.holdings[a.id].Endpoints[0].End
	s.Close()
	if err := errors.Join(unix.Kill(a.pid, unix.SIGKILL), a.netns.Close()); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		if _, err := net.InterfaceByName(end); err == nil {
			return fmt.Errorf("%s is still there", end)
		}
		return nil
	})
	var told []string
	o := s.o
	o.Log = func(err error) { told = append(told, err.Error()) }
	again := reopen(t, o)
	if len(told) > 0 {
		t.Errorf("told: %q", told)
	}
	if err := again.Retain(t.Context(), nil); err != nil {
		t.Error(err)
	}
}

// TestLostInterface: a container that runs without its interface is told of, when it is known to run; one that had not begun, or has ended,
// is not.
func TestLostInterface(t *testing.T) {
	s := open(t)
	a := newBox(t)
	a.attach(s, AllocateRequest{})
	mustHost(t, "ip", "link", "del", s.holdings[a.id].Endpoints[0].End)
	for _, runs := range []bool{true, false} {
		s.Close()
		var told []string
		o := s.o
		o.Log = func(err error) { told = append(told, err.Error()) }
		s = reopen(t, o)
		if len(told) > 0 {
			t.Errorf("told before it is known whether it runs: %q", told)
		}
		if !runs {
			continue
		}
		if err := s.Retain(t.Context(), map[string]bool{a.id: true}); err == nil || !strings.Contains(err.Error(), "has lost an interface") {
			t.Errorf("of one that runs: %v", err)
		}
	}
	if err := s.Retain(t.Context(), nil); err != nil {
		t.Errorf("of one that does not: %v", err)
	}
	_ = a.netns.Close()
	_ = unix.Kill(a.pid, unix.SIGKILL)
}

func TestEnginesBesideEachOther(t *testing.T) {
	one, two := open(t), open(t)
	a, b := newBox(t), newBox(t)
	aa, ab := a.attach(one, AllocateRequest{Ports: portMap("|28080|8080/tcp")}), b.attach(two, AllocateRequest{Ports: portMap("|28081|8080/tcp")})
	defer a.release(one)
	defer b.release(two)
	a.serve(8080, "a")
	b.serve(8080, "b")
	if aa.Networks["bridge"].Gateway == ab.Networks["bridge"].Gateway {
		t.Errorf("both have the gateway %s", aa.Networks["bridge"].Gateway)
	}
	for port, want := range map[string]string{"28080": "a", "28081": "b"} {
		if got, err := get("127.0.0.1:" + port); err != nil || got != want {
			t.Errorf("port %s: %q, %v", port, got, err)
		}
	}
	if got, err := a.get(ab.Networks["bridge"].IPAddress.String() + ":8080"); err == nil {
		t.Errorf("from one engine's container to the other's: %q", got)
	}
	if got, err := a.get(aa.Networks["bridge"].Gateway.String() + ":28081"); err != nil || got != "b" {
		t.Errorf("from one engine's container to the other's published port: %q, %v", got, err)
	}
}

func TestDamagedEndpointIsSetAside(t *testing.T) {
	s := open(t)
	a := newBox(t)
	a.attach(s, AllocateRequest{})
	s.Close()
	path := filepath.Join(s.o.live(), a.id+".json")
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	stale := filepath.Join(s.o.live(), newID()+".json")
	if err := os.WriteFile(stale, []byte(`{"BootID":"another life of the host","Request":{"ContainerID":"`+filepath.Base(stale)[:64]+`"}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	var told []string
	o := s.o
	o.Log = func(err error) { told = append(told, err.Error()) }
	again := reopen(t, o)
	if len(told) != 1 || !strings.Contains(told[0], path) {
		t.Errorf("told: %q", told)
	}
	if _, ok := again.Live(a.id); ok {
		t.Error("a damaged record is live")
	}
	if _, err := os.Stat(stale); !os.IsNotExist(err) {
		t.Errorf("a record of before the boot: %v", err)
	}
	b := newBox(t)
	b.attach(again, AllocateRequest{})
	b.release(again)
}

func TestFullBridge(t *testing.T) {
	s := open(t)
	id := mustCreate(t, s, network.CreateRequest{Name: "one"})
	crowd := newBox(t)
	var names []string
	for i := range 1024 {
		p := link.Pair{Host: fmt.Sprintf("full%d", i), Inside: fmt.Sprintf("eth%d", i), Bridge: s.networks[id].index, Namespace: crowd.netns, MTU: 1500}
		err := p.Add(s.host)
		if errors.Is(err, unix.EXFULL) {
			names = append(names, p.Host)
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, p.Host)
	}
	t.Cleanup(func() {
		if err := link.Delete(s.host, 0x76000001, names...); err != nil {
			t.Error(err)
		}
	})
	a := newBox(t)
	if _, err := s.Allocate(t.Context(), AllocateRequest{ContainerID: a.id, Name: "a", Networks: map[string]*network.EndpointSettings{"one": {}}}); err != nil {
		t.Fatal(err)
	}
	if err := s.Attach(t.Context(), a.id, a.netns); !errdefs.IsResourceExhausted(err) || !strings.Contains(err.Error(), "use another network") {
		t.Errorf("one more than fits: %v", err)
	}
	a.release(s)
	s.later.drain()
	if out := mustHost(t, "ip", "-o", "link"); strings.Contains(out, s.names.ends) {
		t.Error("what did not fit is still there")
	}
}
