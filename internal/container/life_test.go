package container

import (
	"context"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
)

func sh(script string) []string { return []string{"sh", "-c", script} }

func TestLife(t *testing.T) {
	e := newEngine(t)
	ctx := context.Background()
	id := e.create(request{name: "one", cmd: sh("echo hello; exit 7")})
	removed := e.arm(id, container.WaitConditionRemoved)
	exit := e.arm(id, container.WaitConditionNextExit)
	e.start(id)
	if code := e.take(exit); code != 7 {
		t.Errorf("exit code %d", code)
	}
	r := e.rec(id)
	if r.Status != Exited || r.ExitCode != 7 || r.FinishedAt.Before(r.StartedAt) || !r.HasRun || r.Pid != 0 {
		t.Errorf("%+v", r)
	}
	if out := e.output(id); out != "hello\n" {
		t.Errorf("output %q", out)
	}
	if code := e.take(e.arm(id, container.WaitConditionNotRunning)); code != 7 {
		t.Errorf("of an ended container: %d", code)
	}
	if err := e.Remove(ctx, id, RemoveOptions{}); err != nil {
		t.Error(err)
	}
	if code := e.take(removed); code != 7 {
		t.Errorf("at the removal: %d", code)
	}
	if err := e.Start(ctx, id); !errdefs.IsNotFound(err) {
		t.Errorf("start of a removed one: %v", err)
	}
	want := "create start die exitCode=7 destroy"
	if got := strings.Join(e.happened(id, "exitCode"), " "); got != want {
		t.Errorf("events %q, want %q", got, want)
	}
	if e.noted() != "" {
		t.Error(e.noted())
	}
}
