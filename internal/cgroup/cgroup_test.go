package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// group makes one of the test's own, and sees to it that nothing stays.
func group(t *testing.T, res *specs.LinuxResources) *Group {
	t.Helper()
	g, err := Create(fmt.Sprintf("/wherry-test-%d/%s", os.Getpid(), t.Name()), res)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Kill(); err != nil {
			t.Error(err)
		}
		if err := g.WaitEmpty(t.Context()); err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if err := g.Delete(); err != nil {
			t.Error(err)
		}
		for name, dir := range g.Dirs() {
			if exists(dir) {
				t.Errorf("%s is left of %q", dir, name)
			}
			_ = os.Remove(filepath.Dir(dir))
		}
	})
	return g
}

// start runs a script whose first process waits until it is in the group.
func start(t *testing.T, g *Group, script string) *exec.Cmd {
	t.Helper()
	gate, release, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/bin/sh", "-c", "read go <&3; exec 3<&-; "+script)
	cmd.ExtraFiles = []*os.File{gate}
	out, err := os.CreateTemp(t.TempDir(), "output") // no pipe: Wait would wait for all who hold it
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	gate.Close()
	if err := g.Add(cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	if _, err := release.WriteString("go\n"); err != nil {
		t.Fatal(err)
	}
	release.Close()
	return cmd
}

func output(cmd *exec.Cmd) string {
	b, err := os.ReadFile(cmd.Stdout.(*os.File).Name())
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func ptr[T any](v T) *T { return &v }

func (g *Group) read(t *testing.T, controller, file string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(g.dirs[controller], file))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

func TestLimitsReachTheKernel(t *testing.T) {
	if host, err := Open("/x"); err == nil && host.pure() {
		t.Skip("the files are v1's; TestLiveUpdate and TestRareLimits have v2's")
	}
	g := group(t, &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: ptr(int64(64 << 20)), Swap: ptr(int64(96 << 20)), Reservation: ptr(int64(32 << 20)), Swappiness: ptr(uint64(7))},
		CPU:    &specs.LinuxCPU{Shares: ptr(uint64(512)), Quota: ptr(int64(50000)), Period: ptr(uint64(100000)), Cpus: "0"},
		Pids:   &specs.LinuxPids{Limit: ptr(int64(50))},
	})
	want := []struct{ controller, file, value string }{
		{"memory", "memory.limit_in_bytes", "67108864"}, {"memory", "memory.memsw.limit_in_bytes", "100663296"},
		{"memory", "memory.soft_limit_in_bytes", "33554432"}, {"memory", "memory.swappiness", "7"},
		{"cpu", "cpu.shares", "512"}, {"cpu", "cpu.cfs_quota_us", "50000"}, {"cpu", "cpu.cfs_period_us", "100000"},
		{"cpuset", "cpuset.cpus", "0"}, {"cpuset", "cpuset.mems", "0"}, {"pids", "pids.max", "50"},
	}
	for _, w := range want {
		if got := g.read(t, w.controller, w.file); got != w.value {
			t.Errorf("%s is %s, want %s", w.file, got, w.value)
		}
	}
	// Both up and both down again: each order of writes is refused in one of the two directions.
	for _, mib := range []int64{256, 16} {
		err := g.Update(&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(mib << 20), Swap: ptr(mib << 20)}})
		if err != nil {
			t.Fatal(err)
		}
		if got := g.read(t, "memory", "memory.memsw.limit_in_bytes"); got != fmt.Sprint(mib<<20) {
			t.Errorf("memory and swap are %s after an update to %d MiB", got, mib)
		}
	}
	if err := g.Update(&specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(-1))}}); err != nil {
		t.Fatal(err)
	}
	if got := g.read(t, "pids", "pids.max"); got != "max" {
		t.Errorf("pids.max is %s after the limit was taken away", got)
	}
	if got := g.read(t, "cpu", "cpu.shares"); got != "512" {
		t.Errorf("an update that did not name CPU shares changed them to %s", got)
	}
}

func TestRefusedLimitNamesFile(t *testing.T) {
	rows := map[string]struct {
		res  specs.LinuxResources
		file string
	}{
		"quota below the minimum": {specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: ptr(int64(10))}}, "cpu"},
		"processor not there":     {specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "4000"}}, "cpuset.cpus"},
		"nonsense processors":     {specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "abc"}}, "cpuset.cpus"},
		"no such device":          {specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{ThrottleReadBpsDevice: []specs.LinuxThrottleDevice{throttle(4000, 1, 1024)}}}, blockFile()},
	}
	for name, row := range rows {
		path := fmt.Sprintf("/wherry-test-%d-refused", os.Getpid())
		g, err := Create(path, &row.res)
		if err == nil {
			_ = g.Delete()
			t.Errorf("%s: no error", name)
			continue
		}
		if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), row.file) {
			t.Errorf("%s: %v", name, err)
		}
		o, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, dir := range o.Dirs() {
			if exists(dir) {
				t.Errorf("%s: %s is left behind", name, dir)
			}
		}
	}
}

// blockFile is part of the name of the file that limits reads.
func blockFile() string {
	if g, err := Open("/x"); err == nil && g.pure() {
		return "io.max"
	}
	return "read_bps"
}

func throttle(major, minor int64, rate uint64) specs.LinuxThrottleDevice {
	d := specs.LinuxThrottleDevice{Rate: rate}
	d.Major, d.Minor = major, minor
	return d
}

func TestMemoryBelowUseIsRefused(t *testing.T) {
	g := group(t, &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(256 << 20)), Swap: ptr(int64(256 << 20))}})
	cmd := start(t, g, `x=$(head -c 50000000 /dev/zero | tr '\0' a); sleep 1000; echo $x`)
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if s, err := g.Stats(); err == nil && s.Memory > 45<<20 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the shell does not fill its memory")
		}
	}
	err := g.Update(&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(8 << 20)), Swap: ptr(int64(8 << 20))}})
	_ = g.Kill()
	_ = cmd.Wait()
	if g.pure() {
		return // v2 takes it and kills
	}
	if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "in use") || !strings.Contains(err.Error(), "memory.") {
		t.Fatalf("memory lowered below what is used: %v", err)
	}
}

func TestKillTakesForksAndGrandchildren(t *testing.T) {
	g := group(t, &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(60))}})
	cmd := start(t, g, `f() { sleep 1000 & setsid sh -c 'while :; do sleep 1000 & sleep 0.01; done' & }; f; f; f; wait`)
	for {
		if pids, err := g.Procs(); err != nil || len(pids) > 10 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if populated, err := g.Populated(); err != nil || !populated {
		t.Fatalf("populated %v, %v", populated, err)
	}
	if err := g.Delete(); err == nil {
		t.Fatal("a group with processes was deleted")
	}
	if _, err := Create(g.Path(), nil); !errdefs.IsAlreadyExists(err) {
		t.Fatalf("a group in use was given away: %v", err)
	}
	if err := g.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if err := g.WaitEmpty(t.Context()); err != nil {
		t.Fatal(err)
	}
	if pids, err := g.Procs(); err != nil || len(pids) > 0 {
		t.Fatalf("left after the kill: %v, %v", pids, err)
	}
}

func TestFreezeStopsTheClock(t *testing.T) {
	g := group(t, nil)
	cmd := start(t, g, `while :; do :; done`)
	if err := g.Freeze(t.Context()); err != nil {
		t.Fatal(err)
	}
	used := func() time.Duration {
		s, err := g.Stats()
		if err != nil {
			t.Fatal(err)
		}
		return s.CPUUsage
	}
	before := used()
	time.Sleep(30 * time.Millisecond)
	if after := used(); after != before {
		t.Errorf("a frozen group used %v of CPU", after-before)
	}
	if err := g.Thaw(t.Context()); err != nil {
		t.Fatal(err)
	}
	for used() == before {
		time.Sleep(time.Millisecond)
	}
	if err := g.Freeze(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := g.Kill(); err != nil { // a frozen group can be killed
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if err := g.WaitEmpty(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestMemoryLimitKills(t *testing.T) {
	g := group(t, &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(16 << 20)), Swap: ptr(int64(16 << 20))}})
	if n, err := g.OOMKills(); err != nil || n != 0 {
		t.Fatalf("%d kills before, %v", n, err)
	}
	cmd := start(t, g, "exec /bin/busybox tail /dev/zero")
	if err := cmd.Wait(); err == nil {
		t.Fatal("a process that reads /dev/zero into memory ended well")
	}
	if n, err := g.OOMKills(); err != nil || n != 1 {
		t.Fatalf("%d kills, %v", n, err)
	}
	s, err := g.Stats()
	if err != nil || s.MemoryPeak < 12<<20 || s.MemoryPeak > 17<<20 || s.MemoryLimit != 16<<20 {
		t.Fatalf("%+v, %v", s, err)
	}
}

// TestATenthOfACPU: as little as a busy host has left for two loops, so that the group is held back there, too.
func TestATenthOfACPU(t *testing.T) {
	g := group(t, &specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: ptr(int64(5000)), Period: ptr(uint64(50000))}})
	cmd := start(t, g, `while :; do :; done & while :; do :; done`)
	begin, err := g.Stats()
	if err != nil {
		t.Fatal(err)
	}
	end := begin
	// A second of periods, since the first and the last one may be counted though they are cut off. A busy host takes longer.
	for deadline := time.Now().Add(2 * time.Minute); end.ThrottledPeriods < 20 && time.Now().Before(deadline); {
		time.Sleep(100 * time.Millisecond)
		if end, err = g.Stats(); err != nil {
			t.Fatal(err)
		}
	}
	_ = g.Kill()
	_ = cmd.Wait()
	share := float64(end.CPUUsage-begin.CPUUsage) / float64(end.Time.Sub(begin.Time))
	if share > 0.15 || end.ThrottledPeriods < 20 {
		t.Fatalf("two loops used %.2f CPUs, throttled %d times", share, end.ThrottledPeriods)
	}
}

func TestPidsLimitHolds(t *testing.T) {
	g := group(t, &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(5))}})
	cmd := start(t, g, `for i in 1 2 3 4 5 6 7 8 9; do sleep 100 & done; wait`)
	_ = cmd.Wait()
	s, err := g.Stats()
	if err != nil || s.PidsLimit != 5 || s.Pids > 5 || s.Pids < 3 {
		t.Fatalf("%d processes of %d, %v", s.Pids, s.PidsLimit, err)
	}
	if !strings.Contains(output(cmd), "fork") {
		t.Fatalf("the shell did not complain: %q", output(cmd))
	}
}

// TestNoProcesses is the limit of a first process that makes no other.
func TestNoProcesses(t *testing.T) {
	g := group(t, &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(0))}})
	if s, err := g.Stats(); err != nil || s.PidsLimit != 1 {
		t.Fatalf("a limit of %d processes, %v", s.PidsLimit, err)
	}
}

func TestOpenTakesCleanAbsolutePathsOnly(t *testing.T) {
	for _, path := range []string{"", "/", "relative", "/a/../b", "/a//b", "/a/"} {
		if _, err := Open(path); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %v", path, err)
		}
	}
	g, err := Open("/wherry-test-none/at-all")
	if err != nil {
		t.Fatal(err)
	}
	if err := g.WaitEmpty(t.Context()); err != nil {
		t.Error(err)
	}
	if err := g.Kill(); err != nil {
		t.Error(err)
	}
	if err := g.Delete(); err != nil {
		t.Error(err)
	}
	if _, err := g.Stats(); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

// TestLiveUpdate changes every limit of a group with a process in it, there and back, and leaves the others alone.
func TestLiveUpdate(t *testing.T) {
	g := group(t, &specs.LinuxResources{CPU: &specs.LinuxCPU{Shares: ptr(uint64(1024)), Quota: ptr(int64(50000)), Period: ptr(uint64(100000))}, Pids: &specs.LinuxPids{Limit: ptr(int64(50))}})
	cmd := start(t, g, "sleep 1000")
	defer func() { _ = g.Kill(); _ = cmd.Wait() }()
	disk := blockDevice(t)
	type file struct{ v1controller, v1, v2, value1, value2 string }
	rows := []struct {
		res   specs.LinuxResources
		files []file
	}{
		{specs.LinuxResources{CPU: &specs.LinuxCPU{Shares: ptr(uint64(2048))}}, []file{{"cpu", "cpu.shares", "cpu.weight", "2048", "174"}, {"cpu", "cpu.cfs_quota_us", "cpu.max", "50000", "50000 100000"}}},
		{specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: ptr(int64(150000)), Period: ptr(uint64(100000))}}, []file{{"cpu", "cpu.cfs_quota_us", "cpu.max", "150000", "150000 100000"}}},
		{specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: ptr(int64(-1)), Period: ptr(uint64(100000))}}, []file{{"cpu", "cpu.cfs_quota_us", "cpu.max", "-1", "max 100000"}}},
		{specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "0"}}, []file{{"cpuset", "cpuset.cpus", "cpuset.cpus", "0", "0"}}},
		{specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(7))}}, []file{{"pids", "pids.max", "pids.max", "7", "7"}}},
		{specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(-1))}}, []file{{"pids", "pids.max", "pids.max", "max", "max"}}},
		{specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(64 << 20)), Swap: ptr(int64(64 << 20))}}, []file{{"memory", "memory.limit_in_bytes", "memory.max", "67108864", "67108864"}}},
		{specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(128 << 20)), Swap: ptr(int64(-1))}}, []file{{"memory", "memory.limit_in_bytes", "memory.max", "134217728", "134217728"}}},
	}
	if disk != nil {
		limit := specs.LinuxThrottleDevice{Rate: 1 << 20}
		limit.Major, limit.Minor = disk[0], disk[1]
		value := fmt.Sprintf("%d:%d", disk[0], disk[1])
		rows = append(rows, struct {
			res   specs.LinuxResources
			files []file
		}{specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{ThrottleReadBpsDevice: []specs.LinuxThrottleDevice{limit}}},
			[]file{{"blkio", "blkio.throttle.read_bps_device", "io.max", value + " 1048576", value + " rbps=1048576 wbps=max riops=max wiops=max"}}})
	}
	for _, row := range rows {
		if err := g.Update(&row.res); err != nil {
			t.Errorf("%+v: %v", row.files, err)
			continue
		}
		for _, f := range row.files {
			controller, name, want := f.v1controller, f.v1, f.value1
			if g.pure() {
				controller, name, want = unified, f.v2, f.value2
			}
			if got := g.read(t, controller, name); got != want {
				t.Errorf("%s is %q, not %q", name, got, want)
			}
		}
	}
}

// blockDevice is a disk of the machine, nil without one.
func blockDevice(t *testing.T) []int64 {
	t.Helper()
	list, err := filepath.Glob("/sys/block/*/dev")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range list {
		b, err := os.ReadFile(f)
		if err != nil || strings.Contains(f, "loop") || strings.Contains(f, "ram") {
			continue
		}
		if major, minor, ok := deviceNumber(strings.TrimSpace(string(b))); ok {
			return []int64{int64(major), int64(minor)}
		}
	}
	return nil
}
