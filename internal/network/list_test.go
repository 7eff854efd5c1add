package network

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/network"
)

func filter(pairs ...string) map[string]map[string]bool {
	out := map[string]map[string]bool{}
	for _, p := range pairs {
		k, v, _ := strings.Cut(p, "=")
		if out[k] == nil {
			out[k] = map[string]bool{}
		}
		out[k][v] = true
	}
	return out
}

func TestFilters(t *testing.T) {
	s := open(t)
	red := mustCreate(t, s, network.CreateRequest{Name: "red-one", Labels: map[string]string{"colour": "red", "old": ""}})
	mustCreate(t, s, network.CreateRequest{Name: "blue-one", Labels: map[string]string{"colour": "blue"}})
	if _, err := s.Allocate(t.Context(), AllocateRequest{ContainerID: newID(), Networks: map[string]*network.EndpointSettings{"blue-one": {}}}); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		filters []string
		want    string
	}{
		{nil, "blue-one bridge host none red-one"},
		{[]string{"name=-one"}, "blue-one red-one"},
		{[]string{"name=blue", "name=host"}, "blue-one host"},
		{[]string{"name=^red-one$"}, "red-one"},
		{[]string{"name=^one$"}, ""},
		{[]string{"name=^(red|blue)-", "name=^ho.t$"}, "blue-one host red-one"},
		{[]string{"driver=bridge"}, "blue-one bridge red-one"},
		{[]string{"driver=null"}, "none"},
		{[]string{"id=" + red[:8]}, "red-one"},
		{[]string{"id=" + red[4:20]}, "red-one"},
		{[]string{"id=^" + red[:12]}, "red-one"},
		{[]string{"label=colour"}, "blue-one red-one"},
		{[]string{"label=colour=red"}, "red-one"},
		{[]string{"label=colour=red", "label=old"}, "red-one"},
		{[]string{"label=colour=blue", "label=old"}, ""},
		{[]string{"type=custom"}, "blue-one red-one"},
		{[]string{"type=builtin"}, "bridge host none"},
		{[]string{"scope=local", "name=red"}, "red-one"},
		{[]string{"scope=swarm"}, ""},
		{[]string{"dangling=true"}, "red-one"},
		{[]string{"dangling=false", "type=custom"}, "blue-one"},
	} {
		list, err := s.List(t.Context(), filter(row.filters...))
		var names []string
		for _, n := range list {
			names = append(names, n.Name)
		}
		if got := strings.Join(names, " "); err != nil || got != row.want {
			t.Errorf("%v: %q, %v; not %q", row.filters, got, err, row.want)
		}
	}
	for _, bad := range []string{"colour=red", "type=other", "dangling=perhaps", "name=["} {
		if _, err := s.List(t.Context(), filter(strings.Fields(bad)...)); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

// TestNetworkNames: Vagrant calls a network by its subnet. What a path would not keep as it is, and what means something else, is no name.
func TestNetworkNames(t *testing.T) {
	s := open(t)
	for _, name := range []string{"vagrant_network_172.18.0.0/24", "vagrant_network_fd00:1::/64", "team/app/back end", "a/connect", "bridge/x"} {
		id := mustCreate(t, s, network.CreateRequest{Name: name})
		if n, err := s.Inspect(t.Context(), name); err != nil || n.ID != id {
			t.Errorf("%q: %s, %v", name, n.ID, err)
		}
	}
	for _, name := range []string{"", "/", "/a", "a/", "a//b", "a/./b", "a/../b", "../a", "..", "a/..", ":a", "container:web", "a\nb", "a\\b", "a,b", "a=b", " a", "a "} {
		if _, err := s.Create(t.Context(), network.CreateRequest{Name: name}); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %v", name, err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = reopen(t, s.o)
	if err := s.Remove(t.Context(), "vagrant_network_172.18.0.0/24"); err != nil {
		t.Errorf("after a restart: %v", err)
	}
	files, err := os.ReadDir(s.o.definitions())
	for _, f := range files {
		if name, ok := strings.CutSuffix(f.Name(), ".json"); !ok || !isID(name) || !f.Type().IsRegular() {
			t.Errorf("on the disk: %s", f.Name())
		}
	}
	if err != nil || len(files) != 7 { // those above without the removed one, and bridge, host, none
		t.Errorf("on the disk: %v, %v", files, err)
	}
}

func TestFind(t *testing.T) {
	s := open(t)
	id := mustCreate(t, s, network.CreateRequest{Name: "one"})
	byID := mustCreate(t, s, network.CreateRequest{Name: id[:12]}) // a name may look like another one's id
	for ask, want := range map[string]string{"one": id, id: id, id[:13]: id, id[:12]: byID} {
		if n, err := s.Inspect(t.Context(), ask); err != nil || n.ID != want {
			t.Errorf("%s: %s, %v", ask, n.ID, err)
		}
	}
	if n, err := s.Inspect(t.Context(), "default"); err != nil || n.Name != "bridge" {
		t.Errorf("default: %s, %v", n.Name, err)
	}
	for _, ask := range []string{"", "nobody", strings.Repeat("f", 70)} {
		if _, err := s.Inspect(t.Context(), ask); !errdefs.IsNotFound(err) {
			t.Errorf("%q: %v", ask, err)
		}
	}
}

func TestPrune(t *testing.T) {
	s := open(t)
	for _, name := range []string{"busy", "idle", "kept"} {
		mustCreate(t, s, network.CreateRequest{Name: name, Labels: map[string]string{"name": name}})
	}
	if _, err := s.Allocate(t.Context(), AllocateRequest{ContainerID: newID(), Networks: map[string]*network.EndpointSettings{"busy": {}}}); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		filters []string
		want    []string
	}{
		{[]string{"until=1h"}, []string{}},
		{[]string{"until=" + time.Now().Add(-time.Hour).Format(time.RFC3339)}, []string{}},
		{[]string{"label=name=busy"}, []string{}},
		{[]string{"label!=name=kept"}, []string{"idle"}},
		{nil, []string{"kept"}},
	} {
		report, err := s.Prune(t.Context(), filter(row.filters...))
		if err != nil || !slices.Equal(report.NetworksDeleted, row.want) {
			t.Errorf("%v: %v, %v", row.filters, report.NetworksDeleted, err)
		}
	}
	for _, bad := range []string{"until=yesterday", "name=x"} {
		if _, err := s.Prune(t.Context(), filter(bad)); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v", bad, err)
		}
	}
	if list, _ := s.List(t.Context(), filter("type=custom")); len(list) != 1 || list[0].Name != "busy" {
		t.Errorf("left: %v", list)
	}
}
