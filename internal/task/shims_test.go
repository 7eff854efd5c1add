package task

import (
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// spareOf waits for the spare and returns its pid.
func spareOf(t *testing.T, s *Shims) int {
	t.Helper()
	pid := 0
	until(t, "there is a spare", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.spare != nil {
			pid = waiting(t)
		}
		return pid != 0
	})
	return pid
}

// waiting is the shim of this process that has no container.
func waiting(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		b, _ := os.ReadFile("/proc/" + e.Name() + "/cmdline")
		pid, _ := strconv.Atoi(e.Name())
		if string(b) == "oar\x00shim\x00" && parent(t, pid) == os.Getpid() {
			comm, _ := os.ReadFile("/proc/" + e.Name() + "/comm")
			if string(comm) == "oar spare\n" {
				return pid
			}
		}
	}
	return 0
}

func gone(pid int) bool { return unix.Kill(pid, 0) == unix.ESRCH }

func TestSpareShim(t *testing.T) {
	path := oar(t)
	s := OpenShims(path)
	defer s.Close()
	first := spareOf(t, s)
	o := options(t, path, "spare", "sleep", "1000")
	o.Shims, o.Oar = s, ""
	tk := run(t, o)
	if got := parent(t, tk.Pid()); got != first {
		t.Errorf("the container's shim is %d, not the spare %d", got, first)
	}
	second := spareOf(t, s)
	if second == first {
		t.Fatal("no new spare")
	}
	// One that somebody has killed is made up for.
	if err := syscall.Kill(second, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	until(t, "the spare is dead", func() bool { return gone(second) })
	o = options(t, path, "spare-2", "sh", "-c", "exit 3")
	o.Shims, o.Oar = s, ""
	if exit, err := run(t, o).Wait(t.Context()); err != nil || exit.Code != 3 {
		t.Fatalf("%v %+v", err, exit)
	}
	third := spareOf(t, s)
	s.Close()
	until(t, "the spare has ended with its owner", func() bool { return gone(third) })
	if gone(first) {
		t.Error("a shim with a container has ended as well")
	}
}

// TestSpareOfAnOldBinary: after an upgrade containers get the new binary.
func TestSpareOfAnOldBinary(t *testing.T) {
	dir := t.TempDir()
	binary, err := os.ReadFile(oar(t))
	if err != nil {
		t.Fatal(err)
	}
	replace := func() {
		if err := os.WriteFile(dir+"/new", binary, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(dir+"/new", dir+"/oar"); err != nil {
			t.Fatal(err)
		}
	}
	replace()
	s := OpenShims(dir + "/oar")
	defer s.Close()
	old := spareOf(t, s)
	replace()
	o := options(t, dir+"/oar", "upgraded", "sleep", "1000")
	o.Shims = s
	tk := run(t, o)
	if got := parent(t, tk.Pid()); got == old {
		t.Error("the container's shim is of the old binary")
	}
	until(t, "the old spare is gone", func() bool { return gone(old) })
}

// TestBadBinary: what cannot be started is named.
func TestBadBinary(t *testing.T) {
	s := OpenShims("/no/such/oar")
	defer s.Close()
	o := options(t, oar(t), "none", "true")
	o.Shims = s
	if _, err := Create(t.Context(), o); err == nil || !strings.Contains(err.Error(), "/no/such/oar") {
		t.Errorf("%v", err)
	}
	if _, err := os.Stat(o.Dir); err == nil {
		t.Error("the task's folder is left")
	}
}
