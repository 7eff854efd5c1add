package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/task"
)

// TestCutOffStartsAndClocks: a task of a start that the engine was killed in is told from one of an earlier start, whatever the wall clock
// did between them.
func TestCutOffStartsAndClocks(t *testing.T) {
	e := newEngine(t)
	id := e.create(request{name: "ahead", cmd: sh("exit 7")})
	exit := e.arm(id, container.WaitConditionNextExit)
	e.start(id)
	e.take(exit)
	c, _ := e.index.find(id)
	e.eventually("it has ended", func() bool { return !exists(c.taskDir) })
	first := e.rec(id).FinishedAt
	c.settle(func(r *Record) { r.StartedAt = r.StartedAt.Add(time.Hour) }) // and then the clock went back
	e.killedAfter("execute the program", id)
	e.eventually("its end is known", func() bool { r := e.rec(id); return r.Status == Exited && r.FinishedAt != first && r.ExitCode == 7 })

	id = e.run(request{name: "behind", cmd: sh("sleep 3600")})
	e.close()
	tk, err := task.Open(context.Background(), filepath.Join(e.o.State, "tasks", id))
	if err != nil {
		t.Fatal(err)
	}
	pid := tk.Pid()
	if err := tk.Close(); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(e.o.Root, "containers", id)
	r, err := readRecord(dir)
	if err != nil {
		t.Fatal(err)
	}
	// The engine was killed between writing the end down and taking the task away, with a clock that had gone back before the start.
	r.Status, r.Pid, r.ExitCode, r.StartedAt = Exited, 0, 5, r.StartedAt.Add(-time.Hour)
	if err := r.write(dir, false); err != nil {
		t.Fatal(err)
	}
	e.open()
	e.eventually("its task is gone", func() bool { return errors.Is(unix.Kill(pid, 0), syscall.ESRCH) })
	if r := e.rec(id); r.Status != Exited || r.ExitCode != 5 {
		t.Errorf("it is %s, %d: the task of the start before was taken for a new one", r.Status, r.ExitCode)
	}
}

// TestRestartCutOff: kill -9 in the restart of a container whose end is not written down, as it goes with its end. The next life has it
// running again, or removed; never "running" with the process of the start before.
func TestRestartCutOff(t *testing.T) {
	e := newEngine(t)
	for step, runs := range map[string]bool{"begin the task": false, "finish the task": false, "execute the program": true, "record the start": true} {
		id := e.run(request{name: "disposable", cmd: sh("sleep 3600"), h: container.HostConfig{AutoRemove: true, NetworkMode: "bridge"}})
		first := e.rec(id).Pid
		e.killedAfter(step, id)
		if !runs {
			e.eventually("after "+step+" it is removed", func() bool { _, err := e.index.find(id); return err != nil })
			e.nothingLives(id)
			continue
		}
		if r := e.rec(id); r.Status != Running || r.Pid == first || unix.Kill(r.Pid, 0) != nil || shimOf(id) == 0 {
			t.Errorf("after %q it is %s, process %d, was %d", step, r.Status, r.Pid, first)
		}
		if err := e.Remove(context.Background(), id, RemoveOptions{Force: true}); err != nil {
			t.Error(err)
		}
	}
	if e.noted() != "" {
		t.Error(e.noted())
	}
}

// TestRestartLeavesItsPolicy: an engine that is killed while it waits for the end of what it starts anew has not written down that the container
// is to stay stopped: its policy would leave it so after whatever end comes next.
func TestRestartLeavesItsPolicy(t *testing.T) {
	e := newEngine(t)
	id := e.run(request{name: "web", cmd: sh("trap 'touch /tmp/heard' TERM; echo began; while :; do sleep 0.05; done"),
		h: container.HostConfig{RestartPolicy: container.RestartPolicy{Name: container.RestartPolicyUnlessStopped}}})
	first, long := e.rec(id).Pid, 600
	e.eventually("it prints", func() bool { return e.output(id) == "began\n" })
	restarted := make(chan error, 1)
	go func() { restarted <- e.Restart(context.Background(), id, StopOptions{Timeout: &long}) }()
	e.eventually("it hears the signal", func() bool {
		return e.exec(id, container.ExecCreateRequest{Cmd: []string{"test", "-e", "/tmp/heard"}}, nil).code == 0
	})
	if r, err := readRecord(filepath.Join(e.o.Root, "containers", id)); err != nil || r.Stopped {
		t.Errorf("the disk says that it is to stay stopped: %t, %v", r.Stopped, err)
	}
	if err := unix.Kill(first, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := <-restarted; err != nil {
		t.Fatal(err)
	}
	if r := e.rec(id); r.Status != Running || r.Pid == first || r.RestartCount != 0 {
		t.Errorf("it is %s, process %d, started %d times by its policy", r.Status, r.Pid, r.RestartCount)
	}
	zero := 0
	if err := e.Stop(context.Background(), id, StopOptions{Timeout: &zero}); err != nil {
		t.Fatal(err)
	}
	if r := e.rec(id); r.Status != Exited || !r.Stopped {
		t.Errorf("after stop it is %s; it is to stay so: %t", r.Status, r.Stopped)
	}
}

// TestStartWaitsForWhoWrites: a container's writable layer is mounted by one at a time.
func TestStartWaitsForWhoWrites(t *testing.T) {
	e := newEngine(t)
	ctx := context.Background()
	id := e.create(request{name: "box", cmd: sh("sleep 3600")})
	v, err := e.View(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	free, err := v.Layer.Hold(ctx)
	if err != nil {
		t.Fatal(err)
	}
	started := make(chan error, 1)
	go func() { started <- e.Start(ctx, id) }()
	c, _ := e.index.find(id)
	e.eventually("the start is on its way", func() bool {
		mine := c.op.TryLock()
		if mine {
			c.op.Unlock()
		}
		return !mine
	})
	if r := e.rec(id); r.Status != Created || exists(c.taskDir) {
		t.Errorf("it is %s: the start did not wait", r.Status)
	}
	c.rec.Store(func() *Record { r := *e.rec(id); r.Status = Removing; return &r }())
	if _, err := e.View(ctx, id); !errdefs.IsConflict(err) {
		t.Errorf("what is being removed is shown: %v", err)
	}
	c.rec.Store(func() *Record { r := *e.rec(id); r.Status = Created; return &r }())
	free()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	if free, err = v.Layer.Hold(ctx); err != nil { // the start has given it back
		t.Fatal(err)
	}
	free()
}

// TestNetworksOfWhatEnds: a container whose end the engine has not heard of yet is put on networks and taken off them as one that has ended.
func TestNetworksOfWhatEnds(t *testing.T) {
	e := newEngine(t)
	ctx := context.Background()
	id := e.run(request{name: "box", cmd: sh("sleep 3600"), h: container.HostConfig{NetworkMode: "bridge"}})
	if _, err := e.o.Networks.Create(ctx, network.CreateRequest{Name: "other"}); err != nil {
		t.Fatal(err)
	}
	keeper, pid := shimOf(id), e.rec(id).Pid
	for _, err := range []error{unix.Kill(keeper, unix.SIGSTOP), unix.Kill(pid, unix.SIGKILL)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	e.eventually("its process has ended", func() bool { _, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid)); return err != nil })
	for _, err := range []error{e.ConnectNetwork(ctx, id, "other", nil), e.DisconnectNetwork(ctx, id, "bridge", false)} {
		if err != nil {
			t.Error(err)
		}
	}
	if err := unix.Kill(keeper, unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	e.eventually("it has ended", func() bool { return e.rec(id).Status == Exited })
	e.start(id)
	if has, _, ok := e.o.Networks.Endpoints(id); !ok || len(has) != 1 || has["other"] == nil {
		t.Errorf("started again it is on %v", has)
	}
}

// TestRenameCutOff: kill -9 between the record of another name and telling the networks of it. The next life answers to that name.
func TestRenameCutOff(t *testing.T) {
	e := newEngine(t)
	if _, err := e.o.Networks.Create(context.Background(), network.CreateRequest{Name: "other"}); err != nil {
		t.Fatal(err)
	}
	id := e.run(request{name: "first", cmd: sh("sleep 3600"), h: container.HostConfig{NetworkMode: "other"}})
	e.close()
	dir := filepath.Join(e.o.Root, "containers", id)
	r, err := readRecord(dir)
	if err != nil {
		t.Fatal(err)
	}
	r.Name = "second"
	if err := r.write(dir, false); err != nil {
		t.Fatal(err)
	}
	e.open()
	e.eventually("the network knows it", func() bool {
		has, _, ok := e.o.Networks.Endpoints(id)
		return ok && slices.Contains(has["other"].DNSNames, "second") && !slices.Contains(has["other"].DNSNames, "first")
	})
}
