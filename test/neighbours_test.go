package test

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestContainersAreApart: a container sees no process of another's; one that is shown all of the host's by --pid host may neither signal nor
// trace nor read them.
func TestContainersAreApart(t *testing.T) {
	h := newHostile(t)
	image := h.image("base", nil)
	other := h.background(image, "sleep", "1000")
	pid := h.must("wherry", "inspect", "-f", "{{.State.Pid}}", other)
	engine := strconv.Itoa(shared.engine.cmd.Process.Pid)
	if out := h.must("wherry", "run", "--rm", image, "probe", "processes"); out != "probe" {
		t.Errorf("a container sees %q", out)
	}
	c := h.background(image, "sleep", "1000")
	if out := h.must("docker", "exec", c, "probe", "processes"); out != "sleep\nprobe" {
		t.Errorf("an exec sees %q", out)
	}
	out := h.must("wherry", "run", "--rm", "--pid", "host", image, "probe", "neighbours", pid, engine, strconv.Itoa(os.Getpid()))
	if strings.Count(out, "signal: operation not permitted") != 3 || strings.Count(out, "ptrace: operation not permitted") != 3 || strings.Contains(out, "OPENED") {
		t.Errorf("with --pid host: %s", out)
	}
	if out, code := h.run("wherry", "run", "--rm", image, "probe", "neighbours", pid, engine); code != 0 || strings.Count(out, "signal: no such process") != 2 {
		t.Errorf("by number: %s", out)
	}
}

// TestNothingListensInTheAbstract: class 13 (CVE-2020-15257): a container on the host's network finds no socket of the engine's or of a shim's;
// their folders are root's alone.
func TestNothingListensInTheAbstract(t *testing.T) {
	h := newHostile(t)
	image := h.image("base", nil)
	h.background(image, "sleep", "1000")
	out := h.must("wherry", "run", "--rm", "--network", "host", "--userns=host", image, "cat", "/proc/net/unix")
	if strings.Contains(out, "@") || !strings.Contains(out, "wherry.sock") {
		t.Errorf("sockets that any container on the host's network can name: %s", out)
	}
	for _, dir := range []string{"root", "state"} {
		fi, err := os.Stat(shared.engine.dir + "/" + dir)
		ok(t, err)
		if fi.Mode().Perm() != 0o700 {
			t.Errorf("%s has mode %o", dir, fi.Mode().Perm())
		}
	}
	fi, err := os.Stat(shared.engine.socket())
	ok(t, err)
	if fi.Mode().Perm() != 0o600 {
		t.Errorf("the socket has mode %o", fi.Mode().Perm())
	}
}

// TestLiesEndNothing: class 16: a process that stops for its tracer is not taken for dead, be it a container's first one, an exec or a health
// check, and what it has started goes with the container.
func TestLiesEndNothing(t *testing.T) {
	h := newHostile(t)
	image := h.image("lie", map[string]any{"Healthcheck": map[string]any{"Test": []string{"CMD", "probe", "lie"}, "Interval": 50 * time.Millisecond, "Timeout": time.Second, "Retries": 1}})
	for name, args := range map[string][]string{"run": {image, "probe", "lie"}, "init": {"--init", image, "probe", "lie"}} {
		c := h.background(args...)
		ok(t, eventuallyLogs(h, c, "child true"))
		time.Sleep(200 * time.Millisecond)
		if state := h.must("wherry", "inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", c); state != "running 0" {
			t.Errorf("%s: it is said to be %s", name, state)
		}
		gone(h, name, c)
	}
	c := h.background(image, "sleep", "1000")
	ended := make(chan string, 1)
	go func() { // ends when the container is removed
		out, _ := shared.engine.run("docker", "exec", c, "probe", "lie")
		ended <- out
	}()
	ok(t, eventually(20*time.Second, func() error {
		if out, _ := h.run("wherry", "inspect", "-f", "{{.State.Health.Status}}", c); strings.TrimSpace(out) != "unhealthy" {
			return fmt.Errorf("the health check that stops is %q", out)
		}
		return nil
	}))
	select {
	case out := <-ended:
		t.Errorf("an exec that has stopped is taken for ended: %q", out)
	default:
	}
	gone(h, "exec", c)
	<-ended
}

// gone removes a container and looks for what it may have left.
func gone(h *hostile, name, id string) {
	h.t.Helper()
	group := h.must("wherry", "inspect", "-f", "{{.State.Pid}}", id)
	b, err := os.ReadFile("/proc/" + group + "/cgroup")
	ok(h.t, err)
	h.must("wherry", "kill", id)
	h.must("wherry", "wait", id)
	for line := range strings.Lines(string(b)) {
		if f := strings.SplitN(strings.TrimSpace(line), ":", 3); f[0] == "0" {
			if procs, err := os.ReadFile("/sys/fs/cgroup/unified" + f[2] + "/cgroup.procs"); err == nil && len(procs) > 0 {
				h.t.Errorf("%s: left: %s", name, procs)
			}
		}
	}
}
