package cgroup

import (
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// ProcessesLeft is how many more processes and threads the limits of this process's own groups permit, as far as they can be seen from here, and
// the kernel's at most.
func ProcessesLeft() int {
	left := math.MaxInt
	if n, ok := readInt("/proc/sys/kernel/pid_max"); ok {
		left = n
	}
	mounts, err := hierarchies()
	own, readErr := os.ReadFile("/proc/self/cgroup")
	if err != nil || readErr != nil {
		return left
	}
	for line := range strings.Lines(string(own)) {
		_, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		controllers, path, ok := strings.Cut(rest, ":")
		name := unified
		if controllers != "" {
			name = "pids"
		}
		mount, mounted := mounts[name]
		if !ok || !mounted || controllers != "" && !strings.Contains(","+controllers+",", ",pids,") {
			continue
		}
		for dir := filepath.Join(mount, path); strings.HasPrefix(dir, mount); dir = filepath.Dir(dir) {
			limit, limited := readInt(filepath.Join(dir, "pids.max"))
			used, counted := readInt(filepath.Join(dir, "pids.current"))
			if limited && counted {
				left = min(left, max(0, limit-used))
			}
		}
	}
	return left
}

// readInt reads a file with a number; "max" is none.
func readInt(file string) (int, bool) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, false
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	return n, err == nil
}
