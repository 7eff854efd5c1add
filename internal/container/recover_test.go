package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/shim"
	"wherry.dev/wherry/internal/task"
)

func restarting(name container.RestartPolicyMode, n int) container.HostConfig {
	return container.HostConfig{RestartPolicy: container.RestartPolicy{Name: name, MaximumRetryCount: n}}
}

// TestNextLife: what ran runs on, what ended has its exact exit code, and policies are followed.
func TestNextLife(t *testing.T) {
	e := newEngine(t)
	ctx := context.Background()
	runs := e.run(request{name: "runs", cmd: sh("sleep 3600")})
	ends := e.run(request{name: "ends", cmd: sh("sleep 0.3; exit 42")})
	frozen := e.run(request{name: "frozen", cmd: sh("sleep 3600")})
	if err := e.Pause(ctx, frozen, PauseOptions{}); err != nil {
		t.Fatal(err)
	}
	always := e.run(request{name: "always", cmd: sh("sleep 0.2; exit 3"), h: restarting("always", 0)})
	stopped := e.run(request{name: "stopped", cmd: sh("sleep 3600"), h: restarting("unless-stopped", 0)})
	gone := e.run(request{name: "gone", cmd: sh("sleep 0.2"), h: container.HostConfig{AutoRemove: true}})
	created := e.create(request{name: "created"})
	now := 0
	if err := e.Stop(ctx, stopped, StopOptions{Timeout: &now}); err != nil {
		t.Fatal(err)
	}
	pid := e.rec(runs).Pid
	e.close()
	for _, id := range []string{ends, always, gone} {
		dir := filepath.Join(e.o.State, "tasks", id)
		e.eventually("it has ended, while no engine was there as a rule", func() bool { return exists(filepath.Join(dir, shim.ExitFile)) || !exists(dir) })
	}
	e.open()
	if r := e.rec(runs); r.Status != Running || r.Pid != pid {
		t.Errorf("runs: %s %d, was %d", r.Status, r.Pid, pid)
	}
	if r := e.rec(ends); r.Status != Exited || r.ExitCode != 42 {
		t.Errorf("ends: %s %d", r.Status, r.ExitCode)
	}
	if r := e.rec(frozen); r.Status != Paused {
		t.Errorf("frozen: %s", r.Status)
	}
	if err := e.Unpause(ctx, frozen); err != nil {
		t.Error(err)
	}
	if r := e.rec(created); r.Status != Created {
		t.Errorf("created: %s", r.Status)
	}
	e.eventually("always runs again", func() bool { r := e.rec(always); return r.RestartCount > 0 })
	if r := e.rec(stopped); r.Status != Exited {
		t.Errorf("stopped: %s", r.Status)
	}
	e.eventually("--rm is gone", func() bool { _, err := e.index.find(gone); return err != nil })
	exit := e.arm(runs, container.WaitConditionNotRunning)
	if err := e.Stop(ctx, runs, StopOptions{Timeout: &now}); err != nil {
		t.Error(err)
	}
	if code := e.take(exit); code != 137 {
		t.Errorf("runs: exit code %d", code)
	}
	if e.noted() != "" {
		t.Error(e.noted())
	}
}

// TestAfterReboot: tasks are gone with the state directory. What ran is known to have ended, and policies start it again.
func TestAfterReboot(t *testing.T) {
	e := newEngine(t)
	plain := e.run(request{name: "plain", cmd: sh("sleep 3600")})
	kept := e.run(request{name: "kept", cmd: sh("sleep 3600"), h: restarting("unless-stopped", 0)})
	failed := e.run(request{name: "failed", cmd: sh("sleep 3600"), h: restarting("on-failure", 0)})
	temporary := e.run(request{name: "temporary", cmd: sh("sleep 3600"), h: container.HostConfig{AutoRemove: true}})
	unnoted := e.run(request{name: "unnoted", cmd: sh("sleep 3600"), h: container.HostConfig{AutoRemove: true}})
	never := e.create(request{name: "never", cmd: sh("true"), h: container.HostConfig{AutoRemove: true}})
	tasks := []string{plain, kept, failed, temporary, unnoted}
	e.close()
	for _, id := range tasks { // as a reboot does
		dir := filepath.Join(e.o.State, "tasks", id)
		tk, err := task.Open(context.Background(), dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := tk.Delete(context.Background()); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(e.o.Root, "containers", id)
		r, err := readRecord(path)
		if err != nil {
			t.Fatal(err)
		}
		r.BootID = "an earlier one"
		if id == unnoted { // the power was cut before its start was on the disk
			r.Status, r.BootID, r.HasRun = Created, "", false
		}
		if err := r.write(path, false); err != nil {
			t.Fatal(err)
		}
	}
	e.o.unmountEtc() // as all mounts have gone with the machine
	if err := e.images.Unmount(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(e.o.State); err != nil {
		t.Fatal(err)
	}
	e.open()
	if r := e.rec(plain); r.Status != Exited || r.ExitCode != 255 || r.Error == "" {
		t.Errorf("plain: %s %d %q", r.Status, r.ExitCode, r.Error)
	}
	for _, id := range []string{kept, failed} {
		e.eventually("it runs again", func() bool { return e.rec(id).Status == Running })
	}
	for _, id := range []string{temporary, unnoted} {
		e.eventually("--rm is gone", func() bool { _, err := e.index.find(id); return err != nil })
	}
	if r := e.rec(never); r.Status != Created {
		t.Errorf("never: %s", r.Status)
	}
}

// TestLayersAreMountedWhenNeeded: after a boot the engine's start mounts nothing, and a container's start mounts what it needs.
func TestLayersAreMountedWhenNeeded(t *testing.T) {
	e := newEngine(t)
	id := e.create(request{name: "old", cmd: sh("cat /data/file"), h: container.HostConfig{
		Mounts: []mount.Mount{{Type: mount.TypeImage, Source: "busybox:1", Target: "/other"}}}})
	e.close()
	if err := e.images.Unmount(); err != nil {
		t.Fatal(err)
	}
	layers := e.o.State + "-elsewhere/layers"
	t.Cleanup(func() { _ = os.RemoveAll(e.o.State + "-elsewhere") })
	e.mounts = layers
	e.open()
	if list, err := filepath.Glob(filepath.Join(layers, "*", "*")); err != nil || len(list) > 0 {
		t.Errorf("the start mounted %v, %v", list, err)
	}
	exit := e.arm(id, container.WaitConditionNextExit)
	e.start(id)
	if code := e.take(exit); code != 0 || !exists(filepath.Join(e.rec(id).Image.Lower[0], "data/file")) {
		t.Errorf("it ended with %d, on %v", code, e.rec(id).Image.Lower)
	}
}

// TestShimKilled: nobody knows how the program would have ended; nothing of it is left.
func TestShimKilled(t *testing.T) {
	e := newEngine(t)
	id := e.run(request{name: "orphan", cmd: sh("sleep 3600 & sleep 3600")})
	pid := e.rec(id).Pid
	exit := e.arm(id, container.WaitConditionNextExit)
	if err := unix.Kill(parentOf(t, pid), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if code := e.take(exit); code != 137 {
		t.Errorf("exit code %d", code)
	}
	if r := e.rec(id); r.Status != Exited || r.Error == "" {
		t.Errorf("%s %q", r.Status, r.Error)
	}
	e.eventually("the program is dead", func() bool { return errors.Is(unix.Kill(pid, 0), syscall.ESRCH) })
	e.start(id) // and it can be started again
}

// TestDamagedRecord: it is named and set aside; the others are there.
func TestDamagedRecord(t *testing.T) {
	e := newEngine(t)
	good, bad := e.create(request{name: "good"}), e.create(request{name: "bad"})
	disposable := e.create(request{name: "disposable", h: container.HostConfig{AutoRemove: true}})
	e.close()
	for _, id := range []string{bad, disposable} {
		if err := os.WriteFile(filepath.Join(e.o.Root, "containers", id, recordFile), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	e.open()
	if _, err := e.index.find(good); err != nil {
		t.Error(err)
	}
	if _, err := e.index.find(bad); err == nil || !strings.Contains(e.noted(), bad) {
		t.Errorf("%v; noted %q", err, e.noted())
	}
	if left, _ := filepath.Glob(filepath.Join(e.o.Root, "containers", disposable+"*")); len(left) > 0 || strings.Contains(e.noted(), disposable) {
		t.Errorf("a disposable container's rest %v is left; noted %q", left, e.noted())
	}
	aside, _ := filepath.Glob(filepath.Join(e.o.Root, "containers", bad+".damaged-*"))
	if len(aside) != 1 {
		t.Errorf("set aside: %v", aside)
	}
	for _, dir := range aside {
		os.RemoveAll(dir)
	}
}

// TestDamagedByPowerCut: of a record that was written several times the one before is still there.
func TestDamagedByPowerCut(t *testing.T) {
	e := newEngine(t)
	id := e.create(request{name: "older"})
	if err := e.Rename(context.Background(), id, "newer"); err != nil {
		t.Fatal(err)
	}
	e.close()
	if err := os.Truncate(filepath.Join(e.o.Root, "containers", id, recordFile), 100); err != nil {
		t.Fatal(err)
	}
	e.open()
	if r := e.rec("older"); r.ID != id || !strings.Contains(e.noted(), id) {
		t.Errorf("%s; noted %q", r.ID, e.noted())
	}
	e.again() // the damage is mended
}

// TestFolderTakenAway: a process whose container's folder is gone is nobody's, and ends.
func TestFolderTakenAway(t *testing.T) {
	e := newEngine(t)
	id := e.run(request{name: "vanishes", cmd: sh("sleep 3600"), h: container.HostConfig{IpcMode: "shareable"}})
	pid := e.rec(id).Pid
	e.close()
	if err := os.RemoveAll(filepath.Join(e.o.Root, "containers", id)); err != nil {
		t.Fatal(err)
	}
	e.open()
	e.eventually("its process is dead and nothing is left", func() bool {
		left, _ := filepath.Glob(filepath.Join(e.o.State, "*", id))
		return errors.Is(unix.Kill(pid, 0), syscall.ESRCH) && len(left) == 0
	})
	if !strings.Contains(e.noted(), id) {
		t.Errorf("noted %q", e.noted())
	}
}

// TestRemovalGoesOn: an engine that was killed in the middle of a removal goes on with it.
func TestRemovalGoesOn(t *testing.T) {
	e := newEngine(t)
	id := e.create(request{name: "half-removed"})
	c, _ := e.index.find(id)
	if _, err := c.become(Removing, true, nil); err != nil {
		t.Fatal(err)
	}
	e.again()
	e.eventually("it is gone", func() bool { _, err := e.index.find(id); return err != nil })
	if _, err := os.Stat(c.dir); err == nil {
		t.Error("its folder is left")
	}
	e.create(request{name: "half-removed"})
}

// TestHundredFoundAgain bounds what an engine's start does for each container.
func TestHundredFoundAgain(t *testing.T) {
	e := newEngine(t)
	for i := range 30 {
		e.run(request{name: fmt.Sprintf("many%d", i), cmd: sh("sleep 3600")})
	}
	e.again()
	for i := range 30 {
		if r := e.rec(fmt.Sprintf("many%d", i)); r.Status != Running {
			t.Errorf("%s is %s", r.Name, r.Status)
		}
	}
}

// TestStoppedShim: one shim that does not answer keeps nobody from the other containers, nor from an engine's start, nor from removing
// its own container by force.
func TestStoppedShim(t *testing.T) {
	e := newEngine(t)
	ctx := context.Background()
	id, other := e.run(request{name: "stuck", cmd: sh("sleep 3600")}), e.run(request{name: "other", cmd: sh("sleep 3600")})
	shim := parentOf(t, e.rec(id).Pid)
	if err := unix.Kill(shim, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Kill(shim, unix.SIGCONT) }()
	began := time.Now()
	e.again()
	now := 0
	if err := e.Stop(ctx, other, StopOptions{Timeout: &now}); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("the others had to wait for %s", took)
	}
	e.again() // an engine that goes before the shim has answered knows nothing of it
	if r := e.rec(id); r.Status != Running || r.Error != "" {
		t.Errorf("stuck is %s: %s", r.Status, r.Error)
	}
	if err := unix.Kill(shim, unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	c, _ := e.index.find(id)
	e.eventually("its task is found when it answers", func() bool { _, _, err := c.running(); return err == nil })
	if err := unix.Kill(shim, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if err := e.Remove(ctx, id, RemoveOptions{Force: true}); err != nil {
		t.Errorf("rm -f: %v", err)
	}
}

func parentOf(t *testing.T, pid int) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "PPid:\t")
	line, _, _ := strings.Cut(rest, "\n")
	return number(t, line)
}

// TestFullDisk: nothing new can be made, and is told why; what runs can be stopped and removed.
func TestFullDisk(t *testing.T) {
	small := filepath.Join(t.TempDir(), "small")
	if err := os.Mkdir(small, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", small, "tmpfs", 0, "size=16m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(small, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	e := newEngineIn(t, small)
	ctx, now := context.Background(), 0
	id := e.run(request{name: "runs", cmd: sh("sleep 3600"), h: restarting("always", 0)})
	fill := filepath.Join(small, "fill")
	f, err := os.Create(fill)
	if err != nil {
		t.Fatal(err)
	}
	for block := make([]byte, 4096); err == nil; _, err = f.Write(block) {
	}
	f.Close()
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	if _, err := e.tryCreate(request{name: "new"}); err == nil || !strings.Contains(err.Error(), "in memory at "+small+" is full") {
		t.Errorf("create: %v", err)
	}
	if err := e.Stop(ctx, id, StopOptions{Timeout: &now}); err != nil {
		t.Errorf("stop: %v", err)
	}
	if r := e.rec(id); r.Status != Exited || r.ExitCode != 137 || !r.Stopped {
		t.Errorf("%s %d", r.Status, r.ExitCode)
	}
	if err := e.Remove(ctx, id, RemoveOptions{}); err != nil {
		t.Errorf("remove: %v", err)
	}
	if err := os.Remove(fill); err != nil {
		t.Fatal(err)
	}
	e.run(request{name: "new", cmd: sh("true")}) // and the name is free
}

// TestUnwrittenEnd: how a container has ended is known to the next life also where its record could not be written.
func TestUnwrittenEnd(t *testing.T) {
	e := newEngine(t)
	id := e.run(request{name: "ends", cmd: sh("trap 'exit 5' TERM; echo ready; while :; do sleep 0.01; done")})
	e.eventually("it is ready", func() bool { return e.output(id) == "ready\n" })
	next := filepath.Join(e.o.Root, "containers", id, recordFile+".new")
	if err := errors.Join(os.RemoveAll(next), os.Mkdir(next, 0o700)); err != nil {
		t.Fatal(err)
	}
	if err := e.Stop(context.Background(), id, StopOptions{}); err != nil {
		t.Fatal(err)
	}
	if r := e.rec(id); r.Status != Exited || r.ExitCode != 5 || r.Error == "" {
		t.Errorf("%s %d %q", r.Status, r.ExitCode, r.Error)
	}
	e.close()
	if err := os.Remove(next); err != nil {
		t.Fatal(err)
	}
	e.open()
	if r := e.rec(id); r.Status != Exited || r.ExitCode != 5 || r.Error != "" {
		t.Errorf("in the next life: %s %d %q", r.Status, r.ExitCode, r.Error)
	}
	e.nothingLives(id)
	e.start(id)
}

// TestForgottenStop: whoever stops a container hears of it where neither its record nor the mark beside its shim could be written and an engine's next
// life would start it again, for as long as that is so.
func TestForgottenStop(t *testing.T) {
	e := newEngine(t)
	ctx := context.Background()
	for policy, told := range map[container.RestartPolicyMode]bool{"unless-stopped": true, "on-failure": true, "always": false, "no": false} {
		id := e.run(request{cmd: sh("exec sleep 3600"), h: restarting(policy, 0)})
		if err := e.Kill(ctx, id, "KILL"); err != nil {
			t.Fatal(err)
		}
		c, err := e.index.find(id)
		if err != nil {
			t.Fatal(err)
		}
		e.eventually("its shim has gone", func() bool { return !exists(c.taskDir) }) // and with it the place of the mark
		next := filepath.Join(e.o.Root, "containers", id, recordFile+".new")
		if err := errors.Join(os.RemoveAll(next), os.Mkdir(next, 0o700)); err != nil {
			t.Fatal(err)
		}
		c.settle(func(*Record) {})
		err = e.Stop(ctx, id, StopOptions{})
		if says := err != nil && strings.Contains(err.Error(), "is stopped, and that could not be written down: its restart policy "+string(policy)); says != told {
			t.Errorf("%s: %v", policy, err)
		}
		if err := os.Remove(next); err != nil {
			t.Fatal(err)
		}
		if err := e.Stop(ctx, id, StopOptions{}); !errdefs.IsNotModified(err) {
			t.Errorf("%s, written now: %v", policy, err)
		}
	}
}

// TestDiscardedFolders: the files of a container with --rm are deleted, also where the engine is killed as soon as it has said so.
func TestDiscardedFolders(t *testing.T) {
	e := newEngine(t)
	left := func() []string {
		folders, _ := filepath.Glob(filepath.Join(e.o.Root, "containers", "[^.]*"))
		return folders
	}
	id := e.create(request{cmd: sh("echo x >/kept"), h: container.HostConfig{AutoRemove: true}})
	gone := e.arm(id, container.WaitConditionRemoved)
	e.start(id)
	e.take(gone)
	if _, err := os.Stat(filepath.Join(e.o.Root, "containers", id)); err == nil {
		t.Error("its folder is there after it was said to be removed")
	}
	e.eventually("its files are deleted", func() bool { return len(left()) == 0 })
	e.close()
	if err := os.MkdirAll(filepath.Join(e.o.Root, "containers", id+discardedSuffix, "rootfs", "upper"), 0o700); err != nil {
		t.Fatal(err)
	}
	e.open()
	e.eventually("what an earlier life has left is deleted", func() bool { return len(left()) == 0 })

	// It was said to be removed, and then the engine was killed before it had ended the task.
	id = e.run(request{cmd: sh("sleep 3600"), h: container.HostConfig{AutoRemove: true}})
	e.close()
	at := filepath.Join(e.o.Root, "containers", id)
	if err := os.Rename(at, at+discardedSuffix); err != nil {
		t.Fatal(err)
	}
	e.open()
	e.nothingLives(id)
	e.eventually("its files are deleted", func() bool { return len(left()) == 0 })
	if strings.Contains(e.noted(), id) {
		t.Errorf("noted: %s", e.noted())
	}
}

// TestManyLeaveLittleToLookFor: what a start looks at grows as the number of containers does, and not as its square.
func TestManyLeaveLittleToLookFor(t *testing.T) {
	cost := func(n int) float64 {
		o := Options{Root: t.TempDir(), State: t.TempDir()}
		for i := range n {
			id := fmt.Sprintf("%064d", i)
			for _, dir := range []string{filepath.Join(o.containersDir(), id), filepath.Join(o.State, "tasks", id), o.etcDir(id)} {
				if err := os.MkdirAll(dir, 0o700); err != nil {
					t.Fatal(err)
				}
			}
		}
		lost := filepath.Join(o.State, "tasks", "lost")
		if err := errors.Join(os.Mkdir(lost, 0o700), os.Mkdir(filepath.Join(o.containersDir(), "kept.damaged-1"), 0o700), os.Mkdir(filepath.Join(o.State, "tasks", "kept"), 0o700)); err != nil {
			t.Fatal(err)
		}
		return testing.AllocsPerRun(1, func() {
			if left, err := leftBehind(o); err != nil || len(left) != 1 || left[0] != lost {
				t.Fatalf("%q, %v", left, err)
			}
		})
	}
	if few, many := cost(50), cost(500); many > 20*few {
		t.Errorf("%.0f allocations for 50 containers, %.0f for 500", few, many)
	}
}
