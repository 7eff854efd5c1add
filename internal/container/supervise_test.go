package container

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
)

// TestExecsInTheNextLife: an exec that runs while the engine goes is known to the next one, and so is how it ended meanwhile.
func TestExecsInTheNextLife(t *testing.T) {
	e := newEngine(t)
	ctx := context.Background()
	id := e.run(request{name: "box", cmd: sh("sleep 3600")})
	begin := func(script string) string {
		x, err := e.ExecCreate(ctx, id, container.ExecCreateRequest{Cmd: sh(script), User: "web", Env: []string{"SECRET=x"}})
		if err != nil {
			t.Fatal(err)
		}
		if err := e.ExecStart(ctx, x, ExecStreams{Detach: true}); err != nil {
			t.Fatal(err)
		}
		return x
	}
	ends, goesOn := begin("while ! test -e /tmp/end; do sleep 0.02; done; exit 42"), begin("while ! test -e /tmp/later; do sleep 0.02; done; exit 43")
	known := e.exec(id, container.ExecCreateRequest{Cmd: sh("exit 41")}, nil)
	if known.code != 41 {
		t.Fatalf("%+v", known)
	}
	e.close()
	touch := func(file string) {
		if got := e.exec(id, container.ExecCreateRequest{Cmd: []string{"touch", file}}, nil); got.code != 0 {
			t.Fatalf("%+v", got)
		}
	}
	e.open()
	if x, err := e.ExecInspect(ends); err != nil || !x.Running || x.Pid == 0 || x.ProcessConfig.User != "web" || x.ProcessConfig.Arguments[0] != "-c" {
		t.Fatalf("%+v %v", x, err)
	}
	touch("/tmp/end")
	code := func(x string, want int) {
		t.Helper()
		e.eventually("its exit code is known", func() bool {
			got, err := e.ExecInspect(x)
			return err == nil && !got.Running && got.ExitCode != nil && *got.ExitCode == want && got.Pid == 0
		})
	}
	code(ends, 42)
	if got := strings.Join(e.happened(id, "execID", "exitCode"), ", "); strings.Count(got, "exec_die execID="+ends+" exitCode=42") != 1 {
		t.Errorf("events: %s", got)
	}
	// The other ends while no engine is there.
	now := []string{"sh", "-c", "sleep 0.3; touch /tmp/later"}
	x, err := e.ExecCreate(ctx, id, container.ExecCreateRequest{Cmd: now})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.ExecStart(ctx, x, ExecStreams{Detach: true}); err != nil {
		t.Fatal(err)
	}
	e.close()
	time.Sleep(600 * time.Millisecond)
	e.open()
	code(goesOn, 43)
	code(ends, 42)
	if list := e.execs.of(id); len(list) != 0 {
		t.Errorf("execs that run: %v", list)
	}
	if err := e.ExecStart(ctx, goesOn, ExecStreams{}); err == nil {
		t.Error("it can be started again")
	}
	if noted := e.noted(); noted != "" {
		t.Error(noted)
	}
}

// TestShortageIsAnEvent while the container lives, not only at its end, and once for each.
func TestShortageIsAnEvent(t *testing.T) {
	e := newEngine(t)
	id := e.run(request{name: "greedy", cmd: sh("tail /dev/zero; while ! test -e /tmp/end; do sleep 0.02; done; exit 4"),
		h: container.HostConfig{Resources: container.Resources{Memory: 24 << 20, MemorySwap: 24 << 20}}})
	e.eventually("the kill is told", func() bool {
		return strings.Join(e.happened(id, "victim"), ", ") == "create, start, oom victim=tail"
	})
	if r := e.rec(id); r.Status != Running || !r.OOMKilled || r.OOMVictim != "tail" {
		t.Errorf("%s %v %q", r.Status, r.OOMKilled, r.OOMVictim)
	}
	e.again()
	if r := e.rec(id); r.Status != Running || !r.OOMKilled {
		t.Errorf("in the next life: %s %v", r.Status, r.OOMKilled)
	}
	end := e.arm(id, container.WaitConditionNotRunning)
	e.exec(id, container.ExecCreateRequest{Cmd: []string{"touch", "/tmp/end"}}, nil)
	if code := e.take(end); code != 4 {
		t.Errorf("exit code %d", code)
	}
	if got := strings.Join(e.happened(id, "victim"), ", "); strings.Contains(got, "oom") || !strings.HasSuffix(got, "die") {
		t.Errorf("events of the next life: %s", got)
	}
	if r := e.rec(id); !r.OOMKilled || r.OOMVictim != "tail" {
		t.Errorf("%v %q", r.OOMKilled, r.OOMVictim)
	}
}

// TestNotesOfExecsAreShort: scripts as arguments may be megabytes, of which a shim keeps nothing.
func TestNotesOfExecsAreShort(t *testing.T) {
	for _, row := range []struct {
		cmd  []string
		kept int // arguments; 0: no note
	}{
		{sh("true"), 3},
		{sh(strings.Repeat("<", 100_000)), 1},
		{[]string{strings.Repeat("x", 100_000)}, 0},
	} {
		x := execution{request: container.ExecCreateRequest{Cmd: row.cmd, Env: []string{"SECRET=x"}}}
		b := x.note()
		var n execNote
		if row.kept > 0 {
			if err := json.Unmarshal(b, &n); err != nil {
				t.Fatal(err)
			}
		}
		if len(n.Request.Cmd) != row.kept || len(b) > maxNote || n.Request.Env != nil || len(x.request.Cmd) != len(row.cmd) {
			t.Errorf("%d arguments are kept instead of %d, in %d bytes", len(n.Request.Cmd), row.kept, len(b))
		}
	}
}
