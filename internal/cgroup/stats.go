package cgroup

import (
	"bufio"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Stats are the group's counters at one moment.
type Stats struct {
	Time                         time.Time
	CPUUsage, CPUUser, CPUSystem time.Duration
	PerCPU                       []time.Duration
	Periods, ThrottledPeriods    uint64
	ThrottledTime                time.Duration
	Memory, MemoryPeak           uint64 // bytes
	MemoryLimit, Swap            uint64 // the limit is the host's memory where none is set
	MemoryStat                   map[string]uint64
	MemoryFailures               uint64
	Pids, PidsLimit              uint64 // limit 0: none
	IO                           []DeviceIO
}

// DeviceIO are one block device's counters.
type DeviceIO struct {
	Major, Minor                             uint64
	ReadBytes, WriteBytes, ReadOps, WriteOps uint64
}

// Stats reads the counters; those that the host does not have stay zero.
func (g *Group) Stats() (*Stats, error) {
	if populatedDir := g.anyDir(); !exists(populatedDir) {
		return nil, os.ErrNotExist
	}
	s := &Stats{Time: time.Now()}
	if g.pure() {
		g.statsV2(s)
	} else {
		g.statsV1(s)
	}
	if total := hostMemory(); s.MemoryLimit == 0 || s.MemoryLimit > total {
		s.MemoryLimit = total
	}
	return s, nil
}

func (g *Group) statsV1(s *Stats) {
	acct, cpu, mem, pids := g.dirs["cpuacct"], g.dirs["cpu"], g.dirs["memory"], g.dirs["pids"]
	s.CPUUsage = time.Duration(readNumber(acct + "/cpuacct.usage"))
	s.CPUUser = time.Duration(readNumber(acct + "/cpuacct.usage_user"))
	s.CPUSystem = time.Duration(readNumber(acct + "/cpuacct.usage_sys"))
	if b, err := os.ReadFile(acct + "/cpuacct.usage_percpu"); err == nil {
		for _, f := range strings.Fields(string(b)) {
			n, _ := strconv.ParseInt(f, 10, 64)
			s.PerCPU = append(s.PerCPU, time.Duration(n))
		}
	}
	stat := readPairs(cpu + "/cpu.stat")
	s.Periods, s.ThrottledPeriods, s.ThrottledTime = stat["nr_periods"], stat["nr_throttled"], time.Duration(stat["throttled_time"])
	s.Memory = readNumber(mem + "/memory.usage_in_bytes")
	s.MemoryPeak = readNumber(mem + "/memory.max_usage_in_bytes")
	s.MemoryLimit = readNumber(mem + "/memory.limit_in_bytes")
	s.MemoryFailures = readNumber(mem + "/memory.failcnt")
	s.MemoryStat = readPairs(mem + "/memory.stat")
	s.Swap = s.MemoryStat["swap"]
	s.Pids, s.PidsLimit = readNumber(pids+"/pids.current"), readNumber(pids+"/pids.max")
	s.IO = readIOv1(g.dirs["blkio"])
}

func (g *Group) statsV2(s *Stats) {
	dir := g.dirs[unified]
	stat := readPairs(dir + "/cpu.stat")
	us := func(key string) time.Duration { return time.Duration(stat[key]) * time.Microsecond }
	s.CPUUsage, s.CPUUser, s.CPUSystem, s.ThrottledTime = us("usage_usec"), us("user_usec"), us("system_usec"), us("throttled_usec")
	s.Periods, s.ThrottledPeriods = stat["nr_periods"], stat["nr_throttled"]
	s.Memory, s.MemoryPeak = readNumber(dir+"/memory.current"), readNumber(dir+"/memory.peak")
	s.MemoryLimit, s.Swap = readNumber(dir+"/memory.max"), readNumber(dir+"/memory.swap.current")
	s.MemoryStat, s.MemoryFailures = readPairs(dir+"/memory.stat"), readPairs(dir + "/memory.events")["max"]
	s.Pids, s.PidsLimit = readNumber(dir+"/pids.current"), readNumber(dir+"/pids.max")
	s.IO = readIOv2(dir)
}

// OOMKills counts the processes that the kernel killed because of the group's memory limit.
func (g *Group) OOMKills() (uint64, error) {
	file := filepath.Join(g.dirs["memory"], "memory.oom_control")
	if g.pure() {
		file = filepath.Join(g.dirs[unified], "memory.events")
	}
	if !exists(file) {
		return 0, errors.New("no memory controller")
	}
	return readPairs(file)["oom_kill"], nil
}

// readNumber reads a file with one number; "max", a missing file and nonsense are 0.
func readNumber(file string) uint64 {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	n, _ := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
	return n
}

// readText reads a file with one line; "" where it is missing.
func readText(file string) string {
	b, _ := os.ReadFile(file)
	return strings.TrimSpace(string(b))
}

// readPairs reads lines "key number".
func readPairs(file string) map[string]uint64 {
	out := map[string]uint64{}
	b, err := os.ReadFile(file)
	if err != nil {
		return out
	}
	for line := range strings.Lines(string(b)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if n, err := strconv.ParseUint(value, 10, 64); err == nil {
			out[key] = n
		}
	}
	return out
}

func hostMemory() uint64 {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if rest, ok := strings.CutPrefix(s.Text(), "MemTotal:"); ok {
			kb, _ := strconv.ParseUint(strings.Fields(rest)[0], 10, 64)
			return kb * 1024
		}
	}
	return 0
}

func deviceNumber(s string) (major, minor uint64, ok bool) {
	a, b, found := strings.Cut(s, ":")
	major, err1 := strconv.ParseUint(a, 10, 64)
	minor, err2 := strconv.ParseUint(b, 10, 64)
	return major, minor, found && err1 == nil && err2 == nil
}

func readIOv1(dir string) []DeviceIO {
	devices := map[string]*DeviceIO{}
	var order []string
	for _, file := range []string{"blkio.throttle.io_service_bytes", "blkio.throttle.io_serviced"} {
		b, _ := os.ReadFile(filepath.Join(dir, file))
		for line := range strings.Lines(string(b)) {
			f := strings.Fields(line)
			if len(f) != 3 {
				continue
			}
			d := devices[f[0]]
			if d == nil {
				major, minor, ok := deviceNumber(f[0])
				if !ok {
					continue
				}
				d = &DeviceIO{Major: major, Minor: minor}
				devices[f[0]], order = d, append(order, f[0])
			}
			n, _ := strconv.ParseUint(f[2], 10, 64)
			switch f[1] + strings.TrimPrefix(file, "blkio.throttle.io_") {
			case "Readservice_bytes":
				d.ReadBytes = n
			case "Writeservice_bytes":
				d.WriteBytes = n
			case "Readserviced":
				d.ReadOps = n
			case "Writeserviced":
				d.WriteOps = n
			}
		}
	}
	out := make([]DeviceIO, 0, len(order))
	for _, name := range order {
		out = append(out, *devices[name])
	}
	return out
}

func readIOv2(dir string) []DeviceIO {
	b, _ := os.ReadFile(filepath.Join(dir, "io.stat"))
	var out []DeviceIO
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		major, minor, ok := deviceNumber(f[0])
		if !ok {
			continue
		}
		d := DeviceIO{Major: major, Minor: minor}
		for _, kv := range f[1:] {
			key, value, _ := strings.Cut(kv, "=")
			n, _ := strconv.ParseUint(value, 10, 64)
			switch key {
			case "rbytes":
				d.ReadBytes = n
			case "wbytes":
				d.WriteBytes = n
			case "rios":
				d.ReadOps = n
			case "wios":
				d.WriteOps = n
			}
		}
		out = append(out, d)
	}
	return out
}
