package test

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestStandstill: when a machine that stood still goes on, a container that is being stopped still has its time: it has not run either.
func TestStandstill(t *testing.T) {
	e := newEngine(shared, t.TempDir())
	e.args = []string{"--cgroup-parent", "/" + run() + "/standstill"}
	ok(t, e.start())
	defer func() { ok(t, e.shutdown()) }()
	ok(t, e.load("busybox-1"))
	must := func(args ...string) string {
		t.Helper()
		out, err := e.run("wherry", args...)
		if err != nil {
			t.Fatalf("%v: %v: %s", args, err, out)
		}
		return strings.TrimSpace(out)
	}
	must("run", "-d", "--name", "slow", "--network", "none", "busybox:1", "sh", "-c", "trap 'echo asked; read line </fifo; exit 5' TERM; mkfifo /fifo; echo ready; while :; do sleep 0.05; done")
	logged := func(text string) {
		t.Helper()
		ok(t, eventually(20*time.Second, func() error {
			if out, _ := e.run("wherry", "logs", "slow"); !strings.Contains(out, text) {
				return fmt.Errorf("no %q in %q", text, out)
			}
			return nil
		}))
	}
	logged("ready")
	pid, err := strconv.Atoi(must("inspect", "-f", "{{.State.Pid}}", "slow"))
	ok(t, err)

	const timeout = 5
	stop := exec.Command(filepath.Join(e.bench.bin, "wherry"), "-H", e.host(), "stop", "-t", strconv.Itoa(timeout), "slow")
	ok(t, stop.Start())
	logged("asked")
	engine := e.cmd.Process.Pid
	for _, p := range []int{engine, pid} {
		ok(t, syscall.Kill(p, syscall.SIGSTOP))
	}
	time.Sleep((timeout + 1) * time.Second)
	ok(t, syscall.Kill(engine, syscall.SIGCONT)) // the engine is the first to know what time it is
	must("version")
	ok(t, syscall.Kill(pid, syscall.SIGCONT))
	must("exec", "slow", "sh", "-c", "echo >/fifo")
	ok(t, stop.Wait())
	if code := must("inspect", "-f", "{{.State.ExitCode}}", "slow"); code != "5" {
		t.Errorf("the container did not have its time to end: its exit code is %s", code)
	}
}
