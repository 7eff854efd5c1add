package monitor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"

	"wherry.dev/wherry/internal/cgroup"
	containers "wherry.dev/wherry/internal/container"
)

const interval = time.Second

// Stats calls fn with a sample each second (stream), until the container or ctx ends or fn fails, or once: then after a second, with the
// sample before for comparison, or at once where oneShot is set. A stopped container gives one empty sample.
func (s *Service) Stats(ctx context.Context, id string, stream, oneShot bool, fn func(container.StatsResponse) error) error {
	v, done, err := s.view(ctx, id)
	if err != nil {
		return err
	}
	defer done()
	if !v.Running {
		return fn(empty(&v))
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	var before container.StatsResponse
	for first := true; ; first = false {
		sample, err := measure(&v)
		if errors.Is(err, fs.ErrNotExist) || ended(&v) {
			if first || !stream {
				return fn(empty(&v))
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("stats of container %s: %w", v.Name, err)
		}
		sample.PreRead, sample.PreCPUStats = before.Read, before.CPUStats
		before = sample.StatsResponse
		if stream || oneShot || !first {
			if err := fn(sample.StatsResponse); err != nil || !stream {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func empty(v *containers.View) container.StatsResponse {
	return container.StatsResponse{ID: v.ID, Name: "/" + v.Name, OSType: "linux"}
}

// Sample is what a container uses at one moment, with what Docker's stats have no fields for.
type Sample struct {
	container.StatsResponse
	Split      Split
	Swap       uint64
	OOMKills   uint64                     // since its control group was made
	Operations []container.BlkioStatEntry // of block devices, by op Read and Write, whatever version the control groups have
}

// Split is a container's memory by what it is for, in bytes.
type Split struct {
	Anonymous uint64 // heaps and stacks: what processes have written
	File      uint64 // cached files, without Shmem
	Shmem     uint64 // shared memory and files of tmpfs
}

// Names of the split in the statistics of memory, which have a name for each figure of the kernel's.
const (
	StatAnonymous = "wherry_anonymous"
	StatFile      = "wherry_file"
	StatShmem     = "wherry_shmem"
)

// splitOf reads memory.stat of either version: total_* of version 1 are those of the group and all below it.
func splitOf(stat map[string]uint64) (s Split) {
	if anon, ok := stat["anon"]; ok {
		s = Split{Anonymous: anon, File: stat["file"], Shmem: stat["shmem"]}
	} else {
		s = Split{Anonymous: stat["total_rss"], File: stat["total_cache"], Shmem: stat["total_shmem"]}
	}
	s.File -= min(s.File, s.Shmem)
	return s
}

// Sample takes one sample of a container that runs.
func (s *Service) Sample(ctx context.Context, id string) (Sample, error) {
	v, done, err := s.view(ctx, id)
	if err != nil {
		return Sample{}, err
	}
	defer done()
	if !v.Running {
		return Sample{}, fmt.Errorf("container %s does not run: %w", v.Name, errdefs.ErrFailedPrecondition)
	}
	return measure(&v)
}

// measure takes one sample.
func measure(v *containers.View) (Sample, error) {
	out := Sample{StatsResponse: empty(v)}
	c, err := v.Cgroup.Stats()
	if err != nil {
		return out, err
	}
	out.Split, out.Swap = splitOf(c.MemoryStat), c.Swap
	out.OOMKills, _ = v.Cgroup.OOMKills()
	for _, d := range c.IO {
		out.Operations = append(out.Operations, container.BlkioStatEntry{Major: d.Major, Minor: d.Minor, Op: "Read", Value: d.ReadOps},
			container.BlkioStatEntry{Major: d.Major, Minor: d.Minor, Op: "Write", Value: d.WriteOps})
	}
	c.MemoryStat[StatAnonymous], c.MemoryStat[StatFile], c.MemoryStat[StatShmem] = out.Split.Anonymous, out.Split.File, out.Split.Shmem
	out.Read = c.Time
	if out.CPUStats, err = cpuStats(c); err != nil {
		return out, err
	}
	out.PidsStats = container.PidsStats{Current: c.Pids, Limit: c.PidsLimit}
	out.MemoryStats = container.MemoryStats{Usage: c.Memory, MaxUsage: c.MemoryPeak, Stats: c.MemoryStat, Failcnt: c.MemoryFailures, Limit: c.MemoryLimit}
	dirs := v.Cgroup.Dirs()
	if _, unified := dirs[""]; unified && len(dirs) == 1 { // Docker has no such figures of cgroup v2
		out.MemoryStats.MaxUsage, out.MemoryStats.Failcnt = 0, 0
		out.BlkioStats = ioV2(c.IO)
	} else {
		out.BlkioStats = ioV1(c.IO)
	}
	if v.HostConfig == nil || !v.HostConfig.NetworkMode.IsHost() {
		if out.Networks, err = networkStats(v.Pid); err != nil {
			return out, err
		}
	}
	return out, nil
}

func cpuStats(c *cgroup.Stats) (container.CPUStats, error) {
	host, cpus, err := hostCPU()
	if err != nil {
		return container.CPUStats{}, err
	}
	out := container.CPUStats{
		CPUUsage: container.CPUUsage{
			TotalUsage: uint64(c.CPUUsage), UsageInUsermode: uint64(c.CPUUser), UsageInKernelmode: uint64(c.CPUSystem),
		},
		SystemUsage: uint64(host), OnlineCPUs: cpus,
		ThrottlingData: container.ThrottlingData{Periods: c.Periods, ThrottledPeriods: c.ThrottledPeriods, ThrottledTime: uint64(c.ThrottledTime)},
	}
	for _, t := range c.PerCPU {
		out.CPUUsage.PercpuUsage = append(out.CPUUsage.PercpuUsage, uint64(t))
	}
	return out, nil
}

// hostCPU is the time that all processors together have spent, busy or idle, and how many there are (proc_stat(5)).
func hostCPU() (time.Duration, uint32, error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0, err
	}

	var total time.Duration
	var cpus uint32
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		switch {
		case len(f) < 8 || !strings.HasPrefix(f[0], "cpu"):
		case f[0] == "cpu":
			for _, field := range f[1:8] { // user, nice, system, idle, iowait, irq, softirq
				n, _ := strconv.ParseInt(field, 10, 64)
				total += time.Duration(n) * tick
			}
		default:
			cpus++
		}
	}
	if total == 0 {
		return 0, 0, errors.New("/proc/stat names no processor")
	}
	return total, cpus, nil
}

func ioV1(list []cgroup.DeviceIO) container.BlkioStats {
	empty := []container.BlkioStatEntry{}
	out := container.BlkioStats{
		IoServiceBytesRecursive: empty, IoServicedRecursive: empty, IoQueuedRecursive: empty, IoServiceTimeRecursive: empty,
		IoWaitTimeRecursive: empty, IoMergedRecursive: empty, IoTimeRecursive: empty, SectorsRecursive: empty,
	}
	entry := func(d cgroup.DeviceIO, op string, n uint64) container.BlkioStatEntry {
		return container.BlkioStatEntry{Major: d.Major, Minor: d.Minor, Op: op, Value: n}
	}
	for _, d := range list {
		out.IoServiceBytesRecursive = append(out.IoServiceBytesRecursive, entry(d, "Read", d.ReadBytes), entry(d, "Write", d.WriteBytes), entry(d, "Total", d.ReadBytes+d.WriteBytes))
		out.IoServicedRecursive = append(out.IoServicedRecursive, entry(d, "Read", d.ReadOps), entry(d, "Write", d.WriteOps), entry(d, "Total", d.ReadOps+d.WriteOps))
	}
	return out
}

// ioV2 has, as Docker's, the bytes only.
func ioV2(list []cgroup.DeviceIO) container.BlkioStats {
	var out container.BlkioStats
	for _, d := range list {
		out.IoServiceBytesRecursive = append(out.IoServiceBytesRecursive,
			container.BlkioStatEntry{Major: d.Major, Minor: d.Minor, Op: "read", Value: d.ReadBytes},
			container.BlkioStatEntry{Major: d.Major, Minor: d.Minor, Op: "write", Value: d.WriteBytes})
	}
	return out
}

// networkStats reads the counters of a process's network namespace, without the loopback.
func networkStats(pid int) (map[string]container.NetworkStats, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/net/dev")
	if err != nil {
		return nil, err
	}
	return parseNetDev(string(b)), nil
}

// parseNetDev reads proc_pid_net(5), dev: two lines of titles, then "name: " with eight numbers of what came in and eight of what went out.
func parseNetDev(text string) map[string]container.NetworkStats {
	var out map[string]container.NetworkStats
	for line := range strings.Lines(text) {
		name, rest, ok := strings.Cut(strings.TrimSpace(line), ":")
		f := strings.Fields(rest)
		if !ok || len(f) < 16 || name == "lo" {
			continue
		}
		var n [16]uint64
		for i := range n {
			n[i], _ = strconv.ParseUint(f[i], 10, 64)
		}
		if out == nil {
			out = map[string]container.NetworkStats{}
		}
		out[name] = container.NetworkStats{
			RxBytes: n[0], RxPackets: n[1], RxErrors: n[2], RxDropped: n[3], TxBytes: n[8], TxPackets: n[9], TxErrors: n[10], TxDropped: n[11],
		}
	}
	return out
}
