package cgroup

import (
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// v1Settings follow Documentation/admin-guide/cgroup-v1/.
func v1Settings(r *specs.LinuxResources) ([]setting, error) {
	out := v1CPU(r.CPU)
	if r.Pids != nil && r.Pids.Limit != nil {
		out = append(out, setting{controller: "pids", files: []string{"pids.max"}, value: pidsMax(r.Pids), what: "processes"})
	}
	out = append(out, hugepageSettings(r.HugepageLimits, ".limit_in_bytes")...)
	if n := r.Network; n != nil {
		if n.ClassID != nil {
			out = append(out, setting{controller: "net_cls", files: []string{"net_cls.classid"}, value: number(*n.ClassID), what: "the network class"})
		}
		for _, p := range n.Priorities {
			out = append(out, setting{controller: "net_prio", files: []string{"net_prio.ifpriomap"}, value: p.Name + " " + number(p.Priority), what: "the network priority"})
		}
	}
	rdma, err := rdmaSettings(r.Rdma)
	return append(append(out, rdma...), v1Block(r.BlockIO)...), err
}

func v1CPU(c *specs.LinuxCPU) (out []setting) {
	if c == nil {
		return nil
	}
	add := func(what, value, file string, again bool) {
		out = append(out, setting{controller: "cpu", files: []string{file}, value: value, what: what, again: again})
	}
	idle := func(value int64) {
		if c.Idle != nil && *c.Idle == value {
			add("idle scheduling", number(value), "cpu.idle", false)
		}
	}
	idle(0) // an idle group has no shares
	if c.Shares != nil {
		add("CPU shares", number(*c.Shares), "cpu.shares", false)
	}
	if c.Period != nil && *c.Period != 0 {
		add("the CPU period (µs)", number(*c.Period), "cpu.cfs_period_us", true)
	}
	if c.Burst != nil { // never above the quota, the old and the new one; none is what a kernel without it has
		add("the CPU burst (µs)", number(*c.Burst), "cpu.cfs_burst_us", true)
		out[len(out)-1].optional = *c.Burst == 0
	}
	if c.Quota != nil {
		add("the CPU quota (µs)", number(*c.Quota), "cpu.cfs_quota_us", false)
	}
	if c.RealtimePeriod != nil && *c.RealtimePeriod != 0 {
		add("the real-time period", number(*c.RealtimePeriod), "cpu.rt_period_us", true)
	}
	if c.RealtimeRuntime != nil && *c.RealtimeRuntime != 0 {
		add("the real-time runtime", number(*c.RealtimeRuntime), "cpu.rt_runtime_us", false)
	}
	idle(1)
	if c.Cpus != "" {
		out = append(out, setting{controller: "cpuset", files: []string{"cpuset.cpus"}, value: c.Cpus, what: "the processors"})
	}
	if c.Mems != "" {
		out = append(out, setting{controller: "cpuset", files: []string{"cpuset.mems"}, value: c.Mems, what: "the memory nodes"})
	}
	return out
}

func v1Block(b *specs.LinuxBlockIO) (out []setting) {
	if b == nil {
		return nil
	}
	add := func(what, value string, files ...string) {
		out = append(out, setting{controller: "blkio", files: files, value: value, what: what})
	}
	if b.Weight != nil && *b.Weight != 0 {
		add("the block I/O weight", number(*b.Weight), "blkio.weight", "blkio.bfq.weight")
	}
	if b.LeafWeight != nil && *b.LeafWeight != 0 {
		add("the block I/O weight against groups below", number(*b.LeafWeight), "blkio.leaf_weight")
	}
	for _, d := range b.WeightDevice {
		if d.Weight != nil {
			add("a device's block I/O weight", fmt.Sprintf("%d:%d %d", d.Major, d.Minor, *d.Weight), "blkio.weight_device", "blkio.bfq.weight_device")
		}
		if d.LeafWeight != nil {
			add("a device's block I/O weight against groups below", fmt.Sprintf("%d:%d %d", d.Major, d.Minor, *d.LeafWeight), "blkio.leaf_weight_device")
		}
	}
	for _, t := range throttles(b) {
		for _, d := range t.list {
			add("block I/O ("+t.v1+")", fmt.Sprintf("%d:%d %d", d.Major, d.Minor, d.Rate), "blkio.throttle."+t.v1+"_device")
		}
	}
	return out
}

// throttled is one of the four rates of devices, with its names in both versions.
type throttled struct {
	v1, v2 string
	list   []specs.LinuxThrottleDevice
}

func throttles(b *specs.LinuxBlockIO) []throttled {
	return []throttled{{"read_bps", "rbps", b.ThrottleReadBpsDevice}, {"write_bps", "wbps", b.ThrottleWriteBpsDevice},
		{"read_iops", "riops", b.ThrottleReadIOPSDevice}, {"write_iops", "wiops", b.ThrottleWriteIOPSDevice}}
}
