package cgroup

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// group2only makes a group where all controllers are version 2's: on hosts where they are not, test/vm runs these tests in a machine.
func group2only(t *testing.T, res *specs.LinuxResources) *Group {
	t.Helper()
	mounts, err := hierarchies()
	if err != nil {
		t.Fatal(err)
	}
	if len(mounts) != 1 || mounts[unified] == "" {
		t.Skip("this host has controllers of version 1; test/vm has a machine with version 2 only")
	}
	return group(t, res)
}

// eventually waits for what another process does; its end is a broken test's.
func eventually(t *testing.T, happened func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !happened(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it does not come to that")
		}
	}
}

// holds compares files of the group with what they should have.
func holds(t *testing.T, g *Group, want map[string]string) {
	t.Helper()
	for file, value := range want {
		if got := g.read(t, unified, file); got != value {
			t.Errorf("%s: %q, want %q", file, got, value)
		}
	}
}

// What an update leaves out stays as it is, also where two limits share a file or depend on each other.
func TestV2UpdateInParts(t *testing.T) {
	g := group2only(t, &specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: ptr(int64(20000)), Period: ptr(uint64(50000)), Burst: ptr(uint64(10000))},
		Memory: &specs.LinuxMemory{Limit: ptr(int64(64 << 20)), Swap: ptr(int64(96 << 20)), Reservation: ptr(int64(8 << 20))}})
	holds(t, g, map[string]string{"cpu.max": "20000 50000", "cpu.max.burst": "10000", "memory.max": "67108864", "memory.swap.max": "33554432", "memory.low": "8388608"})
	memory := func(limit, swap int64) *specs.LinuxResources {
		m := &specs.LinuxMemory{}
		if limit != 0 {
			m.Limit = &limit
		}
		if swap != 0 {
			m.Swap = &swap
		}
		return &specs.LinuxResources{Memory: m}
	}
	for _, row := range []struct {
		name string
		res  *specs.LinuxResources
		want map[string]string
	}{
		{"a quota", &specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: ptr(int64(30000))}}, map[string]string{"cpu.max": "30000 50000"}},
		{"a period", &specs.LinuxResources{CPU: &specs.LinuxCPU{Period: ptr(uint64(60000))}}, map[string]string{"cpu.max": "30000 60000"}},
		{"both, below the burst", &specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: ptr(int64(5000)), Burst: ptr(uint64(1000))}}, map[string]string{"cpu.max": "5000 60000", "cpu.max.burst": "1000"}},
		{"no quota", &specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: ptr(int64(-1))}}, map[string]string{"cpu.max": "max 60000"}},
		{"swap alone", memory(0, 80<<20), map[string]string{"memory.max": "67108864", "memory.swap.max": "16777216"}},
		{"as much as memory", memory(32<<20, 32<<20), map[string]string{"memory.max": "33554432", "memory.swap.max": "0"}},
		{"all swap", memory(0, -1), map[string]string{"memory.max": "33554432", "memory.swap.max": "max"}},
		{"no limit", memory(-1, 0), map[string]string{"memory.max": "max", "memory.swap.max": "max", "memory.low": "8388608"}},
		{"idle", &specs.LinuxResources{CPU: &specs.LinuxCPU{Idle: ptr(int64(1))}}, map[string]string{"cpu.idle": "1"}},
		{"pids", &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(-1))}}, map[string]string{"pids.max": "max"}},
		{"words of version 2, after the others", &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(64 << 20))},
			Unified: map[string]string{"memory.max": "48M", "memory.high": "40M", "cpu.max": "7000", "memory.oom.group": "1"}},
			map[string]string{"memory.max": "50331648", "memory.high": "41943040", "cpu.max": "7000 60000", "memory.oom.group": "1"}},
	} {
		if err := g.Update(row.res); err != nil {
			t.Errorf("%s: %v", row.name, err)
		}
		holds(t, g, row.want)
	}
}

func TestV2Refuses(t *testing.T) {
	g := group2only(t, &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(64 << 20))}})
	cmd := start(t, g, "x=$(head -c 2000000 /dev/zero | tr '\\0' x); sleep 1000")
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	eventually(t, func() bool { return readNumber(filepath.Join(g.dirs[unified], "memory.current")) > 1000000 })
	for name, res := range map[string]*specs.LinuxResources{
		"less than memory":    {Memory: &specs.LinuxMemory{Swap: ptr(int64(32 << 20))}},
		"less than is in use": {Memory: &specs.LinuxMemory{Limit: ptr(int64(4096)), CheckBeforeUpdate: ptr(true)}},
		"a path":              {Unified: map[string]string{"../memory.max": "1"}},
		"no file":             {Unified: map[string]string{"memory.nonsense": "1"}},
		"nonsense":            {Unified: map[string]string{"pids.max": "many"}},
		"a processor":         {CPU: &specs.LinuxCPU{Cpus: "4096"}},
	} {
		if err := g.Update(res); !errors.Is(err, errdefs.ErrInvalidArgument) && !errors.Is(err, errdefs.ErrFailedPrecondition) {
			t.Errorf("%s: %v", name, err)
		}
	}
	holds(t, g, map[string]string{"memory.max": "67108864", "pids.max": "max"})
}

func TestV2IO(t *testing.T) {
	var st unix.Stat_t
	if err := unix.Stat(os.Args[0], &st); err != nil {
		t.Fatal(err)
	}
	device := strconv.Itoa(int(unix.Major(st.Dev))) + ":" + strconv.Itoa(int(unix.Minor(st.Dev)))
	limit := func(rate uint64) *specs.LinuxResources {
		return &specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{Weight: ptr(uint16(300)), ThrottleReadBpsDevice: []specs.LinuxThrottleDevice{throttle(int64(unix.Major(st.Dev)), int64(unix.Minor(st.Dev)), rate)}}}
	}
	g := group2only(t, limit(1<<20))
	holds(t, g, map[string]string{"io.max": device + " rbps=1048576 wbps=max riops=max wiops=max"})
	if err := g.Update(limit(0)); err != nil {
		t.Error(err)
	}
	holds(t, g, map[string]string{"io.max": ""})
}

// Controllers come down to a group at any depth, and where they cannot, as processes stand in a group above, the limit that needs one says so.
func TestV2Controllers(t *testing.T) {
	g := group2only(t, nil)
	deep, err := Create(g.path+"/a/b/c", &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(32 << 20))}, CPU: &specs.LinuxCPU{Cpus: "0"}, Pids: &specs.LinuxPids{Limit: ptr(int64(9))}})
	if err != nil {
		t.Fatal(err)
	}
	holds(t, deep, map[string]string{"memory.max": "33554432", "cpuset.cpus": "0", "pids.max": "9", "cgroup.subtree_control": ""})
	cmd := start(t, deep, "sleep 1000")
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	_, err = Create(deep.path+"/below", &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(1 << 20))}})
	if !errors.Is(err, errdefs.ErrFailedPrecondition) || !strings.Contains(err.Error(), "memory.max") {
		t.Errorf("a limit below a group with processes: %v", err)
	}
	if exists(filepath.Join(deep.dirs[unified], "below")) {
		t.Error("the group is left")
	}
}

// A container that has its group to itself makes more below it: all of its processes are found there, killed there, and the groups go.
func TestV2Nested(t *testing.T) {
	g := group2only(t, nil)
	dir := g.dirs[unified]
	cmd := start(t, g, "cd "+dir+" && mkdir -p a/b c && echo $$ >a/b/cgroup.procs && echo +pids >cgroup.subtree_control && (sleep 1000 & sleep 1000 & wait)")
	defer func() { _ = cmd.Wait() }()
	eventually(t, func() bool { pids, err := g.Procs(); return err == nil && len(pids) >= 3 && slices.IsSorted(pids) })
	if in := Entrance(g, cmd.Process.Pid); in.path != g.path+"/a/b" || in.dirs[unified] != dir+"/a/b" {
		t.Errorf("one more process would go to %v", in)
	}
	if in := Entrance(g, os.Getpid()); in.path != g.path {
		t.Errorf("by a process of elsewhere: %v", in)
	}
	if err := g.Kill(); err != nil {
		t.Error(err)
	}
}

// Below a group of threads there are only groups of threads.
func TestV2Threaded(t *testing.T) {
	g := group2only(t, nil)
	parent := filepath.Join(g.dirs[unified], "threads")
	if err := os.Mkdir(parent, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := writeFile(filepath.Join(parent, "cgroup.type"), "threaded"); err != nil {
		t.Fatal(err)
	}
	in, err := Create(g.path+"/threads/box", &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(7))}})
	if err != nil {
		t.Fatal(err)
	}
	holds(t, in, map[string]string{"cgroup.type": "threaded", "pids.max": "7"})
	if _, err := Create(g.path+"/threads/heavy", &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(1 << 20))}}); !errors.Is(err, errdefs.ErrFailedPrecondition) {
		t.Errorf("a limit of memory for threads: %v", err)
	}
}
