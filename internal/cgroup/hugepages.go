package cgroup

import (
	"path/filepath"
	"strings"
)

// HugePages are a group's counters of huge pages of one size.
type HugePages struct {
	Usage, Max uint64 // bytes; Max is 0 where the kernel does not count it (version 2)
	Failures   uint64 // how often the limit was met
}

// HugePagesOf reads a group's counters by size ("2MB"); there are none where the host does not have the controller.
func HugePagesOf(g *Group) map[string]HugePages {
	dir, usage := g.dirs["hugetlb"], ".usage_in_bytes"
	if g.pure() {
		dir, usage = g.dirs[unified], ".current"
	}
	if dir == "" {
		return nil
	}
	files, _ := filepath.Glob(dir + "/hugetlb.*" + usage)
	var out map[string]HugePages
	for _, file := range files {
		base := strings.TrimSuffix(file, usage)
		size := strings.TrimPrefix(filepath.Base(base), "hugetlb.")
		if strings.HasSuffix(size, ".rsvd") { // what is reserved is counted apart
			continue
		}
		if out == nil {
			out = map[string]HugePages{}
		}
		out[size] = HugePages{Usage: readNumber(file), Max: readNumber(base + ".max_usage_in_bytes"),
			Failures: readNumber(base+".failcnt") + readPairs(base + ".events")["max"]}
	}
	return out
}
