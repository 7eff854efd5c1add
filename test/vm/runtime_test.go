package vm

import (
	"strings"
	"testing"
	"time"
)

// TestRuntime runs the tests of the packages that make containers on a host with control groups of version 2 only. What they skip on one
// with version 1 they do here.
func TestRuntime(t *testing.T) {
	m := bootDebian(t, "/usr/lib/plain/init")
	for _, name := range []string{"cgroup", "sysprog", "seccomp", "systemd", "ociruntime", "oar"} {
		t.Run(name, func(t *testing.T) { m.t = t; m.tests(name) })
	}
	m.t = t
	m.off()
}

// testPatience is for all tests of a package.
const testPatience = 6 * time.Minute

// tests runs a package's tests and reports each as one of the test that runs.
func (m *machine) tests(name string) {
	m.t.Helper()
	answers := m.start("export PATH=/t/bin:$PATH TMPDIR=/var/tmp/" + name + "; mkdir -p $TMPDIR; cp -r /t/tests/" + name + " /var/tmp/run-" + name +
		"; cd /var/tmp/run-" + name + "; ./test -test.v -test.timeout 5m")
	var a answer
	select {
	case a = <-answers:
	case <-m.gone:
		m.t.Fatalf("the machine went away:\n%s", m.console())
	case <-time.After(testPatience):
		m.t.Fatalf("no end within %v", testPatience)
	}
	ran := 0
	for test, r := range results(a.Output) {
		m.t.Run(test, func(t *testing.T) {
			switch r.word {
			case "FAIL":
				t.Error("\n" + r.text)
			case "SKIP":
				t.Skip(r.text)
			}
		})
		ran++
	}
	if a.Code != 0 || ran == 0 {
		m.t.Errorf("%d tests ran, exit code %d:\n%s", ran, a.Code, tail(a.Output))
	}
}

func tail(s string) string { return s[max(0, len(s)-3000):] }

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
