package ociruntime

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

const clocksScript = "readlink /proc/self/ns/time; cut -d. -f1 /proc/uptime; cat /proc/self/timens_offsets"

// uptime is the second line of the script's output.
func uptime(t *testing.T, out string) int {
	t.Helper()
	lines := strings.Split(out, "\n")
	if len(lines) < 2 {
		t.Fatalf("%q", out)
	}
	n, err := strconv.Atoi(lines[1])
	must(t, err)
	return n
}

// TestTimeOffsets reach the first process; further ones, by the creator and by others, also before the start, are in the same namespace,
// and so is a container that names it by path.
func TestTimeOffsets(t *testing.T) {
	for _, host := range []bool{false, true} {
		b := newBox(t)
		if host {
			b.hostUsers()
		}
		b.spec.Linux.Namespaces = append(b.spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace})
		b.spec.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: 7000000, Nanosecs: 5}, "monotonic": {Secs: 9000000}}
		b.spec.Process.Args = []string{"sh", "-c", clocksScript}
		out, _, err := b.run()
		must(t, err)
		if uptime(t, out) < 7000000 || !strings.Contains(out, "9000000") {
			t.Errorf("in the first process: %q", out)
		}
		b.spec.Process.Args = []string{"sleep", "1000"}
		c, err := b.create(nil)
		must(t, err)
		mine, err := os.Readlink("/proc/self/ns/cgroup")
		must(t, err)
		for theirs := mine; theirs == mine; time.Sleep(time.Millisecond) { // the last namespace that it makes
			theirs, err = os.Readlink("/proc/" + strconv.Itoa(c.Pid()) + "/ns/cgroup")
			must(t, err)
		}
		ask := &specs.Process{Args: []string{"sh", "-c", clocksScript}}
		created, _, err := b.exec(c, ask)
		must(t, err)
		must(t, c.Start())
		own, err := os.Readlink("/proc/" + strconv.Itoa(c.Pid()) + "/ns/time")
		must(t, err)
		again, err := openAgain(t, b, c)
		must(t, err)
		started, _, err := b.exec(again, ask)
		must(t, err)
		again.Close()
		third := newBox(t, "sh", "-c", clocksScript)
		if host {
			third.hostUsers()
		}
		third.spec.Linux.Namespaces = append(third.spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace, Path: "/proc/" + strconv.Itoa(c.Pid()) + "/ns/time"})
		byPath, _, err := third.run()
		must(t, err)
		for _, got := range []string{created, started, byPath} {
			if uptime(t, got) < 7000000 || !strings.HasPrefix(got, own+"\n") {
				t.Errorf("a further process: %q, the first is in %s", got, own)
			}
		}
		must(t, c.Cgroup().Kill())
		_, err = Reap(c.Pidfd())
		must(t, err)
	}
}

// TestTimeOffsetsThatCannotBe are refused, by the kernel too.
func TestTimeOffsetsThatCannotBe(t *testing.T) {
	for want, change := range map[string]func(*specs.Linux){
		"a new time namespace": func(l *specs.Linux) { l.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: 1}} },
		"realtime": func(l *specs.Linux) {
			l.Namespaces = append(l.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace})
			l.TimeOffsets = map[string]specs.LinuxTimeOffset{"realtime": {Secs: 1}}
		},
		"set the clocks to boottime -1000000000000 0": func(l *specs.Linux) {
			l.Namespaces = append(l.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace})
			l.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: -1000000000000}}
		},
	} {
		b := newBox(t, "true")
		change(b.spec.Linux)
		if _, _, err := b.run(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}
