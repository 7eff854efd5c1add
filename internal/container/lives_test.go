package container

import (
	"context"
	"errors"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
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
