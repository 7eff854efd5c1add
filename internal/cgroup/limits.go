package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// setting is one value for one file; the first of the files that the kernel has takes it.
type setting struct {
	controller string
	files      []string
	value      string
	what       string // for people
	optional   bool   // a kernel without the file is fine
}

// Update writes limits; what res leaves out stays as it is. A refused value is errdefs.ErrInvalidArgument and names the file.
func (g *Group) Update(res *specs.LinuxResources) error {
	if res == nil {
		return nil
	}
	if len(res.Unified) > 0 && !g.pure() {
		return fmt.Errorf("cgroup v2 files (resources.unified) need a host with cgroup v2 only; this one has v1 controllers: %w", errdefs.ErrFailedPrecondition)
	}
	settings := v1Settings(res)
	if g.pure() {
		settings = v2Settings(res)
	}
	for _, s := range settings {
		if err := g.write(s); err != nil {
			return err
		}
	}
	if err := g.limitMemory(res.Memory); err != nil {
		return err
	}
	return g.limitDevices(res.Devices)
}

func (g *Group) write(s setting) error {
	dir, ok := g.dirs[s.controller]
	if g.pure() {
		dir, ok = g.dirs[unified], true
	}
	if !ok {
		return fmt.Errorf("%s cannot be limited: this host has no %s controller: %w", s.what, s.controller, errdefs.ErrFailedPrecondition)
	}
	for _, file := range s.files {
		err := writeFile(filepath.Join(dir, file), s.value)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		return explain(s, filepath.Join(dir, file), err)
	}
	if s.optional {
		return nil
	}
	return fmt.Errorf("%s cannot be limited: this kernel has no %s in %s: %w", s.what, strings.Join(s.files, " or "), dir, errdefs.ErrFailedPrecondition)
}

// writeFile writes one value to one of the kernel's files; it never makes a file.
// writeFile writes to a control file: one that is there, in one write.
func writeFile(path, value string) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, []byte(value)); err != nil {
		return &fs.PathError{Op: "write", Path: path, Err: err}
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// explain says what a refusal means.
func explain(s setting, file string, err error) error {
	if err == nil {
		return nil
	}
	why := "the kernel refuses it"
	switch {
	case errors.Is(err, unix.EBUSY):
		why = "more than that is in use now"
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ERANGE):
		why = "the value is out of range or not understood"
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EACCES):
		why = "the parent group does not have it"
	case errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		why = "there is no such device"
	}
	return fmt.Errorf("limit %s to %s: %s (%s: %w): %w", s.what, s.value, why, file, err, errdefs.ErrInvalidArgument)
}

func number[T int64 | uint64 | uint16](v T) string { return strconv.FormatInt(int64(v), 10) }

func v1Settings(r *specs.LinuxResources) []setting {
	var out []setting
	add := func(controller, what, value string, files ...string) {
		out = append(out, setting{controller: controller, files: files, value: value, what: what})
	}
	if c := r.CPU; c != nil {
		if c.Shares != nil {
			add("cpu", "CPU shares", number(*c.Shares), "cpu.shares")
		}
		if c.Period != nil && *c.Period != 0 {
			add("cpu", "the CPU period (µs)", number(*c.Period), "cpu.cfs_period_us")
		}
		if c.Quota != nil {
			add("cpu", "the CPU quota (µs)", number(*c.Quota), "cpu.cfs_quota_us")
		}
		if c.Burst != nil {
			add("cpu", "the CPU burst (µs)", number(*c.Burst), "cpu.cfs_burst_us")
		}
		if c.RealtimePeriod != nil && *c.RealtimePeriod != 0 {
			add("cpu", "the real-time period", number(*c.RealtimePeriod), "cpu.rt_period_us")
		}
		if c.RealtimeRuntime != nil && *c.RealtimeRuntime != 0 {
			add("cpu", "the real-time runtime", number(*c.RealtimeRuntime), "cpu.rt_runtime_us")
		}
		if c.Cpus != "" {
			add("cpuset", "the processors", c.Cpus, "cpuset.cpus")
		}
		if c.Mems != "" {
			add("cpuset", "the memory nodes", c.Mems, "cpuset.mems")
		}
		if c.Idle != nil {
			add("cpu", "idle scheduling", number(*c.Idle), "cpu.idle")
		}
	}
	if r.Pids != nil {
		add("pids", "processes", pidsMax(r.Pids), "pids.max")
	}
	for _, h := range r.HugepageLimits {
		add("hugetlb", "huge pages of "+h.Pagesize, number(h.Limit), "hugetlb."+h.Pagesize+".limit_in_bytes")
	}
	return append(out, v1Block(r.BlockIO)...)
}

func pidsMax(p *specs.LinuxPids) string {
	if p.Limit == nil || *p.Limit <= 0 {
		return "max"
	}
	return number(*p.Limit)
}

func v1Block(b *specs.LinuxBlockIO) []setting {
	if b == nil {
		return nil
	}
	var out []setting
	if b.Weight != nil && *b.Weight != 0 {
		out = append(out, setting{"blkio", []string{"blkio.weight", "blkio.bfq.weight"}, number(*b.Weight), "the block I/O weight", true})
	}
	for _, d := range b.WeightDevice {
		if d.Weight != nil {
			out = append(out, setting{"blkio", []string{"blkio.weight_device", "blkio.bfq.weight_device"}, fmt.Sprintf("%d:%d %d", d.Major, d.Minor, *d.Weight), "a device's block I/O weight", true})
		}
	}
	for _, row := range []struct {
		file string
		list []specs.LinuxThrottleDevice
	}{{"read_bps", b.ThrottleReadBpsDevice}, {"write_bps", b.ThrottleWriteBpsDevice}, {"read_iops", b.ThrottleReadIOPSDevice}, {"write_iops", b.ThrottleWriteIOPSDevice}} {
		for _, d := range row.list {
			out = append(out, setting{"blkio", []string{"blkio.throttle." + row.file + "_device"}, fmt.Sprintf("%d:%d %d", d.Major, d.Minor, d.Rate), "block I/O (" + row.file + ")", false})
		}
	}
	return out
}

func v2Settings(r *specs.LinuxResources) []setting {
	var out []setting
	add := func(what, value string, files ...string) {
		out = append(out, setting{files: files, value: value, what: what})
	}
	if c := r.CPU; c != nil {
		if c.Shares != nil && *c.Shares != 0 {
			add("the CPU weight", number(Weight(*c.Shares)), "cpu.weight")
		}
		if c.Quota != nil || c.Period != nil {
			quota, period := "max", uint64(100000)
			if c.Quota != nil && *c.Quota > 0 {
				quota = number(*c.Quota)
			}
			if c.Period != nil && *c.Period != 0 {
				period = *c.Period
			}
			add("the CPU quota and period (µs)", quota+" "+number(period), "cpu.max")
		}
		if c.Burst != nil {
			add("the CPU burst (µs)", number(*c.Burst), "cpu.max.burst")
		}
		if c.Cpus != "" {
			add("the processors", c.Cpus, "cpuset.cpus")
		}
		if c.Mems != "" {
			add("the memory nodes", c.Mems, "cpuset.mems")
		}
		if c.Idle != nil {
			add("idle scheduling", number(*c.Idle), "cpu.idle")
		}
	}
	if r.Pids != nil {
		add("processes", pidsMax(r.Pids), "pids.max")
	}
	for _, h := range r.HugepageLimits {
		add("huge pages of "+h.Pagesize, number(h.Limit), "hugetlb."+h.Pagesize+".max")
	}
	out = append(out, v2Block(r.BlockIO)...)
	for file, value := range r.Unified {
		add(file, value, filepath.Base(file))
	}
	return out
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

func v2Block(b *specs.LinuxBlockIO) []setting {
	if b == nil {
		return nil
	}
	var out []setting
	if b.Weight != nil && *b.Weight != 0 {
		out = append(out, ioWeight("default", *b.Weight)...)
	}
	for _, d := range b.WeightDevice {
		if d.Weight != nil && *d.Weight != 0 {
			out = append(out, ioWeight(fmt.Sprintf("%d:%d", d.Major, d.Minor), *d.Weight)...)
		}
	}
	for _, row := range []struct {
		key  string
		list []specs.LinuxThrottleDevice
	}{{"rbps", b.ThrottleReadBpsDevice}, {"wbps", b.ThrottleWriteBpsDevice}, {"riops", b.ThrottleReadIOPSDevice}, {"wiops", b.ThrottleWriteIOPSDevice}} {
		for _, d := range row.list {
			out = append(out, setting{files: []string{"io.max"}, value: fmt.Sprintf("%d:%d %s=%d", d.Major, d.Minor, row.key, d.Rate), what: "block I/O"})
		}
	}
	return out
}

// limitMemory writes memory and swap in the order that the kernel takes: a new limit of both together must never lie below that of memory.
func (g *Group) limitMemory(m *specs.LinuxMemory) error {
	if m == nil {
		return nil
	}
	var list []setting
	add := func(what string, value int64, optional bool, files ...string) {
		text := number(value)
		if value < 0 && g.pure() {
			text = "max"
		}
		list = append(list, setting{"memory", files, text, what, optional})
	}
	limit, swap := m.Limit, m.Swap
	if g.pure() {
		if limit != nil && *limit != 0 {
			add("memory", *limit, false, "memory.max")
		}
		if swap != nil && *swap != 0 {
			only := *swap
			if only > 0 && limit != nil && *limit > 0 {
				only -= *limit
			}
			add("swap", only, true, "memory.swap.max")
		}
		if m.Reservation != nil && *m.Reservation != 0 {
			add("the memory reservation", *m.Reservation, false, "memory.low")
		}
		return g.writeAll(list)
	}
	if limit != nil && *limit != 0 {
		add("memory", *limit, false, "memory.limit_in_bytes")
	}
	if swap != nil && *swap != 0 {
		add("memory and swap", *swap, true, "memory.memsw.limit_in_bytes")
	}
	if len(list) == 2 && g.raises(*limit) {
		list[0], list[1] = list[1], list[0]
	}
	if m.Reservation != nil && *m.Reservation != 0 {
		add("the memory reservation", *m.Reservation, false, "memory.soft_limit_in_bytes")
	}
	if m.Swappiness != nil && *m.Swappiness <= 200 {
		add("swappiness", int64(*m.Swappiness), true, "memory.swappiness")
	}
	if m.DisableOOMKiller != nil && *m.DisableOOMKiller {
		add("the OOM killer", 1, true, "memory.oom_control")
	}
	return g.writeAll(list)
}

func (g *Group) writeAll(list []setting) error {
	for _, s := range list {
		if err := g.write(s); err != nil {
			return err
		}
	}
	return nil
}

// raises says whether a memory limit lies above the present one of memory and swap together.
func (g *Group) raises(limit int64) bool {
	have := readNumber(filepath.Join(g.dirs["memory"], "memory.memsw.limit_in_bytes"))
	return limit < 0 || uint64(limit) > have
}

// limitDevices writes v1's device rules in order; on v2 they are a BPF program that is attached where one is asked for.
func (g *Group) limitDevices(rules []specs.LinuxDeviceCgroup) error {
	if len(rules) == 0 {
		return nil
	}
	dir, ok := g.dirs["devices"]
	if !ok {
		if g.pure() {
			return g.attachDeviceProgram(rules)
		}
		return nil
	}
	for _, r := range rules {
		file := "devices.deny"
		if r.Allow {
			file = "devices.allow"
		}
		if err := writeFile(filepath.Join(dir, file), deviceRule(r)); err != nil {
			return explain(setting{what: "devices", value: deviceRule(r)}, filepath.Join(dir, file), err)
		}
	}
	return nil
}

func deviceRule(r specs.LinuxDeviceCgroup) string {
	part := func(n *int64) string {
		if n == nil || *n < 0 {
			return "*"
		}
		return number(*n)
	}
	kind, access := r.Type, r.Access
	if kind == "" {
		kind = "a"
	}
	if access == "" {
		access = "rwm"
	}
	return fmt.Sprintf("%s %s:%s %s", kind, part(r.Major), part(r.Minor), access)
}
