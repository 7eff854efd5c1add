package main

import (
	"os"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// TestExecJoinsTheTimeNamespace, before the start too, when its first process has not entered it yet.
func TestExecJoinsTheTimeNamespace(t *testing.T) {
	root := t.TempDir()
	create := oarAt(t, root, "create", "-b", bundle(t, func(s *specs.Spec) {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace})
		s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: 4000000000}}
		s.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux32}
	}, "sleep", "1000"), "x")
	create.Stderr = os.Stderr
	must(t, create.Run())
	defer func() { _ = oarAt(t, root, "delete", "--force", "x").Run() }()
	for _, state := range []string{"created", "running"} {
		out, err := oarAt(t, root, "exec", "x", "cat", "/proc/uptime", "/proc/self/personality").CombinedOutput()
		if err != nil || !strings.HasPrefix(string(out), "400") || !strings.HasSuffix(string(out), "\n00000008\n") {
			t.Errorf("%s: %v, %q", state, err, out)
		}
		if state == "created" {
			must(t, oarAt(t, root, "start", "x").Run())
		}
	}
}
