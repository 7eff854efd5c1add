package cgroup

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Warm makes the next move of a process into a v1 group cheap, for some 10 to 30 ms: it moves this process to where it is.
//
// Moves take a lock of the kernel (cgroup_threadgroup_rwsem) whose readers are everybody's forks; the first writer after a while waits
// for an RCU grace period, 8 to 20 ms here, and later ones do not. Whoever is about to start a container has this wait pass while the
// rest is prepared. On pure v2 hosts clone3 puts processes into groups without that lock, and Warm does nothing.
func Warm() {
	mounts, err := hierarchies()
	if err != nil || len(mounts) == 1 && mounts[unified] != "" {
		return
	}
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return
	}
	for line := range strings.Lines(string(own)) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) != 3 {
			continue
		}
		if mount, ok := mounts[fields[1]]; ok && fields[1] != unified {
			_ = writeFile(filepath.Join(mount, fields[2], "cgroup.procs"), strconv.Itoa(os.Getpid()))
			return
		}
	}
}
