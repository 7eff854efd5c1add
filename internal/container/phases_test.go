package container

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/shim"
)

// shimOf finds a container's shim by the name that it has given itself; 0: there is none.
func shimOf(id string) int {
	files, _ := filepath.Glob("/proc/[0-9]*/comm")
	for _, f := range files {
		if b, _ := os.ReadFile(f); strings.TrimSpace(string(b)) == shim.Name(id) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(f)))
			return pid
		}
	}
	return 0
}

// nothingLives says that a container without a process has none, nor a shim, a control group or a task.
func (e *engine) nothingLives(id string) {
	e.t.Helper()
	var groups []string
	var err error
	defer func() {
		if e.t.Failed() {
			e.t.Logf("control groups %v, shim %d, task's folder: %v", groups, shimOf(id), err)
		}
	}()
	e.eventually("nothing of it is left", func() bool {
		groups, _ = filepath.Glob("/sys/fs/cgroup/*" + e.o.CgroupParent + "/" + id)
		if _, err := os.Stat("/sys/fs/cgroup" + e.o.CgroupParent + "/" + id); err == nil {
			groups = append(groups, "cgroup2")
		}
		_, err = os.Stat(filepath.Join(e.o.State, "tasks", id))
		return len(groups) == 0 && shimOf(id) == 0 && os.IsNotExist(err)
	})
}

// TestShimKilledWhileStarting: a start whose shim dies in any of its steps says so and leaves nothing, or has come about and the end is recorded.
func TestShimKilledWhileStarting(t *testing.T) {
	e := newEngine(t)
	ctx := context.Background()
	for i, step := range []string{"attach the network", "finish the task", "execute the program", "record the start"} {
		e.o.Trace = func(id, done string, _ time.Duration) {
			if done == step {
				e.eventually("its shim has begun", func() bool { return shimOf(id) != 0 })
				if err := unix.Kill(shimOf(id), unix.SIGKILL); err != nil {
					t.Errorf("%s: %v", step, err)
				}
			}
		}
		e.again()
		id := e.create(request{name: fmt.Sprint("dies", i), cmd: sh("sleep 3600"), h: container.HostConfig{NetworkMode: "bridge"}})
		err := e.Start(ctx, id)
		if started := step == "record the start"; !started && step != "execute the program" && err == nil {
			t.Errorf("after %q the start has come about without a shim", step)
		}
		e.eventually("its state is known", func() bool { r := e.rec(id); return !r.Status.Alive() })
		if r := e.rec(id); r.Error == "" || err != nil && r.Status != Created || err == nil && (r.Status != Exited || r.ExitCode != 137) {
			t.Errorf("after %q: %v; %s %d %q", step, err, r.Status, r.ExitCode, r.Error)
		}
		e.nothingLives(id)
		e.o.Trace = nil
		e.again()
		e.start(id)
		if r := e.rec(id); r.Status != Running || r.Error != "" {
			t.Errorf("started again: %s %q", r.Status, r.Error)
		}
	}
	if out, _ := exec.Command("ip", "-o", "link", "show", "type", "veth").Output(); strings.Count(string(out), "\n") != 4 {
		t.Errorf("four containers run, and there are these interfaces:\n%s", out)
	}
}

const sleeps = "echo began; sleep 3600"

// TestShimKilledLater: whatever a container is doing when its shim is killed, it is ended, recorded with a reason, and its policy is followed.
func TestShimKilledLater(t *testing.T) {
	e := newEngine(t)
	ctx := context.Background()
	kill := func(id string) {
		t.Helper()
		if err := unix.Kill(shimOf(id), unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	lost := func(id, what string) {
		t.Helper()
		e.eventually(what+": it has exited", func() bool { return e.rec(id).Status == Exited })
		if r := e.rec(id); r.ExitCode != 137 || !strings.Contains(r.Error, "supervisor") {
			t.Errorf("%s: %d %q", what, r.ExitCode, r.Error)
		}
		e.nothingLives(id)
		if out := e.output(id); out != "began\n" {
			t.Errorf("%s: its output is %q", what, out)
		}
	}
	begin := func(name, then string, h container.HostConfig) string {
		id := e.run(request{name: name, cmd: sh(then), h: h})
		e.eventually("it prints", func() bool { return e.output(id) == "began\n" })
		return id
	}

	stopping := begin("stopping", "trap 'touch /tmp/heard' TERM; echo began; while :; do sleep 0.05; done", container.HostConfig{})
	stopped := make(chan error, 1)
	go func() { stopped <- e.Stop(ctx, stopping, StopOptions{}) }()
	e.eventually("the signal is heard", func() bool {
		return e.exec(stopping, container.ExecCreateRequest{Cmd: []string{"test", "-e", "/tmp/heard"}}, nil).code == 0
	})
	kill(stopping)
	lost(stopping, "stopping")
	if err := <-stopped; err != nil {
		t.Errorf("stop: %v", err)
	}

	busy := begin("busy", sleeps, container.HostConfig{})
	x, err := e.ExecCreate(ctx, busy, container.ExecCreateRequest{Cmd: sh("sleep 3600"), AttachStdout: true})
	if err != nil {
		t.Fatal(err)
	}
	began, execEnded := make(chan struct{}), make(chan error, 1)
	go func() {
		execEnded <- e.ExecStart(ctx, x, ExecStreams{Stdout: &strings.Builder{}, Started: func() { close(began) }})
	}()
	<-began
	kill(busy)
	lost(busy, "with an exec")
	if err := <-execEnded; err != nil {
		t.Errorf("exec: %v", err)
	}
	if about, err := e.ExecInspect(x); err != nil || about.Running || *about.ExitCode != 137 {
		t.Errorf("exec: %+v %v", about, err)
	}

	frozen := begin("frozen", sleeps, container.HostConfig{})
	if err := e.Pause(ctx, frozen, PauseOptions{}); err != nil {
		t.Fatal(err)
	}
	kill(frozen)
	lost(frozen, "paused")

	again := begin("again", sleeps, restarting("on-failure", 3))
	first := e.rec(again).Pid
	kill(again)
	e.eventually("its policy starts it again", func() bool { r := e.rec(again); return r.Status == Running && r.RestartCount == 1 && r.Pid != first })
	if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", first)); err == nil && !strings.Contains(string(b), ") Z ") { // until the host's init has reaped it
		t.Errorf("its first life is not over: %s", b)
	}

	// And while no engine is there: the next one ends what has no supervisor.
	alone, policy := begin("alone", sleeps, container.HostConfig{}), begin("policy", sleeps, restarting("unless-stopped", 0))
	paused := begin("paused", sleeps, container.HostConfig{})
	if err := e.Pause(ctx, paused, PauseOptions{}); err != nil {
		t.Fatal(err)
	}
	disposable := begin("disposable", sleeps, container.HostConfig{AutoRemove: true})
	e.close()
	for _, id := range []string{alone, policy, paused, disposable} {
		kill(id)
	}
	e.open()
	lost(alone, "without an engine")
	lost(paused, "paused, without an engine")
	e.eventually("it runs again by its policy", func() bool { return e.rec(policy).Status == Running && shimOf(policy) != 0 })
	e.eventually("--rm has removed it", func() bool { _, err := e.index.find(disposable); return err != nil })
	e.nothingLives(disposable)
}

// TestEngineKilledWhileStarting: kill -9 right after each step of a start: the next life has the container running with its shim, or not at all.
func TestEngineKilledWhileStarting(t *testing.T) {
	e := newEngine(t)
	runs := 0
	for i, step := range startSteps()[5:] {
		id := e.create(request{name: fmt.Sprint("step", i), cmd: sh("sleep 3600"), h: container.HostConfig{NetworkMode: "bridge"}})
		e.killedAfter(step.name, id)
		t.Logf("killed after %q", step.name)
		e.checkAll()
		r := e.rec(id)
		if r.Status == Running {
			if shimOf(id) == 0 || step.name != "record the start" && step.name != "execute the program" {
				t.Errorf("after %q it runs, with shim %d", step.name, shimOf(id))
			}
			runs++
			continue
		}
		if r.Status != Created {
			t.Errorf("after %q it is %s: %s", step.name, r.Status, r.Error)
		}
		e.nothingLives(id)
		e.start(id) // and can be
	}
	if runs != 2 { // what was executed runs, whoever was told of it
		t.Errorf("it runs after %d steps", runs)
	}
	if out, _ := exec.Command("ip", "-o", "link", "show", "type", "veth").Output(); strings.Count(string(out), "\n") != len(startSteps()[5:]) {
		t.Errorf("there are these interfaces:\n%s", out)
	}
}

// killedAfter has an engine start a container that is killed right after a step, and then opens the next one.
func (e *engine) killedAfter(step, id string) {
	e.t.Helper()
	e.close()
	victim := exec.Command("/proc/self/exe")
	victim.Env = append(os.Environ(), victimVariable+"="+strings.Join([]string{e.o.Root, e.o.State, e.o.Oar, e.o.CgroupParent, "0", id, step}, "\n"))
	victim.Stderr = os.Stderr
	if err := victim.Run(); err == nil || victim.ProcessState.Sys().(interface{ Signaled() bool }).Signaled() == false {
		e.t.Fatalf("%s: the victim was not killed: %v", step, err)
	}
	e.open()
}

// TestUnrecordedStart: what was executed right before the engine was killed has run, and how it ended is known, the second time too.
func TestUnrecordedStart(t *testing.T) {
	e := newEngine(t)
	id := e.create(request{name: "short", cmd: sh("echo begun; exit 7")})
	for i := range 2 {
		before := e.rec(id)
		e.killedAfter("execute the program", id)
		e.eventually("its end is known", func() bool { return e.rec(id).Status == Exited })
		r := e.rec(id)
		if r.ExitCode != 7 || r.Error != "" || !r.StartedAt.After(before.FinishedAt) || !r.FinishedAt.After(r.StartedAt) {
			t.Errorf("%d %q, from %s to %s", r.ExitCode, r.Error, r.StartedAt, r.FinishedAt)
		}
		if out := e.output(id); out != strings.Repeat("begun\n", i+1) {
			t.Errorf("it printed %q", out)
		}
		e.nothingLives(id)
	}
	e.again()
	if r := e.rec(id); r.Status != Exited || r.ExitCode != 7 {
		t.Errorf("then it is %s, %d", r.Status, r.ExitCode)
	}
}
