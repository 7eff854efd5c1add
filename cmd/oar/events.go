package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/cgroup"
)

// event is one line of the output, in runc's form.
type event struct {
	Type string `json:"type"`
	ID   string `json:"id"`
	Data any    `json:"data,omitempty"`
}

type usage64 struct {
	Limit   uint64 `json:"limit"`
	Usage   uint64 `json:"usage,omitempty"`
	Max     uint64 `json:"max,omitempty"`
	Failcnt uint64 `json:"failcnt"`
}

type statistics struct {
	CPU struct {
		Usage struct {
			Total  uint64   `json:"total,omitempty"`
			PerCPU []uint64 `json:"percpu,omitempty"`
			Kernel uint64   `json:"kernel"`
			User   uint64   `json:"user"`
		} `json:"usage"`
		Throttling struct {
			Periods          uint64 `json:"periods,omitempty"`
			ThrottledPeriods uint64 `json:"throttledPeriods,omitempty"`
			ThrottledTime    uint64 `json:"throttledTime,omitempty"`
		} `json:"throttling"`
	} `json:"cpu"`
	Memory struct {
		Usage usage64           `json:"usage"`
		Swap  usage64           `json:"swap"`
		Raw   map[string]uint64 `json:"raw,omitempty"`
	} `json:"memory"`
	Pids struct {
		Current uint64 `json:"current,omitempty"`
		Limit   uint64 `json:"limit,omitempty"`
	} `json:"pids"`
	Blkio struct {
		Bytes []blkioEntry `json:"ioServiceBytesRecursive,omitempty"`
		Ops   []blkioEntry `json:"ioServicedRecursive,omitempty"`
	} `json:"blkio"`
	HugePages map[string]hugePages `json:"hugetlb,omitempty"`
}

type hugePages struct {
	Usage    uint64 `json:"usage,omitempty"`
	Max      uint64 `json:"max,omitempty"`
	Failures uint64 `json:"failcnt"`
}

type blkioEntry struct {
	Major uint64 `json:"major"`
	Minor uint64 `json:"minor"`
	Op    string `json:"op"`
	Value uint64 `json:"value"`
}

// events prints a container's counters at intervals, and each kill for want of memory, until the container ends.
func (r *store) events(ctx context.Context, f flags) error {
	interval := f.Duration("interval", 5*time.Second, "how often: a `DURATION`")
	once := f.Bool("stats", false, "print the counters once")
	id, err := f.id()
	if err != nil {
		return err
	}
	if *interval <= 0 {
		return errors.New("--interval must be longer than nothing, such as 5s")
	}
	c, err := r.load(id)
	if err != nil {
		return err
	}
	if err := c.require("watch", running()...); err != nil {
		return err
	}
	g, err := needGroup(c, "watch")
	if err != nil {
		return err
	}
	if *once {
		return printStats(c.ID, g)
	}
	return c.watch(ctx, g, *interval)
}

// watch prints counters at intervals, and kills for want of memory when they happen; with version 1 it looks for them ten times in an interval.
func (c *record) watch(ctx context.Context, g *cgroup.Group, interval time.Duration) error {
	pidfd, alive := c.process()
	if !alive {
		return c.notRunning()
	}
	defer pidfd.Close()
	step, happens := interval/10, -1
	if memory := memoryEvents(g); memory != nil {
		defer memory.Close()
		step, happens = interval, int(memory.Fd())
	}
	out := json.NewEncoder(os.Stdout)
	before, _ := g.OOMKills()
	for next := time.Now().Add(interval); ctx.Err() == nil; {
		gone := waitEnded(int(pidfd.Fd()), happens, min(step, time.Until(next)))
		if kills, err := g.OOMKills(); err == nil && kills > before {
			before = kills
			if err := out.Encode(event{Type: "oom", ID: c.ID}); err != nil {
				return err
			}
		}
		if gone {
			return nil
		}
		if time.Now().Before(next) {
			continue
		}
		next = time.Now().Add(interval)
		if err := printStats(c.ID, g); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// memoryEvents is the file of version 2 that tells its readers of changes (cgroup-v2.rst, "memory.events"); nil where there is none.
func memoryEvents(g *cgroup.Group) *os.File {
	dir, ok := g.Dir()
	if !ok || !cgroup.Unified(g) {
		return nil
	}
	f, err := os.Open(filepath.Join(dir, "memory.events"))
	if err != nil {
		return nil
	}
	return f
}

// waitEnded waits for the end of a process, for a change that a file tells of (-1: none), or for a while; it says whether it is the end.
func waitEnded(pidfd, file int, limit time.Duration) bool {
	poll := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}, {Fd: int32(file), Events: unix.POLLPRI}}
	n, err := unix.Poll(poll, int(max(limit.Milliseconds(), 1)))
	if err != nil || n == 0 {
		return false
	}
	if poll[1].Revents != 0 { // the next change is told of once this one has been read
		_, _ = unix.Pread(file, make([]byte, 1), 0)
	}
	return poll[0].Revents != 0
}

func printStats(id string, g *cgroup.Group) error {
	s, err := g.Stats()
	if err != nil {
		return fmt.Errorf("counters of container %s: %w", id, err)
	}
	var out statistics
	u := &out.CPU.Usage
	u.Total, u.Kernel, u.User = uint64(s.CPUUsage), uint64(s.CPUSystem), uint64(s.CPUUser)
	for _, d := range s.PerCPU {
		u.PerCPU = append(u.PerCPU, uint64(d))
	}
	out.CPU.Throttling.Periods, out.CPU.Throttling.ThrottledPeriods = s.Periods, s.ThrottledPeriods
	out.CPU.Throttling.ThrottledTime = uint64(s.ThrottledTime)
	out.Memory.Usage = usage64{Limit: s.MemoryLimit, Usage: s.Memory, Max: s.MemoryPeak, Failcnt: s.MemoryFailures}
	out.Memory.Swap.Usage, out.Memory.Raw = s.Swap, s.MemoryStat
	out.Pids.Current, out.Pids.Limit = s.Pids, s.PidsLimit
	for _, d := range s.IO {
		out.Blkio.Bytes = append(out.Blkio.Bytes, blkioEntry{d.Major, d.Minor, "Read", d.ReadBytes}, blkioEntry{d.Major, d.Minor, "Write", d.WriteBytes})
		out.Blkio.Ops = append(out.Blkio.Ops, blkioEntry{d.Major, d.Minor, "Read", d.ReadOps}, blkioEntry{d.Major, d.Minor, "Write", d.WriteOps})
	}
	for size, h := range cgroup.HugePagesOf(g) {
		if out.HugePages == nil {
			out.HugePages = map[string]hugePages{}
		}
		out.HugePages[size] = hugePages(h)
	}
	return json.NewEncoder(os.Stdout).Encode(event{Type: "stats", ID: id, Data: out})
}
