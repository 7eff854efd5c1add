package main

import (
	"bufio"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"wherry.dev/wherry/internal/cgroup"
)

// limited is a container with a control group of its own that may hold 24 MB.
func limited(t *testing.T, args ...string) (*host, *cgroup.Group) {
	t.Helper()
	h := newHost(t, func(s *specs.Spec) {
		limit := int64(24 << 20)
		s.Linux.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit, Swap: &limit}}
	}, args...)
	h.create()
	h.oar("start", "c")
	r := &store{root: h.root}
	c, err := r.load("c")
	must(t, err)
	g, err := c.openGroup()
	must(t, err)
	return h, g
}

// TestExecInAGroupBelow puts a process where its caller says, and nowhere else.
func TestExecInAGroupBelow(t *testing.T) {
	h, g := limited(t, "sleep", "1000")
	for _, dir := range g.Dirs() {
		if err := os.Mkdir(filepath.Join(dir, "inner"), 0o755); err != nil && !os.IsExist(err) { // some controllers share one
			t.Fatal(err)
		}
	}
	ways := map[string]string{}
	for line := range strings.Lines(h.oar("exec", "--cgroup", "/inner", "c", "cat", "/proc/self/cgroup")) {
		_, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		controllers, path, _ := strings.Cut(rest, ":")
		for _, name := range strings.Split(controllers, ",") {
			ways[name] = path
		}
	}
	for name := range g.Dirs() {
		if ways[name] != g.Path()+"/inner" {
			t.Errorf("%q: the process is in %s", name, ways[name])
		}
	}
	h.refuse("adding pid to cgroup nowhere inside control group", "exec", "--cgroup", "nowhere", "c", "true")
	h.refuse("bad sub cgroup path", "exec", "--cgroup", "..", "c", "true")
	h.refuse("unknown controller", "exec", "--cgroup", "nonsense:/", "c", "true")
	h.oar("delete", "--force", "c") // with the group that was made inside
	for _, dir := range g.Dirs() {
		if _, err := os.Stat(dir); !os.IsNotExist(err) {
			t.Errorf("%s is left: %v", dir, err)
		}
	}
}

// TestEventsTellOfKills: with version 2 at once, whatever the interval.
func TestEventsTellOfKills(t *testing.T) {
	h, g := limited(t, "sleep", "1000")
	interval := "1s"
	if cgroup.Unified(g) {
		interval = "1h"
	}
	events := oarAt(t, h.root, "events", "--interval", interval, "c")
	out, err := events.StdoutPipe()
	must(t, err)
	must(t, events.Start())
	lines := make(chan string)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			if strings.Contains(s.Text(), "oom") {
				lines <- s.Text()
			}
		}
	}()
	told := ""
	for i := 0; told == "" && i < 40; i++ { // kills from before the other command looked are none for it
		if out, err := h.try("exec", "c", "busybox", "tail", "/dev/zero"); exitCodeOf(err) != 128+9 {
			t.Fatalf("a process that wants more than its container may have: %v, %q", err, out)
		}
		select {
		case told = <-lines:
		case <-time.After(250 * time.Millisecond):
		}
	}
	if want := `{"type":"oom","id":"c"}`; told != want {
		t.Errorf("%q, want %q", told, want)
	}
	h.oar("delete", "--force", "c")
	for range lines {
	}
	must(t, events.Wait())
}
