package spec

import (
	"strconv"

	"github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// DefaultPids is the limit of processes where none is asked for.
const DefaultPids = 2048

const cpuPeriod = 100_000 // µs

func deviceNumber(s string) (int64, error) {
	if s == "*" {
		return -1, nil
	}
	n, err := strconv.ParseUint(s, 10, 31)
	return int64(n), err
}

// Resources turns limits into those of the runtime specification. Swap is that of memory and swap together, twice the memory where it is
// not said. A processes limit of 0 or less means none; an unset one DefaultPids.
func Resources(r *container.Resources, block *specs.LinuxBlockIO) *specs.LinuxResources {
	out := &specs.LinuxResources{Memory: memory(r), CPU: cpu(r), BlockIO: block}
	pids := int64(DefaultPids)
	if r.PidsLimit != nil {
		if pids = *r.PidsLimit; pids <= 0 {
			pids = -1
		}
	}
	out.Pids = &specs.LinuxPids{Limit: &pids}
	return out
}

// Changes are the limits of an update that are given; the others stay as they are.
func Changes(r *container.Resources, block *specs.LinuxBlockIO) *specs.LinuxResources {
	out := Resources(r, block)
	if r.PidsLimit == nil {
		out.Pids = nil
	}
	return out
}

func memory(r *container.Resources) *specs.LinuxMemory {
	m := &specs.LinuxMemory{}
	if r.Memory > 0 {
		limit, swap := r.Memory, r.Memory*2
		m.Limit, m.Swap = &limit, &swap
	}
	if r.MemorySwap != 0 {
		swap := r.MemorySwap
		m.Swap = &swap
	}
	if r.MemoryReservation > 0 {
		reservation := r.MemoryReservation
		m.Reservation = &reservation
	}
	if r.MemorySwappiness != nil && *r.MemorySwappiness >= 0 {
		swappiness := uint64(*r.MemorySwappiness)
		m.Swappiness = &swappiness
	}
	if r.OomKillDisable != nil && *r.OomKillDisable {
		m.DisableOOMKiller = r.OomKillDisable
	}
	if *m == (specs.LinuxMemory{}) {
		return nil
	}
	return m
}

func cpu(r *container.Resources) *specs.LinuxCPU {
	c := &specs.LinuxCPU{Cpus: r.CpusetCpus, Mems: r.CpusetMems}
	if r.CPUShares > 0 {
		shares := uint64(r.CPUShares)
		c.Shares = &shares
	}
	if r.NanoCPUs > 0 {
		quota, period := r.NanoCPUs*cpuPeriod/1e9, uint64(cpuPeriod)
		c.Quota, c.Period = &quota, &period
	}
	if r.CPUPeriod > 0 {
		period := uint64(r.CPUPeriod)
		c.Period = &period
	}
	if r.CPUQuota != 0 {
		quota := r.CPUQuota
		c.Quota = &quota
	}
	if r.CPURealtimePeriod > 0 {
		period := uint64(r.CPURealtimePeriod)
		c.RealtimePeriod = &period
	}
	if r.CPURealtimeRuntime != 0 {
		runtime := r.CPURealtimeRuntime
		c.RealtimeRuntime = &runtime
	}
	if *c == (specs.LinuxCPU{}) {
		return nil
	}
	return c
}
