package cgroup

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// plain makes a group whose directories hold plain files: a machine has its controllers in one of the two versions, and not all of them.
// Each file is written to once.
func plain(t *testing.T, files map[string]string) *Group {
	t.Helper()
	g := &Group{path: "/a/b", dirs: map[string]string{}}
	root := t.TempDir()
	for name, content := range files {
		controller, file, ok := strings.Cut(name, "/")
		if !ok {
			controller, file = unified, name
		}
		g.dirs[controller] = filepath.Join(root, controller)
		if err := os.MkdirAll(g.dirs[controller], 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(g.dirs[controller], file), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return g
}

func held(devices ...specs.LinuxThrottleDevice) []specs.LinuxThrottleDevice { return devices }

func weighted(major, minor int64, weight, leaf *uint16) specs.LinuxWeightDevice {
	d := specs.LinuxWeightDevice{Weight: weight, LeafWeight: leaf}
	d.Major, d.Minor = major, minor
	return d
}

// TestWhatIsWrittenWhere: everything that the specification names, on both versions.
func TestWhatIsWrittenWhere(t *testing.T) {
	for name, row := range map[string]struct {
		res  specs.LinuxResources
		want map[string]string // content after, of files that were empty; "controller/file" for v1
	}{
		"v2 memory": {specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(64 << 20)), Swap: ptr(int64(96 << 20)), Reservation: ptr(int64(1 << 20))}},
			map[string]string{"memory.max": "67108864", "memory.swap.max": "33554432", "memory.low": "1048576"}},
		"v2 no memory limit": {specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(-1)), Swap: ptr(int64(-1))}},
			map[string]string{"memory.max": "max", "memory.swap.max": "max"}},
		"v2 no swap": {specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(5)), Swap: ptr(int64(5))}}, map[string]string{"memory.swap.max": "0", "memory.max": "5"}},
		"v2 cpu": {specs.LinuxResources{CPU: &specs.LinuxCPU{Shares: ptr(uint64(1024)), Quota: ptr(int64(50000)), Period: ptr(uint64(100000)), Burst: ptr(uint64(7)), Cpus: "0-1", Mems: "0", Idle: ptr(int64(1))}},
			map[string]string{"cpu.weight": "100", "cpu.max": "50000 100000", "cpu.max.burst": "7", "cpuset.cpus": "0-1", "cpuset.mems": "0", "cpu.idle": "1"}},
		"v2 quota alone": {specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: ptr(int64(-1))}}, map[string]string{"cpu.max": "max"}},
		"v2 others": {specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(0))},
			HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 4 << 20}, {Pagesize: "1GB", Limit: 1<<64 - 1}},
			Rdma:           map[string]specs.LinuxRdma{"mlx5_1": {HcaHandles: ptr(uint32(3)), HcaObjects: ptr(uint32(4))}},
			Unified:        map[string]string{"memory.high": "12345", "cgroup.max.depth": "2\n"}},
			map[string]string{"pids.max": "1", "hugetlb.2MB.max": "4194304", "hugetlb.2MB.rsvd.max": "4194304", "hugetlb.1GB.max": "18446744073709551615",
				"rdma.max": "mlx5_1 hca_handle=3 hca_object=4", "memory.high": "12345", "cgroup.max.depth": "2"}},
		"v2 block I/O":      {specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{Weight: ptr(uint16(300)), ThrottleWriteIOPSDevice: held(throttle(8, 16, 77))}}, map[string]string{"io.max": "8:16 wiops=77", "io.weight": "default 2930", "io.bfq.weight": "default 300"}},
		"v2 device weights": {specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{WeightDevice: []specs.LinuxWeightDevice{weighted(8, 0, ptr(uint16(500)), nil)}}}, map[string]string{"io.bfq.weight": "8:0 500"}},
		"v2 read bytes":     {specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{ThrottleReadBpsDevice: held(throttle(8, 0, 0))}}, map[string]string{"io.max": "8:0 rbps=max"}},
		"v1 network": {specs.LinuxResources{Network: &specs.LinuxNetwork{ClassID: ptr(uint32(0x100001)), Priorities: []specs.LinuxInterfacePriority{{Name: "eth0", Priority: 5}}}},
			map[string]string{"net_cls/net_cls.classid": "1048577", "net_prio/net_prio.ifpriomap": "eth0 5"}},
		"v1 others": {specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(-1))}, HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 9}},
			Rdma: map[string]specs.LinuxRdma{"rxe3": {HcaObjects: ptr(uint32(4))}}},
			map[string]string{"pids/pids.max": "max", "hugetlb/hugetlb.2MB.limit_in_bytes": "9", "hugetlb/hugetlb.2MB.rsvd.limit_in_bytes": "9", "rdma/rdma.max": "rxe3 hca_object=4"}},
		"v1 weights of old": {specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{Weight: ptr(uint16(10)), LeafWeight: ptr(uint16(20)),
			WeightDevice: []specs.LinuxWeightDevice{weighted(8, 0, ptr(uint16(30)), ptr(uint16(40)))}}},
			map[string]string{"blkio/blkio.weight": "10", "blkio/blkio.leaf_weight": "20", "blkio/blkio.weight_device": "8:0 30", "blkio/blkio.leaf_weight_device": "8:0 40"}},
		"v1 memory": {specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(-1)), Kernel: ptr(int64(8)), KernelTCP: ptr(int64(9)), UseHierarchy: ptr(false), DisableOOMKiller: ptr(true)}},
			map[string]string{"memory/memory.limit_in_bytes": "-1", "memory/memory.memsw.limit_in_bytes": "-1", "memory/memory.kmem.limit_in_bytes": "8",
				"memory/memory.kmem.tcp.limit_in_bytes": "9", "memory/memory.use_hierarchy": "0", "memory/memory.oom_control": "1"}},
	} {
		empty := map[string]string{}
		for file := range row.want {
			empty[file] = ""
		}
		g := plain(t, empty)
		if err := g.Update(&row.res); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for file, value := range row.want {
			controller, base, ok := strings.Cut(file, "/")
			if !ok {
				controller, base = unified, file
			}
			if got := g.read(t, controller, base); got != value {
				t.Errorf("%s: %s: %q, want %q", name, file, got, value)
			}
		}
	}
}

// TestWhatCannotBeHad is refused in words, and never left out.
func TestWhatCannotBeHad(t *testing.T) {
	v2 := map[string]string{"memory.max": "max", "memory.current": "5000", "memory.swap.max": "", "cpu.max": "max 100000", "pids.max": ""}
	limited := map[string]string{"memory.max": "4096", "memory.swap.max": "", "memory.current": "4000"}
	v1 := map[string]string{"memory/memory.limit_in_bytes": "", "blkio/x": "", "cpu/x": ""}
	for want, row := range map[string]struct {
		files map[string]string
		res   specs.LinuxResources
	}{
		"network classes":                {v2, specs.LinuxResources{Network: &specs.LinuxNetwork{ClassID: ptr(uint32(1))}}},
		"real-time":                      {v2, specs.LinuxResources{CPU: &specs.LinuxCPU{RealtimeRuntime: ptr(int64(1))}}},
		"memory.kernel)":                 {v2, specs.LinuxResources{Memory: &specs.LinuxMemory{Kernel: ptr(int64(1))}}},
		"kernelTCP":                      {v2, specs.LinuxResources{Memory: &specs.LinuxMemory{KernelTCP: ptr(int64(1))}}},
		"vm.swappiness":                  {v2, specs.LinuxResources{Memory: &specs.LinuxMemory{Swappiness: ptr(uint64(1))}}},
		"disableOOMKiller":               {v2, specs.LinuxResources{Memory: &specs.LinuxMemory{DisableOOMKiller: ptr(true)}}},
		"useHierarchy":                   {v2, specs.LinuxResources{Memory: &specs.LinuxMemory{UseHierarchy: ptr(false)}}},
		"memory has no limit":            {v2, specs.LinuxResources{Memory: &specs.LinuxMemory{Swap: ptr(int64(9000))}}},
		"memory's own limit 4096":        {limited, specs.LinuxResources{Memory: &specs.LinuxMemory{Swap: ptr(int64(4000))}}},
		"in use now":                     {v2, specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(4999)), CheckBeforeUpdate: ptr(true)}}},
		"leafWeight":                     {v2, specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{LeafWeight: ptr(uint16(10))}}},
		"neither io.bfq.weight":          {v2, specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{Weight: ptr(uint16(10))}}},
		"no rdma.max":                    {v2, specs.LinuxResources{Rdma: map[string]specs.LinuxRdma{"x": {HcaObjects: ptr(uint32(1))}}}},
		"neither hcaHandles":             {v2, specs.LinuxResources{Rdma: map[string]specs.LinuxRdma{"x": {}}}},
		"no hugetlb.2MB.max":             {v2, specs.LinuxResources{HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB"}}}},
		"\"../x.y\" is not the name":     {v2, specs.LinuxResources{Unified: map[string]string{"../x.y": "1"}}},
		"no nothing.max in":              {v2, specs.LinuxResources{Unified: map[string]string{"nothing.max": "1"}}},
		"memory.high (resources.unified": {v1, specs.LinuxResources{Unified: map[string]string{"memory.high": "1"}}},
		"no net_cls controller":          {v1, specs.LinuxResources{Network: &specs.LinuxNetwork{ClassID: ptr(uint32(1))}}},
		"no blkio.leaf_weight":           {v1, specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{LeafWeight: ptr(uint16(10))}}},
		"no blkio.weight or blkio.bfq":   {v1, specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{Weight: ptr(uint16(10))}}},
		"no memory.kmem.tcp":             {v1, specs.LinuxResources{Memory: &specs.LinuxMemory{KernelTCP: ptr(int64(1))}}},
		"no cpu.cfs_burst_us":            {v1, specs.LinuxResources{CPU: &specs.LinuxCPU{Burst: ptr(uint64(1))}}},
	} {
		if err := plain(t, row.files).Update(&row.res); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	g := plain(t, limited)
	if err := g.Update(&specs.LinuxResources{Memory: &specs.LinuxMemory{Swap: ptr(int64(5000))}}); err != nil || g.read(t, unified, "memory.swap.max") != "904" {
		t.Errorf("swap beside the limit of memory that there is: %v", err)
	}
	if got := quotaAndPeriod(plain(t, map[string]string{"cpu.max": "20000 100000"}), &specs.LinuxCPU{Period: ptr(uint64(50000))}); got != "20000 50000" {
		t.Errorf("a period alone: %q", got)
	}
}

// TestLimitsThatDependOnEachOther are taken in whatever order the kernel wants them, up and down.
func TestLimitsThatDependOnEachOther(t *testing.T) {
	g := group(t, nil)
	read := func(v1, v2 string) string {
		if g.pure() {
			return g.read(t, unified, v2)
		}
		return g.read(t, "cpu", v1)
	}
	for _, row := range [][3]int64{{50000, 100000, 20000}, {200000, 100000, 150000}, {10000, 100000, 5000}, {400000, 400000, 400000}, {5000, 10000, 1}} {
		res := &specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: &row[0], Period: ptr(uint64(row[1])), Burst: ptr(uint64(row[2]))}}
		if err := g.Update(res); err != nil {
			t.Errorf("%v: %v", row, err)
		} else if got := read("cpu.cfs_burst_us", "cpu.max.burst"); got != fmt.Sprint(row[2]) {
			t.Errorf("%v: a burst of %s", row, got)
		}
	}
	for _, idle := range []int64{1, 0} {
		if err := g.Update(&specs.LinuxResources{CPU: &specs.LinuxCPU{Idle: &idle, Shares: ptr(uint64(512))}}); err != nil {
			t.Error(err)
		}
		if got := read("cpu.idle", "cpu.idle"); got != fmt.Sprint(idle) {
			t.Errorf("idle is %s, not %d", got, idle)
		}
	}
	if got := read("cpu.shares", "cpu.weight"); got != "512" && got != "59" {
		t.Errorf("shares are %s after the group was idle", got)
	}
	if err := g.Update(&specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: ptr(int64(10)), Burst: ptr(uint64(1))}}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("a quota below the least: %v", err)
	}
}

// TestRareLimits of this kernel, where it has them.
func TestRareLimits(t *testing.T) {
	g := group(t, &specs.LinuxResources{Unified: map[string]string{"cgroup.max.depth": "3", "cgroup.max.descendants": "4"}})
	if _, ok := g.dirs[unified]; ok && g.read(t, unified, "cgroup.max.depth")+g.read(t, unified, "cgroup.max.descendants") != "34" {
		t.Error("files of the group itself were not written")
	}
	for _, row := range []struct {
		controller, file, want string
		res                    specs.LinuxResources
	}{
		{"memory", "memory.kmem.tcp.limit_in_bytes", "8192", specs.LinuxResources{Memory: &specs.LinuxMemory{KernelTCP: ptr(int64(8192))}}},
		{"memory", "memory.oom_control", "oom_kill_disable 1", specs.LinuxResources{Memory: &specs.LinuxMemory{DisableOOMKiller: ptr(true)}}},
		{"blkio", "blkio.bfq.weight", "300", specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{Weight: ptr(uint16(300))}}},
		{unified, "io.bfq.weight", "default 300", specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{Weight: ptr(uint16(300))}}},
		{"pids", "pids.max", "1", specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(0))}}},
		{unified, "memory.high", "12288", specs.LinuxResources{Unified: map[string]string{"memory.high": "12288"}}},
	} {
		if dir, ok := g.dirs[row.controller]; !ok || !exists(filepath.Join(dir, row.file)) {
			continue // the other version's
		}
		if err := g.Update(&row.res); err != nil || !strings.HasPrefix(g.read(t, row.controller, row.file), row.want) {
			t.Errorf("%s: %v, want %s", row.file, err, row.want)
		}
	}
}
