package cgroup

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func nullOnly() []specs.LinuxDeviceCgroup {
	return []specs.LinuxDeviceCgroup{
		{Allow: false, Access: "rwm"},
		{Allow: true, Type: "c", Major: ptr(int64(1)), Minor: ptr(int64(3)), Access: "rw"},
		{Allow: true, Type: "c", Major: ptr(int64(1)), Minor: ptr(int64(8)), Access: "r"},
	}
}

const tryDevices = `
echo x >/dev/null && echo null-written
head -c1 /dev/zero >/dev/null && echo zero-read
head -c1 /dev/random >/dev/null && echo random-read
{ echo x >/dev/random; } 2>/dev/null && echo random-written
`

func checkDevices(t *testing.T, g *Group) {
	t.Helper()
	cmd := start(t, g, tryDevices)
	_ = cmd.Wait()
	got := output(cmd)
	for text, want := range map[string]bool{"null-written": true, "zero-read": false, "random-read": true, "random-written": false} {
		if strings.Contains(got, text) != want {
			t.Errorf("%s should be %v: %q", text, want, got)
		}
	}
}

func TestDeviceRules(t *testing.T) {
	checkDevices(t, group(t, &specs.LinuxResources{Devices: nullOnly()}))
}

// The cgroup2 tree takes a device program whether or not it has controllers.
func TestDeviceProgram(t *testing.T) {
	g := group(t, nil)
	dir, ok := g.Dir()
	if !ok {
		t.Skip("no cgroup2 tree is mounted here")
	}
	v2 := &Group{path: g.path, dirs: map[string]string{unified: dir}}
	if err := v2.Update(&specs.LinuxResources{Devices: nullOnly()}); err != nil {
		t.Fatal(err)
	}
	checkDevices(t, v2)
	// A second set of rules takes the first one's place.
	all := []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}
	if err := v2.Update(&specs.LinuxResources{Devices: all}); err != nil {
		t.Fatal(err)
	}
	cmd := start(t, v2, tryDevices)
	_ = cmd.Wait()
	if !strings.Contains(output(cmd), "zero-read") {
		t.Errorf("the first rules still hold: %q", output(cmd))
	}
}

// Where a kernel has its controllers in v1, the files of v2 are plain ones here: what is written to which.
func TestV2Files(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "a", "b")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"cpu.weight", "cpu.max", "cpuset.cpus", "memory.max", "memory.swap.max", "memory.low", "pids.max", "io.max", "io.weight", "hugetlb.2MB.max", "memory.high"} {
		if err := os.WriteFile(filepath.Join(dir, file), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	g, err := openBelow(map[string]string{unified: root}, "/a/b")
	if err != nil {
		t.Fatal(err)
	}
	err = g.Update(&specs.LinuxResources{
		Memory:         &specs.LinuxMemory{Limit: ptr(int64(64 << 20)), Swap: ptr(int64(96 << 20)), Reservation: ptr(int64(1 << 20))},
		CPU:            &specs.LinuxCPU{Shares: ptr(uint64(1024)), Quota: ptr(int64(50000)), Cpus: "0-1"},
		Pids:           &specs.LinuxPids{Limit: ptr(int64(0))},
		BlockIO:        &specs.LinuxBlockIO{Weight: ptr(uint16(300)), ThrottleWriteIOPSDevice: []specs.LinuxThrottleDevice{throttle(8, 16, 77)}},
		HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 4 << 20}},
		Unified:        map[string]string{"memory.high": "12345"},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"memory.max": "67108864", "memory.swap.max": "33554432", "memory.low": "1048576", "cpu.weight": "100", "cpu.max": "50000 100000",
		"cpuset.cpus": "0-1", "pids.max": "max", "io.max": "8:16 wiops=77", "io.weight": "default 2930", "hugetlb.2MB.max": "4194304", "memory.high": "12345"}
	for file, value := range want {
		if got := g.read(t, unified, file); got != value {
			t.Errorf("%s: %q, want %q", file, got, value)
		}
	}
}

// Lowest, default and highest are the same in both versions; 2000 is what runc's issue 4896 has.
func TestWeights(t *testing.T) {
	for shares, want := range map[uint64]uint64{0: 1, 2: 1, 512: 59, 1024: 100, 2000: 170, 262144: 10000, 1 << 40: 10000} {
		if got := Weight(shares); got != want {
			t.Errorf("%d shares are weight %d, want %d", shares, got, want)
		}
	}
	for weight, want := range map[uint16]uint64{1: 1, 10: 1, 500: 4950, 1000: 10000} {
		if got := IOWeight(weight); got != want {
			t.Errorf("the I/O weight %d is %d, want %d", weight, got, want)
		}
	}
}
