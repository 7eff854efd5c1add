package monitor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/cgroup"
	containers "wherry.dev/wherry/internal/container"
	"wherry.dev/wherry/internal/event"
	"wherry.dev/wherry/internal/rootfs"
)

const (
	base  = 0x20000000
	group = "/wherry-monitor-test"
)

// one is a container: a process in a control group, with ids of a container's range.
type one struct{ view containers.View }

func (c *one) View(context.Context, string) (containers.View, error) {
	v := c.view
	if v.Running {
		fd, err := unix.PidfdOpen(v.Pid, 0)
		if err != nil {
			return v, err
		}
		v.Init = os.NewFile(uintptr(fd), "pidfd")
	}
	return v, nil
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func run(t *testing.T, script string) (*Service, *one, *exec.Cmd) {
	t.Helper()
	g, err := cgroup.Create(group+"-"+strconv.Itoa(os.Getpid())+"/"+t.Name(), nil)
	must(t, err)
	cmd := exec.Command("sh", "-c", "read gate; "+script)
	cmd.SysProcAttr = &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Credential: credential(base + 33)}
	gate, err := cmd.StdinPipe()
	must(t, err, cmd.Start())
	t.Cleanup(func() {
		_ = g.Kill()
		_ = cmd.Wait()
		must(t, g.WaitEmpty(context.WithoutCancel(t.Context())), g.Delete())
		if parent, err := cgroup.Open(group + "-" + strconv.Itoa(os.Getpid())); err == nil {
			_ = parent.Delete()
		}
	})
	must(t, g.Add(cmd.Process.Pid), gate.Close())
	c := &one{view: containers.View{
		ID: "c", Name: "name", Running: true, Pid: cmd.Process.Pid, Cgroup: g, HostConfig: &container.HostConfig{},
		Rootfs: rootfs.Rootfs{IDMap: rootfs.IDMap{Base: base, Size: 65536}},
	}}
	return New(c, event.New()), c, cmd
}

func TestTop(t *testing.T) {
	s, c, cmd := run(t, "sleep 1000; :")
	pid := strconv.Itoa(cmd.Process.Pid)
	waitFor(t, func() bool { pids, err := c.view.Cgroup.Procs(); return err == nil && len(pids) == 2 })
	find := func(args string) (container.TopResponse, []string) {
		top, err := s.Top(t.Context(), "c", args)
		must(t, err)
		if len(top.Processes) != 2 {
			t.Errorf("%q: %q", args, top.Processes)
		}
		at := slices.Index(top.Titles, "PID")
		for _, p := range top.Processes {
			if p[at] == pid {
				return top, p
			}
		}
		t.Fatalf("%q: the process is missing in %q", args, top)
		return top, nil
	}
	told := make(chan events.Message, 16)
	ctx, cancel := context.WithCancel(t.Context())
	listening := make(chan error, 1)
	go func() {
		listening <- s.events.Subscribe(ctx, time.Unix(1, 0), time.Time{}, func(m events.Message) error { told <- m; return nil })
	}()
	top, p := find("")
	if m := <-told; m.Action != events.ActionTop || m.Actor.ID != "c" || m.Actor.Attributes["name"] != "name" {
		t.Errorf("event: %+v", m)
	}
	cancel()
	<-listening
	if !slices.Equal(top.Titles, strings.Fields("UID PID PPID C STIME TTY TIME CMD")) || p[0] != "33" || p[7] != "sh -c read gate; sleep 1000; :" {
		t.Errorf("%q %q", top.Titles, p)
	}
	if _, p = find("aux"); p[0] != "33" || p[len(p)-1] != "sh -c read gate; sleep 1000; :" {
		t.Errorf("aux: %q", p)
	}
	if top, p = find("-o uid,pid,args"); len(top.Titles) != 3 || p[0] != "33" {
		t.Errorf("-o: %q %q", top.Titles, p)
	}
	for args, text := range map[string]string{"-o user": "PID is missing", "--nonsense": "ps --nonsense"} {
		if _, err := s.Top(t.Context(), "c", args); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v", args, err)
		}
	}
	pids, err := c.view.Cgroup.Procs()
	must(t, err)
	own, err := builtin(&c.view, pids)
	must(t, err)
	for i, line := range own.Processes { // the built-in table says what ps says
		ps, err := pick(psOf(t, line[1]), pids)
		must(t, err)
		if line[0] != "33" || line[2] != ps.Processes[0][2] || !sameMinute(line[4], ps.Processes[0][4]) || line[7] != ps.Processes[0][7] {
			t.Errorf("%d: %q, ps says %q", i, line, ps.Processes[0])
		}
	}
	c.view.Running = false
	if _, err := s.Top(t.Context(), "c", ""); !errdefs.IsConflict(err) || !strings.Contains(err.Error(), "is not running") {
		t.Errorf("of a stopped container: %v", err)
	}
}

// TestTopShowsNobodyElse: no choice of columns has another process of the host taken for one of the container's.
func TestTopShowsNobodyElse(t *testing.T) {
	s, c, cmd := run(t, "sleep 1000; :")
	waitFor(t, func() bool { pids, err := c.view.Cgroup.Procs(); return err == nil && len(pids) == 2 })
	other := exec.Command("sleep", "7777")
	must(t, other.Start())
	t.Cleanup(func() { _, _ = other.Process.Kill(), other.Wait() })
	pid := strconv.Itoa(cmd.Process.Pid)
	for _, args := range []string{
		"-eo ppid=PID,args --sort=pid", "-eo etimes=PID --sort=pid -o args", "--forest -eo args,pid,args", "-eo lstart,stat,stat,stat,pid,args --sort=pid",
		"--sort=pid --format=ppid=PID -o args", "axk pid -o lstart,pid,args", "-N -eo comm,pid,args", "-q " + strconv.Itoa(other.Process.Pid) + " -o ppid=PID -o args",
		"-q " + strconv.Itoa(os.Getpid()) + " -o comm,pid,args",
	} {
		if top, err := s.Top(t.Context(), "c", args); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %q, %v", args, top.Processes, err)
		}
	}
	for _, args := range []string{"-ef --sort=-rss", "aux --sort=-pcpu", "-eo pid,lstart,args --sort=pid", "-eo user,pid,args --forest", "axjf", "-eLf --sort=pid"} {
		top, err := s.Top(t.Context(), "c", args)
		must(t, err)
		text := fmt.Sprint(top.Processes)
		if len(top.Processes) != 2 || strings.Contains(text, "7777") || !strings.Contains(text, pid) {
			t.Errorf("%s: %q", args, top.Processes)
		}
	}
}

func TestReveals(t *testing.T) {
	for args, want := range map[string]bool{
		"": false, "-ef": false, "aux": false, "-eo pid,etime,args": false, "-o pid,user,time": false, "aux --sort=-rss": false, "--sort=etime -fA": false,
		"e": true, "axe": true, "auxeww": true, "-axeww": true, "-efaux": true, "-ef aux": true, "-o pid,environ": true, "-eo environ": true, "--format=pid,environ": true, "-C o axe": true,
		"-eo pid e": true, "-C -o axe": true, "-A e": true,
	} {
		if got := Reveals(args); got != want {
			t.Errorf("%q: %v", args, got)
		}
	}
}

func psOf(t *testing.T, pid string) string {
	t.Helper()
	out, err := exec.Command("ps", "-f", "-q", pid).Output()
	must(t, err)
	return string(out)
}

func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	for range 6000 {
		if ok() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("it does not come")
}

func TestStats(t *testing.T) {
	s, c, cmd := run(t, `x=$(head -c 1000000 /dev/zero | tr '\0' x); while :; do :; done`)
	var list []container.StatsResponse
	collect := func(r container.StatsResponse) error { list = append(list, r); return nil }
	waitFor(t, func() bool {
		list = nil
		must(t, s.Stats(t.Context(), "c", false, true, collect))
		return list[0].CPUStats.CPUUsage.TotalUsage > 0 && list[0].MemoryStats.Usage > 0 && list[0].PidsStats.Current == 1
	})
	if len(list) != 1 || !list[0].PreRead.IsZero() {
		t.Fatalf("one shot: %+v", list)
	}
	r := list[0]
	if r.ID != "c" || r.Name != "/name" || r.OSType != "linux" || r.PidsStats.Current != 1 || r.MemoryStats.Usage == 0 || r.MemoryStats.Limit == 0 ||
		r.CPUStats.OnlineCPUs != uint32(runtime.NumCPU()) || r.CPUStats.SystemUsage == 0 {
		t.Errorf("%+v", r)
	}
	if m := r.MemoryStats.Stats; m[StatAnonymous] == 0 || m[StatAnonymous]+m[StatFile]+m[StatShmem] > r.MemoryStats.Usage+8<<20 {
		t.Errorf("memory by what it is for: %v of %d", m, r.MemoryStats.Usage)
	}
	if len(r.Networks) != 0 {
		t.Errorf("a namespace with nothing but the loopback: %+v", r.Networks)
	}
	list = nil
	must(t, s.Stats(t.Context(), "c", false, false, collect))
	if r := list[0]; len(list) != 1 || r.PreRead.IsZero() || r.CPUStats.CPUUsage.TotalUsage <= r.PreCPUStats.CPUUsage.TotalUsage || r.CPUStats.SystemUsage <= r.PreCPUStats.SystemUsage {
		t.Errorf("with the sample before: %+v", list)
	}
	list = nil
	stop := errors.New("enough")
	err := s.Stats(t.Context(), "c", true, false, func(r container.StatsResponse) error {
		if list = append(list, r); len(list) == 2 {
			return stop
		}
		return nil
	})
	if !errors.Is(err, stop) || list[1].PreRead != list[0].Read {
		t.Errorf("stream: %v %+v", err, list)
	}
	n := 0
	must(t, s.Stats(t.Context(), "c", true, false, func(container.StatsResponse) error {
		n++
		return cmd.Process.Kill()
	}))
	if n != 1 {
		t.Errorf("%d samples of a container that ended after the first", n)
	}
	list, c.view.Running = nil, false
	must(t, s.Stats(t.Context(), "c", true, false, collect))
	if len(list) != 1 || !list[0].Read.IsZero() || list[0].ID != "c" {
		t.Errorf("stopped: %+v", list)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	must(t, s.Stats(ctx, "c", true, false, collect))
}

// TestSplit: of both versions, whose files have shared memory in them.
func TestSplit(t *testing.T) {
	want := Split{Anonymous: 1, File: 20, Shmem: 3}
	for name, stat := range map[string]map[string]uint64{
		"version 2": {"anon": 1, "file": 23, "shmem": 3},
		"version 1": {"total_rss": 1, "total_cache": 23, "total_shmem": 3, "rss": 7, "cache": 7, "shmem": 7},
	} {
		if got := splitOf(stat); got != want {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if got := splitOf(map[string]uint64{"anon": 1, "file": 2, "shmem": 3}); got.File != 0 { // they are not read at the same moment
		t.Errorf("%+v", got)
	}
}

func TestNetDev(t *testing.T) {
	got := parseNetDev(`Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     100       1    0    0    0     0          0         0      100       1    0    0    0     0       0          0
  eth0:18446744073709551615       2    3    4    0     0          0         0       5       6    7    8    0     0       0          0
broken: 1 2
`)
	want := container.NetworkStats{RxBytes: 1<<64 - 1, RxPackets: 2, RxErrors: 3, RxDropped: 4, TxBytes: 5, TxPackets: 6, TxErrors: 7, TxDropped: 8}
	if len(got) != 1 || got["eth0"] != want {
		t.Errorf("%+v", got)
	}
}

func TestProcessLines(t *testing.T) {
	line := "7 (a (b) c) S 3 7 7 34818 7 4194304 1 0 0 0 150 50 0 0 20 0 1 0 360000 1 1 1"
	p, err := parseStat(line)
	if err != nil || p.parent != 3 || p.cpu != 2*time.Second || p.started != time.Hour || p.command != "[a (b) c]" {
		t.Errorf("%+v %v", p, err)
	}
	now := clock{now: time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC), uptime: time.Hour + 10*time.Second}
	if got := p.columns(now); !slices.Equal(got, []string{"3", "20", "11:59", "pts/2", "00:00:02", "[a (b) c]"}) {
		t.Errorf("%q", got)
	}
	now.uptime += 48 * time.Hour
	if got := p.columns(now); got[2] != "Dec31" {
		t.Errorf("%q", got)
	}
	for _, bad := range []string{"", "7 sh", "7 (sh) S 1", ")("} {
		if _, err := parseStat(bad); err == nil {
			t.Errorf("%q is read", bad)
		}
	}
}

func TestPick(t *testing.T) {
	top, err := pick("  PID   LWP CMD\n    1     - a  b\n    -    11 t\n    2     - other\n    -    21 t\n   12    12 x\n", []int{1, 12})
	want := [][]string{{"1", "-", "a  b"}, {"-", "11", "t"}, {"12", "12", "x"}}
	if err != nil || !slices.EqualFunc(top.Processes, want, slices.Equal[[]string]) {
		t.Errorf("%q, %v", top.Processes, err)
	}
}

// TestLongArgumentsAreBounded: a container's processes choose their own arguments, which the engine neither keeps nor waits for without end.
func TestLongArgumentsAreBounded(t *testing.T) {
	_, _, cmd := run(t, "sleep 1000; : "+strings.Repeat("x", 100<<10))
	waitFor(t, func() bool {
		p, err := readProcess(cmd.Process.Pid)
		return err == nil && len(p.command) == maxCommand && strings.HasPrefix(p.command, "sh -c")
	})
	if _, err := output(t.Context(), "/bin/sh", []string{"-c", "exec head -c 100000000 /dev/zero"}); !errors.Is(err, errTooMuch) {
		t.Errorf("100 MB of ps: %v", err)
	}
	if out, err := output(t.Context(), "/bin/sh", []string{"-c", "echo table"}); err != nil || out != "table\n" {
		t.Errorf("%q %v", out, err)
	}
}

// FuzzStat reads lines of /proc/PID/stat, in which the name is the process's own choice.
func FuzzStat(f *testing.F) {
	f.Add("7 (a (b) c) S 3 7 7 34818 7 4194304 1 0 0 0 150 50 0 0 20 0 1 0 360000 1 1 1")
	f.Add("7 (x) R 1) S 3")
	f.Add(")(")
	f.Fuzz(func(t *testing.T, line string) {
		p, err := parseStat(line)
		if err == nil {
			_ = p.columns(clock{now: time.Unix(0, 0), uptime: time.Hour})
		}
	})
}

// FuzzPick picks processes out of tables that hold anything.
func FuzzPick(f *testing.F) {
	f.Add("PID CMD\n1 a\n- t\n2 b")
	f.Add("")
	f.Add("CMD PID\n\n1")
	f.Fuzz(func(t *testing.T, table string) {
		top, err := pick(table, []int{1})
		if err == nil {
			inside(&top, rootfs.IDMap{Base: 1, Size: 2}, false)
		}
	})
}

// FuzzNetDev reads counters, in which interfaces have names of a container's choice.
func FuzzNetDev(f *testing.F) {
	f.Add("eth0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n")
	f.Add("a:b: 18446744073709551616 -1\n: : :")
	f.Fuzz(func(t *testing.T, text string) {
		if got := parseNetDev(text); len(got) > strings.Count(text, ":") {
			t.Errorf("%q: %v", text, got)
		}
	})
}

// sameMinute compares starts: ps and the kernel round the boot's time differently, which a minute's turn shows.
func sameMinute(a, b string) bool {
	at, err := time.Parse("15:04", a)
	other, err2 := time.Parse("15:04", b)
	if err != nil || err2 != nil {
		return a == b
	}
	apart := at.Sub(other).Abs()
	return apart <= time.Minute || apart >= 24*time.Hour-time.Minute
}
