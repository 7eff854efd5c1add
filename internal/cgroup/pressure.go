package cgroup

import "path/filepath"

// Pressure is how near a group came to its limits.
type Pressure struct {
	MemoryLimit, MemoryPeak uint64 // bytes; a limit of 0 is none
	PidsLimit, PidsRefused  uint64 // processes, and how often one more was refused
}

// unlimited is what version 1 shows for no limit, less the rounding to pages of any size.
const unlimited = 1<<63 - 1<<20

// Pressure reads it; what the host does not count is 0. It works until the group is removed.
func (g *Group) Pressure() (p Pressure) {
	memory, pids := g.dirs["memory"], g.dirs["pids"]
	limit, peak := "memory.limit_in_bytes", "memory.max_usage_in_bytes"
	if g.pure() {
		memory, pids, limit, peak = g.dirs[unified], g.dirs[unified], "memory.max", "memory.peak"
	}
	p.MemoryLimit, p.MemoryPeak = readNumber(filepath.Join(memory, limit)), readNumber(filepath.Join(memory, peak))
	if p.MemoryLimit >= unlimited {
		p.MemoryLimit = 0
	}
	p.PidsLimit, p.PidsRefused = readNumber(filepath.Join(pids, "pids.max")), readPairs(filepath.Join(pids, "pids.events"))["max"]
	return p
}
