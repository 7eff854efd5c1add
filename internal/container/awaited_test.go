package container

import (
	"context"
	"testing"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
)

// TestNetworkOfWhatIsRestarted: who waits for its restart is on no network, and finds its own when the wait is over.
func TestNetworkOfWhatIsRestarted(t *testing.T) {
	e := newEngine(t)
	ctx := context.Background()
	if _, err := e.o.Networks.Create(ctx, network.CreateRequest{Name: "needed"}); err != nil {
		t.Fatal(err)
	}
	h := restarting("always", 0)
	h.NetworkMode = container.NetworkMode("needed")
	id := e.run(request{name: "loops", cmd: sh("exit 1"), h: h})
	for range 3 {
		e.eventually("it waits for its restart", func() bool { return e.rec(id).Status == Restarting })
		report, err := e.o.Networks.Prune(ctx, nil)
		if err != nil || len(report.NetworksDeleted) > 0 {
			t.Fatalf("pruned: %v %v", report.NetworksDeleted, err)
		}
		if err := e.o.Networks.Remove(ctx, "needed"); err == nil {
			t.Fatal("the network was removed")
		}
		e.again()
	}
	now := 0
	if err := e.Stop(ctx, id, StopOptions{Timeout: &now}); err != nil {
		t.Fatal(err)
	}
	report, err := e.o.Networks.Prune(ctx, nil)
	if err != nil || len(report.NetworksDeleted) != 1 {
		t.Errorf("then: %v %v", report.NetworksDeleted, err)
	}
}
