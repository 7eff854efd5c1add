package cgroup

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// TestKillOneByOne: on hosts that cannot kill a group as one, what forks faster than it is listed is caught all the same, by standing still, and so
// is what stood still before and what is in a group below.
func TestKillOneByOne(t *testing.T) {
	probe := filepath.Join(t.TempDir(), "probe")
	build := exec.Command("go", "build", "-o", probe, "wherry.dev/wherry/internal/ociruntime/testdata/probe")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build probe: %v: %s", err, out)
	}
	for _, mount := range []string{"freezer", unified} {
		t.Run("frozen by "+mount, func(t *testing.T) {
			g := group(t, &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(64))}})
			if mount == "freezer" {
				if _, err := os.Stat("/sys/fs/cgroup/freezer/freezer.state"); err != nil && g.pure() {
					return // a host of version 2 alone is the other case
				}
				old, err := openBelow(map[string]string{"freezer": "/sys/fs/cgroup/freezer"}, g.path)
				if err != nil {
					t.Fatal(err)
				}
				if err := old.make(nil); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() {
					if err := errors.Join(old.Delete(), os.Remove(filepath.Dir(old.dirs["freezer"]))); err != nil {
						t.Error(err)
					}
				})
				g.dirs["freezer"] = old.dirs["freezer"]
			}
			alone := &Group{path: g.path, dirs: map[string]string{mount: g.dirs[mount]}}
			cmd := start(t, g, "exec "+probe+" runner one-by-one-"+mount)
			for end := time.Now().Add(20 * time.Second); output(cmd) != "gone off\n"; time.Sleep(time.Millisecond) {
				if time.Now().After(end) {
					t.Fatalf("it does not go off: %q", output(cmd))
				}
			}
			below := filepath.Join(g.dirs[mount], "below")
			if err := os.Mkdir(below, 0o755); err != nil {
				t.Fatal(err)
			}
			sleeper := exec.Command("sleep", "3600")
			if err := sleeper.Start(); err != nil {
				t.Fatal(err)
			}
			if err := writeFile(filepath.Join(below, "cgroup.procs"), fmt.Sprint(sleeper.Process.Pid)); err != nil {
				t.Fatal(err)
			}
			freeze(alone, true)
			if err := killOneByOne(alone); err != nil {
				t.Fatal(err)
			}
			_, _ = cmd.Process.Wait()
			_, _ = sleeper.Process.Wait()
			if err := alone.WaitEmpty(t.Context()); err != nil {
				t.Fatal(err)
			}
			files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
			for _, f := range files {
				if b, _ := os.ReadFile(f); strings.Contains(string(b), "one-by-one-"+mount) {
					t.Errorf("%s is left", f)
				}
			}
			if err := os.Remove(below); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestSignalReachesMembersOnly, all of them, also those in a group below.
func TestSignalReachesMembersOnly(t *testing.T) {
	g := group(t, nil)
	var members []*exec.Cmd
	for range 3 {
		members = append(members, start(t, g, "exec sleep 3600"))
	}
	outside := exec.Command("sleep", "3600")
	if err := outside.Start(); err != nil {
		t.Fatal(err)
	}
	n, err := Signal(g, unix.SIGUSR1)
	if err != nil || n != 3 {
		t.Fatalf("%d %v", n, err)
	}
	for _, m := range members {
		if err := m.Wait(); err == nil || m.ProcessState.String() != "signal: user defined signal 1" {
			t.Errorf("a member: %v", m.ProcessState)
		}
	}
	// Numbers that are no members' any more, or were never.
	if err := signalMembers(g.anyDir(), []int{outside.Process.Pid, 1 << 21}, unix.SIGKILL); err != nil {
		t.Error(err)
	}
	if err := outside.Process.Signal(unix.Signal(0)); err != nil {
		t.Errorf("a process outside: %v", err)
	}
	_ = outside.Process.Kill()
	_, _ = outside.Process.Wait()
	if n, err := Signal(g, unix.SIGKILL); n != 0 || err != nil {
		t.Errorf("an empty group: %d %v", n, err)
	}
}
