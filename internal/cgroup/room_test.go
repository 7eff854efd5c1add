package cgroup

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

const roomVariable = "WHERRY_CGROUP_ROOM"

// TestProcessesLeft: a process learns what its own group's limit leaves, and without a limit no more than what the kernel has numbers for.
func TestProcessesLeft(t *testing.T) {
	if os.Getenv(roomVariable) != "" {
		_, _ = os.Stdin.Read(make([]byte, 1)) // until it is in the group
		if left := ProcessesLeft(); left < 1 || left > 40 {
			t.Fatalf("%d processes are left of 40", left)
		}
		return
	}
	most, _ := readInt("/proc/sys/kernel/pid_max")
	if left := ProcessesLeft(); left < 1 || left > most {
		t.Errorf("%d processes are left without a limit", left)
	}
	g := group(t, &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(40))}})
	inside := exec.Command("/proc/self/exe", "-test.run", "^TestProcessesLeft$")
	inside.Env = append(os.Environ(), roomVariable+"=1", "GOMAXPROCS=2")
	gate, err := inside.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	inside.Stdout, inside.Stderr = &out, &out
	if err := inside.Start(); err != nil {
		t.Fatal(err)
	}
	if err := g.Add(inside.Process.Pid); err != nil {
		t.Fatal(err)
	}
	if _, err := gate.Write([]byte("g")); err != nil {
		t.Fatal(err)
	}
	if err := inside.Wait(); err != nil {
		t.Fatalf("%v: %s", err, out.String())
	}
}
