package cgroup

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// enableControllers hands all controllers down to a group, from the topmost of those above it on, or from the one that a service manager
// has delegated: what is above that is the service manager's.
func enableControllers(dir string, depth int) error {
	var chain []string
	for parent := filepath.Dir(dir); depth > 0; parent, depth = filepath.Dir(parent), depth-1 {
		chain = append(chain, parent)
		if delegated(parent) {
			break
		}
	}
	for i := len(chain) - 1; i >= 0; i-- {
		b, err := os.ReadFile(filepath.Join(chain[i], "cgroup.controllers"))
		if err != nil {
			return err
		}
		available := strings.Fields(string(b))
		if i == 0 && !slices.Contains(available, "memory") {
			if err := joinThreaded(dir); err != nil {
				return err
			}
		}
		enabled, err := os.ReadFile(filepath.Join(chain[i], "cgroup.subtree_control"))
		if err != nil {
			return err
		}
		on := strings.Fields(string(enabled))
		for _, c := range available {
			if !slices.Contains(on, c) {
				// One that cannot be enabled (EBUSY by processes in the parent, threaded …) is missed only when a limit wants it.
				_ = writeFile(filepath.Join(chain[i], "cgroup.subtree_control"), "+"+c)
			}
		}
	}
	return nil
}

// delegated says that a service manager has marked a group as another's (systemd.exec(5), Delegate=).
func delegated(dir string) bool {
	var mark [8]byte
	n, err := unix.Getxattr(dir, "trusted.delegate", mark[:])
	return err == nil && string(mark[:n]) == "1"
}

// joinThreaded makes a group usable whose parent is one of threads: such a group takes processes only as one of threads itself, and has no
// controllers but those of the processor and of pids (cgroup-v2.rst, "Threads").
func joinThreaded(dir string) error {
	if readText(filepath.Join(dir, "cgroup.type")) != "domain invalid" {
		return nil
	}
	return writeFile(filepath.Join(dir, "cgroup.type"), "threaded")
}
