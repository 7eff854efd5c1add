package cgroup

import (
	"fmt"
	"math"
	"path/filepath"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// limitMemory writes memory and swap in the order that the kernel takes.
func (g *Group) limitMemory(m *specs.LinuxMemory) error {
	if m == nil {
		return nil
	}
	list, err := []setting(nil), error(nil)
	if g.pure() {
		list, err = v2Memory(g, m)
	} else {
		list = v1Memory(g, m)
	}
	if err != nil {
		return err
	}
	return g.writeAll(list)
}

func given(n *int64) bool { return n != nil && *n != 0 }

// v1Memory: a limit of memory and swap together must never lie below that of memory.
func v1Memory(g *Group, m *specs.LinuxMemory) (list []setting) {
	add := func(what string, value int64, optional bool, file string) {
		list = append(list, setting{controller: "memory", files: []string{file}, value: number(value), what: what, optional: optional})
	}
	swap := m.Swap
	if given(m.Limit) {
		add("memory", *m.Limit, false, "memory.limit_in_bytes")
		if *m.Limit < 0 && swap == nil {
			swap = m.Limit // no limit of memory within one of memory and swap
		}
	}
	if given(swap) {
		add("memory and swap", *swap, true, "memory.memsw.limit_in_bytes")
	}
	if len(list) == 2 && raises(g, *m.Limit) {
		list[0], list[1] = list[1], list[0]
	}
	if given(m.Reservation) {
		add("the memory reservation", *m.Reservation, false, "memory.soft_limit_in_bytes")
	}
	if given(m.Kernel) { //nolint:staticcheck // deprecated: kernels take it and do nothing, later ones do not have it
		add("kernel memory", *m.Kernel, true, "memory.kmem.limit_in_bytes") //nolint:staticcheck // as above
	}
	if given(m.KernelTCP) {
		add("memory for TCP", *m.KernelTCP, false, "memory.kmem.tcp.limit_in_bytes")
	}
	if m.Swappiness != nil && *m.Swappiness <= 200 {
		add("swappiness", int64(*m.Swappiness), true, "memory.swappiness")
	}
	if m.DisableOOMKiller != nil && *m.DisableOOMKiller {
		add("the OOM killer", 1, false, "memory.oom_control")
	}
	if m.UseHierarchy != nil && !*m.UseHierarchy {
		add("memory without the groups below (useHierarchy)", 0, false, "memory.use_hierarchy")
	}
	return list
}

// v2Memory: swap has a limit of its own.
func v2Memory(g *Group, m *specs.LinuxMemory) (list []setting, err error) {
	if err := onlyV1Memory(m); err != nil {
		return nil, err
	}
	add := func(what string, value int64, optional bool, file string) {
		text := number(value)
		if value < 0 {
			text = "max"
		}
		list = append(list, setting{files: []string{file}, value: text, what: what, optional: optional})
	}
	if given(m.Limit) {
		if err := checkUse(g, m); err != nil {
			return nil, err
		}
		add("memory", *m.Limit, false, "memory.max")
		if *m.Limit < 0 && m.Swap == nil {
			add("swap", -1, true, "memory.swap.max") // as version 1, whose limit of both goes with that of memory
		}
	}
	if given(m.Swap) {
		only, err := swapAlone(g, m)
		if err != nil {
			return nil, err
		}
		add("swap", only, true, "memory.swap.max")
	}
	if given(m.Reservation) {
		add("the memory reservation", *m.Reservation, false, "memory.low")
	}
	return list, nil
}

// onlyV1Memory refuses what cgroup v2 cannot do.
func onlyV1Memory(m *specs.LinuxMemory) error {
	for _, row := range []struct {
		asked bool
		what  string
		why   string
	}{
		{m.Kernel != nil && *m.Kernel > 0, "a limit of kernel memory (memory.kernel)", "cgroup v2 counts it as memory"}, //nolint:staticcheck // deprecated, not gone
		{m.KernelTCP != nil && *m.KernelTCP > 0, "a limit of memory for TCP (memory.kernelTCP)", "cgroup v2 counts it as memory"},
		{m.Swappiness != nil && *m.Swappiness <= 200, "swappiness of one group (memory.swappiness)", "cgroup v2 has only the host's (vm.swappiness)"},
		{m.DisableOOMKiller != nil && *m.DisableOOMKiller, "no OOM killer (memory.disableOOMKiller)", "cgroup v2 always has it"},
		{m.UseHierarchy != nil && !*m.UseHierarchy, "memory without the groups below (memory.useHierarchy)", "cgroup v2 counts them always"},
	} {
		if row.asked {
			return noConversion(row.what, row.why)
		}
	}
	return nil
}

// checkUse refuses a limit below what is in use, where that is asked for: v1 does it by itself, v2 kills instead.
func checkUse(g *Group, m *specs.LinuxMemory) error {
	if m.CheckBeforeUpdate == nil || !*m.CheckBeforeUpdate || *m.Limit < 0 {
		return nil
	}
	file := filepath.Join(g.dirs[unified], "memory.current")
	if used := readNumber(file); used > uint64(*m.Limit) {
		return fmt.Errorf("limit memory to %d: more than that is in use now (%s: %d): %w", *m.Limit, file, used, errdefs.ErrInvalidArgument)
	}
	return nil
}

// swapAlone is what is left of a limit of memory and swap for swap.
func swapAlone(g *Group, m *specs.LinuxMemory) (int64, error) {
	if *m.Swap < 0 {
		return -1, nil
	}
	limit := uint64(math.MaxUint64)
	if given(m.Limit) && *m.Limit > 0 {
		limit = uint64(*m.Limit)
	} else if m.Limit == nil || *m.Limit == 0 {
		limit = readNumber(filepath.Join(g.dirs[unified], "memory.max")) // 0 for "max"
	}
	switch {
	case limit == 0 || limit >= math.MaxInt64:
		return 0, fmt.Errorf("limit memory and swap to %d: memory has no limit, and cgroup v2 limits swap alone: give both: %w", *m.Swap, errdefs.ErrInvalidArgument)
	case uint64(*m.Swap) < limit:
		return 0, fmt.Errorf("limit memory and swap to %d: that is less than memory's own limit %d: %w", *m.Swap, limit, errdefs.ErrInvalidArgument)
	}
	return *m.Swap - int64(limit), nil
}

// raises says whether a memory limit lies above the present one of memory and swap together.
func raises(g *Group, limit int64) bool {
	have := readNumber(filepath.Join(g.dirs["memory"], "memory.memsw.limit_in_bytes"))
	return limit < 0 || uint64(limit) > have
}
