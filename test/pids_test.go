package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestFullProcessTable: where no process can be made any more, nor a thread, the engine lists, stops and removes; what it cannot do it says.
func TestFullProcessTable(t *testing.T) {
	e := newEngine(shared, t.TempDir())
	e.pids = 512
	probe := filepath.Join(e.dir, "probe")
	build := exec.Command("go", "build", "-o", probe, "wherry.dev/wherry/internal/ociruntime/testdata/probe")
	build.Env, build.Dir = append(os.Environ(), "CGO_ENABLED=0", "GOTMPDIR="+t.TempDir()), repository()
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build probe: %v: %s", err, out)
	}
	if err := e.start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := e.shutdown(); err != nil {
			t.Error(err)
		}
	}()
	if err := e.load("busybox-1"); err != nil {
		t.Fatal(err)
	}
	wherry := func(args ...string) string {
		t.Helper()
		out, err := e.run("wherry", args...)
		if err != nil {
			log, _ := os.ReadFile(e.dir + "/wherryd.log")
			t.Fatalf("wherry %s: %v\n%s\n%s", strings.Join(args, " "), err, out, log)
		}
		return strings.TrimSpace(out)
	}
	refused := func(args ...string) {
		t.Helper()
		out, err := e.run("wherry", args...)
		if err == nil || !strings.Contains(out, "no more processes") {
			t.Errorf("wherry %s: %v: %s", strings.Join(args, " "), err, out)
		}
	}
	// The engine is the first process of its namespace: what loses its parent there is reaped.
	for range 3 {
		wherry("run", "--rm", "--pid=host", "busybox:1", "sh", "-c", "sleep 3600 & sleep 3601 & exit 0")
	}
	if err := eventually(time.Minute, func() error { return noZombies(e.cmd.Process.Pid) }); err != nil {
		t.Error(err)
	}
	wherry("run", "-d", "--name", "steady", "busybox:1", "sleep", "3600")
	wherry("run", "-d", "--name", "other", "busybox:1", "sh", "-c", "trap 'exit 4' TERM; while :; do read x </dev/zero; done")
	wherry("create", "--name", "late", "busybox:1", "true")
	wherry("run", "-d", "--name", "crowd", "--pids-limit", "-1", "-v", probe+":/probe:ro", "busybox:1", "/probe", "crowd")
	if err := eventually(60*time.Second, func() error {
		if !strings.Contains(wherry("logs", "crowd"), "full") {
			return os.ErrDeadlineExceeded
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if out := wherry("ps", "-a", "--format", "{{.Names}} {{.State}}"); out != "crowd running\nlate created\nother running\nsteady running" {
			t.Errorf("%q", out)
		}
		refused("run", "--rm", "busybox:1", "true")
		refused("start", "late")
		refused("exec", "steady", "true")
		wherry("inspect", "steady", "crowd")
		wherry("top", "crowd")
		wherry("stats", "--no-stream")
	}
	var many sync.WaitGroup
	for i := range 48 { // each of them takes threads of the engine, too
		many.Go(func() {
			args := [][]string{{"ps", "-a"}, {"inspect", "crowd", "late"}, {"images"}, {"logs", "other"}, {"volume", "ls"}, {"cp", "other:/etc", e.dir + "/" + strconv.Itoa(i)}}[i%6]
			if out, err := e.run("wherry", args...); err != nil {
				t.Errorf("%v: %v: %s", args, err, out)
			}
		})
	}
	many.Wait()
	wherry("stop", "-t", "0", "steady")
	wherry("rm", "-f", "other")
	wherry("rm", "steady", "late")
	wherry("rm", "-f", "crowd")
	if out := wherry("run", "--rm", "busybox:1", "echo", "again"); out != "again" {
		t.Errorf("%q", out)
	}
}

// noZombies: a process has no child that is dead and not reaped.
func noZombies(pid int) error {
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil || len(lists) == 0 {
		return fmt.Errorf("no children of %d can be listed: %v", pid, err)
	}
	for _, f := range lists {
		b, _ := os.ReadFile(f)
		for _, child := range strings.Fields(string(b)) {
			if stat, _ := os.ReadFile("/proc/" + child + "/stat"); strings.Contains(string(stat), ") Z ") {
				return fmt.Errorf("a zombie: %s", stat)
			}
		}
	}
	return nil
}
