package network

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/network"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/apart"
	"wherry.dev/wherry/internal/event"
)

// TestMain runs the tests in a network namespace of their own, so that the machine's own links and rules stay as they are.
func TestMain(m *testing.M) { apart.Tests(unix.CLONE_NEWNET|unix.CLONE_NEWNS, m.Run) }

// open gives a service of an engine of its own.
func open(t testing.TB) *Service {
	t.Helper()
	dir := t.TempDir()
	return reopen(t, Options{Root: filepath.Join(dir, "root"), State: filepath.Join(dir, "state"), Events: event.New(), Log: func(err error) { t.Log(err) }})
}

func reopen(t testing.TB, o Options) *Service {
	t.Helper()
	s, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.mu.Lock()
		closed := s.closed
		s.mu.Unlock()
		if !closed {
			if err := s.Retain(context.Background(), nil); err != nil { // nothing is left to other tests
				t.Error(err)
			}
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func mustCreate(t testing.TB, s *Service, r network.CreateRequest) string {
	t.Helper()
	out, err := s.Create(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return out.ID
}

func TestPredefinedNetworksLast(t *testing.T) {
	s := open(t)
	ids := map[string]string{}
	for _, name := range []string{"bridge", "host", "none"} {
		n, err := s.Inspect(t.Context(), name)
		if err != nil || !isID(n.ID) {
			t.Fatalf("%s: %+v, %v", name, n, err)
		}
		ids[name] = n.ID
		if err := s.Remove(t.Context(), name); !errdefs.IsPermissionDenied(err) {
			t.Errorf("remove %s: %v", name, err)
		}
	}
	if g := s.Gateway(); g != netip.MustParseAddr("172.17.0.1") {
		t.Errorf("gateway %s", g)
	}
	s.Close()
	again := reopen(t, s.o)
	for name, id := range ids {
		if n, err := again.Inspect(t.Context(), id[:10]); err != nil || n.Name != name {
			t.Errorf("%s after a restart: %s, %v", name, n.Name, err)
		}
	}
}

func TestCreateInspectRemove(t *testing.T) {
	s := open(t)
	id := mustCreate(t, s, network.CreateRequest{Name: "one", Labels: map[string]string{"a": "b"}, IPAM: &network.IPAM{Config: []network.IPAMConfig{{
		Subnet: netip.MustParsePrefix("10.9.0.0/24"), IPRange: netip.MustParsePrefix("10.9.0.128/25"), Gateway: netip.MustParseAddr("10.9.0.200"),
		AuxAddress: map[string]netip.Addr{"router": netip.MustParseAddr("10.9.0.129")},
	}}}})
	a, err := s.Allocate(t.Context(), AllocateRequest{ContainerID: strings.Repeat("c", 64), Name: "c", Networks: map[string]*network.EndpointSettings{id: {}}})
	if err != nil {
		t.Fatal(err)
	}
	e := a.Networks["one"]
	if e == nil || e.IPAddress.String() != "10.9.0.128" || e.Gateway.String() != "10.9.0.200" || e.IPPrefixLen != 24 || e.NetworkID != id {
		t.Fatalf("endpoint %+v", e)
	}
	if err := s.Remove(t.Context(), "one"); !errdefs.IsPermissionDenied(err) || !strings.Contains(err.Error(), "active endpoints") {
		t.Errorf("remove a network in use: %v", err)
	}
	n, err := s.Inspect(t.Context(), "one")
	if err != nil || len(n.Containers) != 1 || n.Containers[strings.Repeat("c", 64)].IPv4Address.String() != "10.9.0.128/24" {
		t.Errorf("inspect: %+v, %v", n, err)
	}
	if err := s.Release(t.Context(), strings.Repeat("c", 64)); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Inspect(t.Context(), "one"); !errdefs.IsNotFound(err) {
		t.Errorf("inspect what was removed: %v", err)
	}
}

func TestCreateRefuses(t *testing.T) {
	s := open(t)
	mustCreate(t, s, network.CreateRequest{Name: "there"})
	subnet := func(p string) *network.IPAM {
		return &network.IPAM{Config: []network.IPAMConfig{{Subnet: netip.MustParsePrefix(p)}}}
	}
	reserved := func(gateway string, addresses ...string) *network.IPAM {
		c := network.IPAMConfig{Subnet: netip.MustParsePrefix("10.10.0.0/24"), AuxAddress: map[string]netip.Addr{}}
		c.Gateway, _ = netip.ParseAddr(gateway)
		for _, a := range addresses {
			c.AuxAddress[fmt.Sprint("machine", len(c.AuxAddress))] = netip.MustParseAddr(a)
		}
		return &network.IPAM{Config: []network.IPAMConfig{c}}
	}
	for _, row := range []struct {
		r     network.CreateRequest
		class func(error) bool
	}{
		{network.CreateRequest{Name: "x", IPAM: reserved("", "10.10.0.7", "10.10.0.7")}, errdefs.IsInvalidArgument},
		{network.CreateRequest{Name: "x", IPAM: reserved("10.10.0.7", "10.10.0.7")}, errdefs.IsInvalidArgument},
		{network.CreateRequest{Name: ""}, errdefs.IsInvalidArgument},
		{network.CreateRequest{Name: "../x"}, errdefs.IsInvalidArgument},
		{network.CreateRequest{Name: "there"}, errdefs.IsConflict},
		{network.CreateRequest{Name: "bridge"}, errdefs.IsPermissionDenied},
		{network.CreateRequest{Name: "x", Driver: "overlay"}, errdefs.IsNotFound},
		{network.CreateRequest{Name: "x", IPAM: subnet("127.0.0.0/8")}, errdefs.IsInvalidArgument},
		{network.CreateRequest{Name: "x", IPAM: subnet("172.17.3.0/24")}, errdefs.IsPermissionDenied},
		{network.CreateRequest{Name: "x", IPAM: subnet("10.0.0.1/24")}, errdefs.IsInvalidArgument},
		{network.CreateRequest{Name: "x", IPAM: subnet("10.0.0.0/32")}, errdefs.IsInvalidArgument},
		{network.CreateRequest{Name: "x", IPAM: subnet("fd00::/64")}, errdefs.IsInvalidArgument},
		{network.CreateRequest{Name: "x", Options: map[string]string{"com.docker.network.driver.mtu": "9"}}, errdefs.IsInvalidArgument},
		{network.CreateRequest{Name: "x", Options: map[string]string{"com.docker.network.bridge.name": "a name with spaces"}}, errdefs.IsInvalidArgument},
	} {
		if _, err := s.Create(t.Context(), row.r); err == nil || !row.class(err) {
			t.Errorf("create %+v: %v", row.r, err)
		}
	}
	if list, err := s.List(t.Context(), map[string]map[string]bool{"type": {"custom": true}}); err != nil || len(list) != 1 {
		t.Errorf("what was refused left something: %v, %v", list, err)
	}
}

func TestDamagedDefinitionIsSetAside(t *testing.T) {
	s := open(t)
	good, bad := mustCreate(t, s, network.CreateRequest{Name: "good"}), mustCreate(t, s, network.CreateRequest{Name: "bad"})
	s.Close()
	path := filepath.Join(s.o.definitions(), bad+".json")
	if err := os.WriteFile(path, []byte(`{"Name":"ba`), 0o600); err != nil {
		t.Fatal(err)
	}
	var told []string
	o := s.o
	o.Log = func(err error) { told = append(told, err.Error()) }
	again := reopen(t, o)
	if _, err := again.Inspect(context.Background(), good); err != nil {
		t.Error(err)
	}
	if _, err := again.Inspect(context.Background(), "bad"); !errdefs.IsNotFound(err) {
		t.Errorf("the damaged network: %v", err)
	}
	if len(told) != 1 || !strings.Contains(told[0], path) {
		t.Errorf("told: %q", told)
	}
	if aside, _ := filepath.Glob(path + ".damaged-*"); len(aside) != 1 {
		t.Errorf("set aside: %v", aside)
	}
}

// TestEndsHaveNamesOfTheirOwn: a link's name has room for a few digits of chance only, and a thousand containers have as many links.
func TestEndsHaveNamesOfTheirOwn(t *testing.T) {
	s := open(t)
	s.names.digits = 1
	for range 3 { // the names of those that are gone are free again
		ends := map[string]bool{}
		var ids []string
		for i := range 14 { // of 16
			id := newID()
			if _, err := s.Allocate(t.Context(), AllocateRequest{ContainerID: id, Name: fmt.Sprint("c", i), Networks: map[string]*network.EndpointSettings{"bridge": {}}}); err != nil {
				t.Fatal(err)
			}
			ends[s.holdings[id].Endpoints[0].End] = true
			ids = append(ids, id)
		}
		if len(ends) != 14 {
			t.Errorf("14 containers have %d ends", len(ends))
		}
		for _, id := range ids {
			if err := s.Release(t.Context(), id); err != nil {
				t.Fatal(err)
			}
		}
	}
}
