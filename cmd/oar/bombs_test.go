package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// TestBombsEnd: what forks as fast as it can, alone or by all of its children, with and without a pid namespace, is dead when delete --force
// or kill --all has returned.
func TestBombsEnd(t *testing.T) {
	limit := int64(60) // the machine survives
	for _, row := range []struct {
		bomb, end string
		host      bool // no pid namespace of its own
	}{{"flood", "delete", false}, {"flood", "kill", true}, {"runner", "kill", false}, {"runner", "delete", true}} {
		word := "oar-bomb-" + row.bomb + "-" + row.end
		t.Run(word, func(t *testing.T) {
			h := newHost(t, func(s *specs.Spec) {
				s.Linux.Resources = &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &limit}}
				if row.host {
					var left []specs.LinuxNamespace
					for _, n := range s.Linux.Namespaces {
						if n.Type != specs.PIDNamespace {
							left = append(left, n)
						}
					}
					s.Linux.Namespaces = left
				}
			}, "probe", row.bomb, word)
			living := func() (n int) {
				files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
				for _, f := range files {
					if b, _ := os.ReadFile(f); strings.HasPrefix(string(b), "probe\x00") && strings.Contains(string(b), word) {
						n++
					}
				}
				return n
			}
			h.create()
			h.oar("start", "c")
			until(t, "it has gone off", func() bool { return living() > 30 || h.output() == "gone off\n" })
			if row.end == "kill" {
				h.oar("kill", "--all", "c", "KILL")
				h.await(specs.StateStopped)
				h.oar("delete", "c")
			} else {
				h.oar("delete", "--force", "c")
			}
			if n := living(); n != 0 {
				t.Errorf("%d processes are left", n)
			}
		})
	}
}
