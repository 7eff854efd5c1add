package systemd

import (
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"wherry.dev/wherry/internal/cgroup"
)

// Unlimited is as many processes as the machine can have. A scope that says nothing gets 15 % of them (DefaultTasksMax).
func Unlimited() Property { return Property{"TasksMax", none} }

// none is how systemd says that there is no limit.
const none = ^uint64(0)

// Limits are a container's limits as a unit's properties, as far as systemd has a word for them. The files of the group are written
// besides, by who owns the group: these properties have systemd write the same when it writes them again (daemon-reload).
func Limits(r *specs.LinuxResources) []Property {
	if r == nil {
		return nil
	}
	var list limits
	list.memory(r.Memory)
	list.cpu(r.CPU)
	if r.Pids != nil && r.Pids.Limit != nil {
		list.pids(*r.Pids.Limit)
	}
	if r.BlockIO != nil && r.BlockIO.Weight != nil && *r.BlockIO.Weight != 0 {
		list.add("IOWeight", cgroup.IOWeight(*r.BlockIO.Weight))
	}
	list.unified(r.Unified)
	return list
}

type limits []Property

func (l *limits) add(name string, value any) { *l = append(*l, Property{name, value}) }

// count adds a limit; 0 or less is none.
func (l *limits) count(name string, n int64) {
	if n <= 0 {
		l.add(name, none)
	} else {
		l.add(name, uint64(n))
	}
}

// pids: systemd knows no limit of none.
func (l *limits) pids(n int64) {
	if n == 0 {
		n = 1
	}
	l.count("TasksMax", n)
}

func (l *limits) memory(m *specs.LinuxMemory) {
	if m == nil {
		return
	}
	if m.Limit != nil && *m.Limit != 0 {
		l.count("MemoryMax", *m.Limit)
	}
	if m.Reservation != nil && *m.Reservation > 0 {
		l.add("MemoryLow", uint64(*m.Reservation))
	}
	if m.Swap == nil || *m.Swap == 0 {
		return
	}
	switch { // of memory and swap together, without the memory
	case *m.Swap < 0:
		l.add("MemorySwapMax", none)
	case m.Limit != nil && *m.Limit > 0 && *m.Swap >= *m.Limit:
		l.add("MemorySwapMax", uint64(*m.Swap-*m.Limit))
	}
}

func (l *limits) cpu(c *specs.LinuxCPU) {
	if c == nil {
		return
	}
	if c.Shares != nil && *c.Shares != 0 {
		l.add("CPUWeight", cgroup.Weight(*c.Shares))
	}
	period := uint64(100000)
	if c.Period != nil && *c.Period != 0 {
		period = *c.Period
		l.add("CPUQuotaPeriodUSec", period)
	}
	if c.Quota != nil && *c.Quota != 0 {
		l.quota(*c.Quota, period)
	}
	if mask, ok := bits(c.Cpus); ok {
		l.add("AllowedCPUs", mask)
	}
	if mask, ok := bits(c.Mems); ok {
		l.add("AllowedMemoryNodes", mask)
	}
}

// quota per second of time, in steps of a hundredth of a processor, which systemd rounds to: up, so that a quota never becomes none.
func (l *limits) quota(quota int64, period uint64) {
	if quota < 0 {
		l.add("CPUQuotaPerSecUSec", none)
		return
	}
	const second, step = 1000000, 10000
	n := uint64(quota) * second / period
	l.add("CPUQuotaPerSecUSec", (n+step-1)/step*step)
}

// unified adds files of the group that systemd has properties for.
func (l *limits) unified(files map[string]string) {
	for file, property := range map[string]string{"memory.min": "MemoryMin", "memory.low": "MemoryLow", "memory.high": "MemoryHigh", "memory.max": "MemoryMax",
		"memory.swap.max": "MemorySwapMax", "pids.max": "TasksMax", "cpu.weight": "CPUWeight"} {
		text, ok := files[file]
		if !ok {
			continue
		}
		if text == "max" {
			l.add(property, none)
		} else if n, err := strconv.ParseUint(text, 10, 64); err == nil {
			l.add(property, n)
		}
	}
	if max, ok := files["cpu.max"]; ok {
		l.cpuMax(strings.Fields(max))
	}
	for file, property := range map[string]string{"cpuset.cpus": "AllowedCPUs", "cpuset.mems": "AllowedMemoryNodes"} {
		if mask, ok := bits(files[file]); ok {
			l.add(property, mask)
		}
	}
}

// cpuMax is "QUOTA [PERIOD]".
func (l *limits) cpuMax(fields []string) {
	if len(fields) == 0 {
		return
	}
	period := uint64(100000)
	if len(fields) > 1 {
		n, err := strconv.ParseUint(fields[1], 10, 64)
		if err != nil || n == 0 {
			return
		}
		period = n
		l.add("CPUQuotaPeriodUSec", n)
	}
	if fields[0] == "max" {
		l.quota(-1, period)
	} else if n, err := strconv.ParseInt(fields[0], 10, 64); err == nil && n > 0 {
		l.quota(n, period)
	}
}

// maxBit bounds numbers of processors and memory nodes; the kernel has fewer.
const maxBit = 1 << 14

// bits writes "0-2,7" as a mask, the lowest byte first.
func bits(list string) (mask []byte, ok bool) {
	for _, part := range strings.Split(strings.TrimSpace(list), ",") {
		first, last, both := strings.Cut(part, "-")
		a, err1 := strconv.ParseUint(first, 10, 32)
		b, err2 := a, error(nil)
		if both {
			b, err2 = strconv.ParseUint(last, 10, 32)
		}
		if err1 != nil || err2 != nil || a > b || b >= maxBit {
			return nil, false
		}
		for n := a; n <= b; n++ {
			for uint64(len(mask)) <= n/8 {
				mask = append(mask, 0)
			}
			mask[n/8] |= 1 << (n % 8)
		}
	}
	return mask, true
}
