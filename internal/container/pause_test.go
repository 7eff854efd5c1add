package container

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"wherry.dev/wherry/internal/cgroup"
)

// ticking is a program that shows whether it goes on.
const ticking = "while :; do echo tick; sleep 0.02; done"

// goesOn waits until a container prints more.
func goesOn(e *engine, id string) {
	e.t.Helper()
	before := strings.Count(e.output(id), "tick")
	e.eventually("its program goes on", func() bool { return strings.Count(e.output(id), "tick") > before })
}

func isFrozen(e *engine, id string) bool {
	e.t.Helper()
	g, err := cgroup.Open(e.o.cgroupPath(e.rec(id)))
	if err != nil {
		e.t.Fatal(err)
	}
	return cgroup.Frozen(g)
}

// TestPausesThatWereCutOff: a container stands still after the engine's end where a user has paused it, and nowhere else.
func TestPausesThatWereCutOff(t *testing.T) {
	e := newEngine(t)
	ctx := context.Background()
	paused, held := e.run(request{name: "paused", cmd: sh(ticking)}), e.run(request{name: "held", cmd: sh(ticking)})
	unnoted, thawed := e.run(request{name: "unnoted", cmd: sh(ticking)}), e.run(request{name: "thawed", cmd: sh(ticking)})
	again := e.run(request{name: "again", cmd: sh(ticking)})
	for _, err := range []error{e.Pause(ctx, paused, PauseOptions{}), e.Pause(ctx, held, PauseOptions{Held: true}), e.Pause(ctx, thawed, PauseOptions{}), e.Pause(ctx, again, PauseOptions{Held: true}), e.Unpause(ctx, again), e.Pause(ctx, again, PauseOptions{})} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for id, do := range map[string]func(*cgroup.Group) error{ // as an engine does that is killed before it has written it down
		unnoted: func(g *cgroup.Group) error { return g.Freeze(ctx) },
		thawed:  func(g *cgroup.Group) error { return g.Thaw(ctx) },
	} {
		g, err := cgroup.Open(e.o.cgroupPath(e.rec(id)))
		if err == nil {
			err = do(g)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	e.close()
	e.open()
	for _, id := range []string{paused, again} {
		if r := e.rec(id); r.Status != Paused || !isFrozen(e, id) {
			t.Errorf("%s: %s, frozen: %t", r.Name, r.Status, isFrozen(e, id))
		}
	}
	for _, id := range []string{held, unnoted, thawed} {
		if r := e.rec(id); r.Status != Running || isFrozen(e, id) {
			t.Fatalf("%s: %s, frozen: %t", r.Name, r.Status, isFrozen(e, id))
		}
		goesOn(e, id)
	}
	if r, err := readRecord(filepath.Join(e.o.containersDir(), thawed)); err != nil || r.Status != Running {
		t.Errorf("on the disk: %+v, %v", r, err)
	}
}

// TestPausesThatCannotBeRecorded: where the disk takes no record, what runs goes on, and what stands still can be told to.
func TestPausesThatCannotBeRecorded(t *testing.T) {
	e := newEngine(t)
	ctx := context.Background()
	id := e.run(request{cmd: sh(ticking)})
	obstacle := filepath.Join(e.o.containersDir(), id, recordFile+".new")
	obstruct := func() {
		t.Helper()
		if err := os.RemoveAll(obstacle); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(obstacle, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	obstruct()
	if err := e.Pause(ctx, id, PauseOptions{}); err == nil || e.rec(id).Status != Running {
		t.Fatalf("%v, %s", err, e.rec(id).Status)
	}
	goesOn(e, id)
	if err := os.Remove(obstacle); err != nil {
		t.Fatal(err)
	}
	if err := e.Pause(ctx, id, PauseOptions{}); err != nil {
		t.Fatal(err)
	}
	obstruct()
	if err := e.Unpause(ctx, id); err != nil || e.rec(id).Status != Running {
		t.Fatalf("%v, %s", err, e.rec(id).Status)
	}
	goesOn(e, id)
	e.close()
	e.open()
	if r := e.rec(id); r.Status != Running {
		t.Errorf("in the next life: %s", r.Status)
	}
	goesOn(e, id)
}
