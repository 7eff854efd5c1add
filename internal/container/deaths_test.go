package container

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/why"
)

func (e *engine) why(id string) why.Report {
	e.t.Helper()
	report, err := Why(e.Service, id)
	if err != nil {
		e.t.Fatal(err)
	}
	return report
}

// TestDeaths: who asked for an end, or sent a signal, is known afterwards, in the engine's next life too, and of a container that was removed.
func TestDeaths(t *testing.T) {
	e := newEngine(t)
	ctx := AskedBy(context.Background(), func() why.Client { return why.Client{Pid: 42, UID: 7, Program: "tester"} })
	id := e.run(request{cmd: sh("sleep 3600")})
	if report := e.why(id); report.Cause != why.Running || len(report.Deaths) != 0 {
		t.Errorf("while it runs: %+v", report)
	}
	if err := e.Kill(ctx, id, ""); err != nil {
		t.Fatal(err)
	}
	want := "tester (pid 42, user 7) ended it with kill (SIGKILL)"
	if report := e.why(id); report.Cause != why.Killed || report.Summary != want {
		t.Errorf("%+v", report)
	}
	e.start(id)
	e.eventually("the kernel tells of signals", func() bool {
		e.senders.mu.Lock()
		defer e.senders.mu.Unlock()
		return e.senders.watch != nil
	})
	if err := unix.Kill(e.rec(id).Pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	e.eventually("ended", func() bool { return e.rec(id).Status == Exited })
	report := e.why(id)
	// It is this very process, which is the engine of this test.
	if sender := report.Deaths[0].Evidence.Sender; sender == nil || sender.Pid != os.Getpid() || sender.From != why.FromEngine || len(report.Deaths[0].Evidence.Asks) > 0 {
		t.Errorf("%+v", report.Deaths[0])
	}
	e.again()
	report = e.why(id)
	if len(report.Deaths) != 2 || report.Deaths[1].Summary != want || report.Deaths[0].Evidence.Sender == nil {
		t.Errorf("after a restart of the engine: %+v", report)
	}
	if err := e.Remove(context.Background(), id, RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	if again := e.why(id); again.Status != "removed" || len(again.Deaths) != 2 {
		t.Errorf("removed: %+v", again)
	}
}

// TestDeathsAreBounded, and each has the last lines of its own life only.
func TestDeathsAreBounded(t *testing.T) {
	e := newEngine(t)
	id := e.create(request{cmd: sh("echo x >>/runs; echo run $(wc -l </runs); exit 3")})
	for range deathsKept + 2 {
		next := e.arm(id, container.WaitConditionNextExit)
		e.start(id)
		e.take(next)
	}
	report := e.why(id)
	if len(report.Deaths) != deathsKept {
		t.Fatalf("%d are kept", len(report.Deaths))
	}
	if lines := strings.Join(report.Deaths[0].Evidence.Lines, "|"); lines != "run 12" {
		t.Errorf("last lines %q", lines)
	}
	c, _ := e.index.find(id)
	if err := os.WriteFile(filepath.Join(c.dir, deathsFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	e.again()
	if report := e.why(id); report.Cause == "" || e.rec(id).Status != Exited {
		t.Errorf("with a damaged file: %+v", report)
	}
}

// TestPlainEndIsNotWrittenDown: a program that came to its end costs no file.
func TestPlainEndIsNotWrittenDown(t *testing.T) {
	e := newEngine(t)
	id := e.create(request{cmd: []string{"true"}})
	next := e.arm(id, container.WaitConditionNextExit)
	e.start(id)
	e.take(next)
	if report := e.why(id); report.Cause != why.Finished || len(report.Deaths) != 1 {
		t.Errorf("%+v", report)
	}
	c, _ := e.index.find(id)
	if exists(filepath.Join(c.dir, deathsFile)) {
		t.Error("it was written down")
	}
}

// TestGraves are bounded, and found as containers are.
func TestGraves(t *testing.T) {
	var g graves
	for range gravesKept + 5 {
		g.add(&Record{ID: newID(), Name: "old", Config: &container.Config{}, HostConfig: &container.HostConfig{}}, nil)
	}
	last := &Record{ID: newID(), Name: "last", Config: &container.Config{}, HostConfig: &container.HostConfig{}}
	g.add(last, nil)
	if len(g.list) != gravesKept {
		t.Errorf("%d are kept", len(g.list))
	}
	for _, name := range []string{"last", "/last", last.ID, last.ID[:12]} {
		if found, ok := g.find(name); !ok || found.record.ID != last.ID {
			t.Errorf("%s: %v", name, ok)
		}
	}
	if _, ok := g.find("never"); ok {
		t.Error("one that never was")
	}
}
