package vm

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestRuntime runs the tests of the packages that make containers on a host with control groups of version 2 only. What they skip on one
// with version 1 they do here.
func TestRuntime(t *testing.T) {
	t.Parallel()
	m := bootDebian(t, "/usr/lib/plain/init apparmor=0") // the tests are of a kernel without it
	for _, name := range []string{"cgroup", "sysprog", "seccomp", "systemd", "ociruntime", "oar"} {
		t.Run(name, func(t *testing.T) { m.t = t; m.tests(name, ".") })
	}
	// Of these what the kernel of other machines has not, or has in another way.
	for name, pattern := range map[string]string{"network": "^TestIpvlanAndVLAN$", "signals": "."} {
		t.Run(name, func(t *testing.T) { m.t = t; m.tests(name, pattern) })
	}
	m.t = t
	m.cut()
}

// elsewhere are tests that ask for what this machine does not have, and why.
func elsewhere() map[string]string {
	const mapped, clocks = "mapped ids on tmpfs need Linux 6.3", "a time namespace for a child that shares memory needs Linux 6.3"
	return map[string]string{
		"TestIDMap": mapped, "TestJoinedUserNamespace": mapped, "TestMountOptions": mapped,
		"TestTimeOffsets": clocks, "TestExecJoinsTheTimeNamespace": clocks,
		"TestMountNamespaces":         "a container in the host's mount namespace needs Linux 6.15",
		"TestMemoryBelowUseIsRefused": "its shell fills 40 MB within 20 s, in emulation hardly; TestV2Refuses asks the same of version 2",
		"TestScheduler":               "a deadline of 0.1 ms is missed in emulation",
		"TestATenthOfACPU":            "a second of emulation is too short to measure; TestControlGroupsVersion2 does it over three",
		"TestLiesAreNoEnd":            "its program, once traced, stops for good at a signal of Go's own scheduler, which a slow machine has more of",
		"TestBinaryIsOutOfReach":      "a hundred execs against a busy program take minutes in emulation",
		"TestRunsFromAReadOnlyBinary": "it looks into the tree of a hybrid host",
		"TestPosture":                 "its lists name the files of another kernel",
		"TestReleaseAgent":            "version 2 has no release_agent",
		"TestExecInAGroupInside":      "it is about version 1; TestExecInAGroupBelow is about both",
	}
}

// testPatience is for all tests of a package.
const testPatience = 10 * time.Minute

// tests runs tests of a package and reports each as one of the test that runs.
func (m *machine) tests(name, pattern string) {
	m.t.Helper()
	skip := "^(" + strings.Join(slices.Sorted(maps.Keys(elsewhere())), "|") + ")$"
	answers := m.start("export PATH=/t/bin:$PATH TMPDIR=/srv/" + name + "; mkdir -p $TMPDIR; cp -r /t/tests/" + name + " /srv/run-" + name +
		"; cd /srv/run-" + name + "; ./test -test.v -test.timeout 9m -test.run '" + pattern + "' -test.skip '" + skip + "'")
	var a answer
	select {
	case a = <-answers:
	case <-m.gone:
		m.t.Fatalf("the machine went away:\n%s", m.console())
	case <-time.After(testPatience):
		m.t.Fatalf("no end within %v", testPatience)
	}
	ran := results(a.Output)
	for _, test := range slices.Sorted(maps.Keys(ran)) {
		m.t.Run(test, func(t *testing.T) {
			switch r := ran[test]; r.word {
			case "FAIL":
				t.Error("\n" + r.text)
			case "SKIP":
				t.Skip(r.text)
			}
		})
	}
	if a.Code != 0 || len(ran) == 0 {
		m.t.Errorf("%d tests ran, exit code %d:\n%s", len(ran), a.Code, a.Output[max(0, len(a.Output)-2000):])
	}
}

type result struct{ word, text string }

// results reads what a test binary says with -test.v: "=== RUN TestX", its output, "--- PASS: TestX (0.01s)".
func results(out string) map[string]result {
	found := map[string]result{}
	var text strings.Builder
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, "=== RUN") && !strings.Contains(line, "/") {
			text.Reset()
			continue
		}
		text.WriteString(line)
		word, rest, ok := strings.Cut(strings.TrimPrefix(line, "--- "), ": ")
		if !ok || !strings.HasPrefix(line, "--- ") {
			continue
		}
		name, _, _ := strings.Cut(rest, " ")
		found[name] = result{word, text.String()}
	}
	return found
}
