package container

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
)

// TestEverythingAtOnce: whatever several people do to one container, each is told something that makes sense, and nothing is left.
func TestEverythingAtOnce(t *testing.T) {
	e := newEngine(t)
	ctx := context.Background()
	now := 0
	do := []struct {
		name string
		fn   func(id string) error
	}{
		{"start", func(id string) error { return e.Start(ctx, id) }},
		{"stop", func(id string) error { return e.Stop(ctx, id, StopOptions{Timeout: &now}) }},
		{"kill", func(id string) error { return e.Kill(ctx, id, "KILL") }},
		{"term", func(id string) error { return e.Kill(ctx, id, "TERM") }},
		{"restart", func(id string) error { return e.Restart(ctx, id, StopOptions{Timeout: &now}) }},
		{"pause", func(id string) error { return e.Pause(ctx, id, PauseOptions{}) }},
		{"unpause", func(id string) error { return e.Unpause(ctx, id) }},
		{"update", func(id string) error {
			_, err := e.Update(ctx, id, container.UpdateConfig{Resources: container.Resources{Memory: 64 << 20}})
			return err
		}},
		{"rm", func(id string) error { return e.Remove(ctx, id, RemoveOptions{}) }},
	}
	hosts := []container.HostConfig{restarting("always", 0), restarting("no", 0), {AutoRemove: true}, restarting("on-failure", 3)}
	cmds := []string{"sleep 3600", "sleep 0.05", "exit 1"}
	var all sync.WaitGroup
	for i := range 4 {
		id := e.create(request{name: fmt.Sprintf("c%d", i), cmd: sh(cmds[i%len(cmds)]), h: hosts[i]})
		for w := range 4 {
			all.Go(func() {
				random := rand.New(rand.NewPCG(uint64(i), uint64(w)))
				for range 12 {
					step := do[random.IntN(len(do))]
					if err := step.fn(id); err != nil && !errdefs.IsConflict(err) && !errdefs.IsNotModified(err) && !errdefs.IsNotFound(err) {
						t.Errorf("%s: %v", step.name, err)
					}
				}
			})
		}
	}
	all.Wait()
	var removals sync.WaitGroup
	for i := range 4 {
		for range 2 {
			removals.Go(func() {
				if err := e.Remove(ctx, fmt.Sprintf("c%d", i), RemoveOptions{Force: true}); err != nil && !errdefs.IsNotFound(err) {
					t.Errorf("rm -f: %v", err)
				}
			})
		}
	}
	removals.Wait()
	if left := e.index.all(); len(left) > 0 {
		t.Errorf("left: %s is %s", left[0].record().Name, left[0].record().Status)
	}
}

// TestRemoveDuringStart: a forced removal at any moment of a start leaves neither a container nor a process.
func TestRemoveDuringStart(t *testing.T) {
	e := newEngine(t)
	ctx := context.Background()
	for i := range 12 {
		id := e.create(request{cmd: sh("sleep 3600"), h: restarting("always", 0)})
		started := make(chan error, 1)
		go func() { started <- e.Start(ctx, id) }()
		time.Sleep(time.Duration(i) * time.Millisecond)
		if err := e.Remove(ctx, id, RemoveOptions{Force: true}); err != nil {
			t.Errorf("rm -f after %d ms: %v", i, err)
		}
		if err := <-started; err != nil && !errdefs.IsNotFound(err) && !errdefs.IsConflict(err) {
			t.Errorf("start, removed after %d ms: %v", i, err)
		}
		if _, err := e.index.find(id); err == nil {
			t.Errorf("after %d ms: it is still there", i)
		}
	}
}

// TestStopWhileRestarting: a crash loop is stopped for good, whenever the stop comes.
func TestStopWhileRestarting(t *testing.T) {
	e := newEngine(t)
	ctx := context.Background()
	id := e.create(request{cmd: sh("exit 1"), h: restarting("always", 0)})
	for i := range 8 {
		e.start(id)
		time.Sleep(time.Duration(i*20) * time.Millisecond)
		if err := e.Stop(ctx, id, StopOptions{}); err != nil && !errdefs.IsNotModified(err) {
			t.Error(err)
		}
		count := e.rec(id).RestartCount
		time.Sleep(150 * time.Millisecond)
		if r := e.rec(id); r.Status != Exited || r.RestartCount != count || !r.Stopped {
			t.Errorf("after %d ms: %s, %d restarts, then %d", i*20, r.Status, count, r.RestartCount)
		}
	}
}

// TestManyAtOnce: nobody waits behind somebody else's slow start, and all begin at once.
func TestManyAtOnce(t *testing.T) {
	e := newEngine(t)
	var all sync.WaitGroup
	for i := range 16 {
		all.Go(func() {
			id, err := e.tryCreate(request{name: "p" + strconv.Itoa(i), cmd: sh("exit " + strconv.Itoa(i)), h: container.HostConfig{AutoRemove: i%2 == 0}})
			if err != nil {
				t.Error(err)
				return
			}
			exit, err := e.Wait(context.Background(), id, container.WaitConditionNextExit)
			if err != nil {
				t.Error(err)
				return
			}
			if err := e.Start(context.Background(), id); err != nil {
				t.Error(err)
				return
			}
			if a := <-exit; a.StatusCode != int64(i) {
				t.Errorf("%d: exit code %d", i, a.StatusCode)
			}
		})
	}
	all.Wait()
	before := descriptors(t)
	for range 10 {
		e.exitOf(request{cmd: sh("exit 0")})
	}
	e.eventually("no descriptor is left open", func() bool { return descriptors(t) <= before+2 })
}

func descriptors(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}
