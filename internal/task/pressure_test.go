package task

import (
	"context"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/cgroup"
)

// TestShimSurvivesItsGroupsPressure: where the engine and its shims have a memory limit of their own and something else in their group takes
// all of it, the kernel's choice is not the shim: it has the least, and the lowest score where the kernel lets it set one (that takes
// CAP_SYS_RESOURCE).
func TestShimSurvivesItsGroupsPressure(t *testing.T) {
	limit := int64(48 << 20)
	g, err := cgroup.Create("/wherry-task-test/engine", &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit, Swap: &limit}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.WaitEmpty(context.Background()); err != nil {
			t.Error(err)
		}
		if err := g.Delete(); err != nil {
			t.Error(err)
		}
	})
	o := options(t, oar(t), "pressed", "sleep", "1000")
	tk := run(t, o)
	shim := parent(t, tk.Pid())
	own, _ := os.ReadFile("/proc/self/oom_score_adj")
	want := strings.TrimSpace(string(own))
	if mayLowerScores(t) {
		want = "-999"
	}
	if got, _ := os.ReadFile("/proc/" + itoa(shim) + "/oom_score_adj"); strings.TrimSpace(string(got)) != want {
		t.Errorf("the shim's score is %s, not %s", got, want)
	}
	if err := g.Add(shim); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		greedy := exec.Command("/bin/sh", "-c", "read go; exec tail /dev/zero")
		in, err := greedy.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := greedy.Start(); err != nil {
			t.Fatal(err)
		}
		if err := g.Add(greedy.Process.Pid); err != nil {
			t.Fatal(err)
		}
		if _, err := in.Write([]byte("go\n")); err != nil {
			t.Fatal(err)
		}
		if err := greedy.Wait(); err == nil || greedy.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Fatalf("the greedy one was not killed: %v", err)
		}
		if kills, err := g.OOMKills(); err != nil || kills != uint64(i+1) {
			t.Fatalf("%d kills, %v", kills, err)
		}
		p, err := tk.Exec(t.Context(), ExecOptions{ID: itoa(i), Process: &specs.Process{Args: []string{"true"}, Cwd: "/", Env: []string{"PATH=/bin"}}})
		if err != nil {
			t.Fatalf("the shim works no more: %v", err)
		}
		if code, err := p.Wait(t.Context()); code != 0 || err != nil {
			t.Fatalf("%d %v", code, err)
		}
	}
	if parent(t, tk.Pid()) != shim {
		t.Error("another process is the container's parent")
	}
}

// mayLowerScores says whether this process has CAP_SYS_RESOURCE.
func mayLowerScores(t *testing.T) bool {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "CapEff:\t")
	line, _, _ := strings.Cut(rest, "\n")
	caps, err := strconv.ParseUint(line, 16, 64)
	if err != nil {
		t.Fatal(err)
	}
	return caps&(1<<unix.CAP_SYS_RESOURCE) != 0
}
