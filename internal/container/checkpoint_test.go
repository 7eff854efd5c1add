package container

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"

	networks "wherry.dev/wherry/internal/network"
)

// TestAddressesOfCheckpoints: who goes on from a checkpoint gets the addresses that it had, or is told that somebody has them.
func TestAddressesOfCheckpoints(t *testing.T) {
	e := newEngine(t)
	h := container.HostConfig{NetworkMode: "bridge"}
	other := e.run(request{name: "other", cmd: sh("sleep 3600"), h: h})
	have, _, _ := e.nets.Endpoints(other)
	id := e.create(request{name: "back", cmd: sh("sleep 3600"), h: h})
	c, err := e.index.find(id)
	if err != nil {
		t.Fatal(err)
	}
	taken := have["bridge"].IPAddress
	free := taken.Next().Next()
	for _, row := range []struct {
		had   netip.Addr
		warns string
	}{
		{free, ""},
		{taken, "container back goes on from checkpoint before at another address than it had: somebody has " + taken.String() + " on the network bridge"},
	} {
		from := &checkpointed{name: "before", checkpointRecord: checkpointRecord{ID: id, Networks: map[string]networks.Had{"bridge": {IPv4: row.had}}}}
		n := &starting{life: life{e.Service, c}, o: startOptions{from: from}, r: c.record()}
		if err := n.allocate(t.Context()); err != nil {
			t.Fatal(err)
		}
		if again := strings.Contains(string(n.content.Hosts), row.had.String()+"\t"); again != (row.warns == "") {
			t.Errorf("it had %s, and has: %s", row.had, n.content.Hosts)
		}
		if warned := strings.Join(from.warnings, "; "); !strings.HasPrefix(warned, row.warns) || row.warns == "" && warned != "" {
			t.Errorf("warned: %q, want %q", warned, row.warns)
		}
		if err := e.nets.Release(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
}
