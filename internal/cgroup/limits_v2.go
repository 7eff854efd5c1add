package cgroup

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// v2Settings follow Documentation/admin-guide/cgroup-v2.rst; what is v1's only is converted, or refused.
func v2Settings(g *Group, r *specs.LinuxResources) ([]setting, error) {
	if r.Network != nil && (r.Network.ClassID != nil || len(r.Network.Priorities) > 0) {
		return nil, noConversion("network classes and priorities", "cgroup v2 has none, but firewall rules know groups by their path")
	}
	out, err := v2CPU(g, r.CPU)
	if err != nil {
		return nil, err
	}
	if r.Pids != nil && r.Pids.Limit != nil {
		out = append(out, setting{files: []string{"pids.max"}, value: pidsMax(r.Pids), what: "processes"})
	}
	out = append(out, hugepageSettings(r.HugepageLimits, ".max")...)
	rdma, err := rdmaSettings(r.Rdma)
	if err != nil {
		return nil, err
	}
	block, err := v2Block(g, r.BlockIO)
	if err != nil {
		return nil, err
	}
	return append(append(out, rdma...), block...), err
}

func v2CPU(g *Group, c *specs.LinuxCPU) (out []setting, err error) {
	if c == nil {
		return nil, nil
	}
	if c.RealtimePeriod != nil && *c.RealtimePeriod != 0 || c.RealtimeRuntime != nil && *c.RealtimeRuntime != 0 {
		return nil, noConversion("a budget of real-time processes", "cgroup v2 has none")
	}
	add := func(what, value, file string, again bool) {
		out = append(out, setting{files: []string{file}, value: value, what: what, again: again})
	}
	idle := func(value int64) {
		if c.Idle != nil && *c.Idle == value {
			add("idle scheduling", number(value), "cpu.idle", false)
		}
	}
	idle(0) // an idle group has no weight
	if c.Shares != nil && *c.Shares != 0 {
		add("the CPU weight", number(Weight(*c.Shares)), "cpu.weight", false)
	}
	if c.Burst != nil { // never above the quota, the old and the new one; none is what a kernel without it has
		add("the CPU burst (µs)", number(*c.Burst), "cpu.max.burst", true)
		out[len(out)-1].optional = *c.Burst == 0
	}
	if c.Quota != nil || c.Period != nil && *c.Period != 0 {
		add("the CPU quota and period (µs)", quotaAndPeriod(g, c), "cpu.max", false)
	}
	idle(1)
	if c.Cpus != "" {
		add("the processors", c.Cpus, "cpuset.cpus", false)
	}
	if c.Mems != "" {
		add("the memory nodes", c.Mems, "cpuset.mems", false)
	}
	return out, nil
}

// quotaAndPeriod is what cpu.max takes: what the one says nothing about stays.
func quotaAndPeriod(g *Group, c *specs.LinuxCPU) string {
	whole := *c
	WholeQuota(g, &whole)
	quota := "max"
	if whole.Quota != nil && *whole.Quota > 0 {
		quota = number(*whole.Quota)
	}
	if whole.Period == nil || *whole.Period == 0 {
		return quota
	}
	return quota + " " + number(*whole.Period)
}

// WholeQuota adds to a quota without a period, or to a period without a quota, the other one that a group of version 2 has. Whoever is told of
// one of them would make of it another share of a processor.
func WholeQuota(g *Group, c *specs.LinuxCPU) {
	if c == nil || (c.Quota == nil) == (c.Period == nil) {
		return
	}
	b, err := os.ReadFile(filepath.Join(g.dirs[unified], "cpu.max"))
	fields := strings.Fields(string(b))
	if err != nil || len(fields) != 2 {
		return
	}
	if c.Quota == nil {
		quota, err := strconv.ParseInt(fields[0], 10, 64)
		if err != nil { // "max"
			quota = -1
		}
		c.Quota = &quota
	} else if period, err := strconv.ParseUint(fields[1], 10, 64); err == nil {
		c.Period = &period
	}
}

// Weight turns v1's shares (2…262144, default 1024) into v2's weight (1…10000, default 100), so that lowest, default and highest are the
// same on both: the curve that runc has from 1.3.2 on and crun from 1.23 on. The straight line of before made 39 of the default.
func Weight(shares uint64) uint64 {
	switch {
	case shares <= 2:
		return 1
	case shares >= 262144:
		return 10000
	}
	l := math.Log2(float64(shares))
	return uint64(math.Ceil(math.Pow(10, (l*l+125*l)/612-7.0/34)))
}

// IOWeight turns v1's weight (10…1000) into v2's (1…10000).
func IOWeight(weight uint16) uint64 {
	return 1 + uint64(min(max(weight, 10), 1000)-10)*9999/990
}

// ioWeight is for the two that divide a device's time by weight, each with its own range: the bfq scheduler and the cost model.
func ioWeight(key string, weight uint16) []setting {
	return []setting{{files: []string{"io.bfq.weight"}, value: key + " " + number(weight), what: "the block I/O weight", optional: true},
		{files: []string{"io.weight"}, value: key + " " + strconv.FormatUint(IOWeight(weight), 10), what: "the block I/O weight", optional: true}}
}

func v2Block(g *Group, b *specs.LinuxBlockIO) (out []setting, err error) {
	if b == nil {
		return nil, nil
	}
	if b.LeafWeight != nil && *b.LeafWeight != 0 {
		return nil, noConversion("a block I/O weight against groups below (leafWeight)", "cgroup v2 has no processes beside groups")
	}
	if b.Weight != nil && *b.Weight != 0 {
		out = append(out, ioWeight("default", *b.Weight)...)
	}
	for _, d := range b.WeightDevice {
		if d.LeafWeight != nil && *d.LeafWeight != 0 {
			return nil, noConversion("a device's block I/O weight against groups below (leafWeight)", "cgroup v2 has no processes beside groups")
		}
		if d.Weight != nil && *d.Weight != 0 {
			out = append(out, ioWeight(fmt.Sprintf("%d:%d", d.Major, d.Minor), *d.Weight)...)
		}
	}
	if dir := g.dirs[unified]; len(out) > 0 && !exists(filepath.Join(dir, "io.bfq.weight")) && !exists(filepath.Join(dir, "io.weight")) {
		return nil, noConversion("a block I/O weight", "this kernel has neither io.bfq.weight nor io.weight, or the parent group does not have the io controller")
	}
	for _, t := range throttles(b) {
		for _, d := range t.list {
			rate := "max"
			if d.Rate != 0 {
				rate = number(d.Rate)
			}
			out = append(out, setting{files: []string{"io.max"}, value: fmt.Sprintf("%d:%d %s=%s", d.Major, d.Minor, t.v2, rate), what: "block I/O"})
		}
	}
	return out, nil
}
