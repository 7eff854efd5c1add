package container

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/blkiodev"
	"github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/access"
)

func TestRename(t *testing.T) {
	e := newEngine(t)
	ctx := context.Background()
	id, other := e.create(request{name: "first"}), e.create(request{name: "other"})
	for name, class := range map[string]func(error) bool{"other": errdefs.IsConflict, "first": errdefs.IsInvalidArgument, "a/b": errdefs.IsInvalidArgument, "x": errdefs.IsInvalidArgument} {
		if err := e.Rename(ctx, id, name); !class(err) {
			t.Errorf("to %q: %v", name, err)
		}
	}
	if err := e.Rename(ctx, id, "second"); err != nil {
		t.Fatal(err)
	}
	e.again()
	if r := e.rec("second"); r.ID != id {
		t.Errorf("second is %s", r.ID)
	}
	if err := e.Rename(ctx, other, "first"); err != nil {
		t.Errorf("the old name is free: %v", err)
	}
}

func TestUpdate(t *testing.T) {
	e := newEngine(t)
	ctx := context.Background()
	id := e.run(request{cmd: sh("sleep 3600"), h: container.HostConfig{Resources: container.Resources{Memory: 32 << 20}}})
	limit := int64(77)
	u := container.UpdateConfig{Resources: container.Resources{Memory: 48 << 20, PidsLimit: &limit, NanoCPUs: 5e8}, RestartPolicy: container.RestartPolicy{Name: "always"}}
	if _, err := e.Update(ctx, id, u); err != nil {
		t.Fatal(err)
	}
	h := e.rec(id).HostConfig
	if h.Memory != 48<<20 || h.MemorySwap != 64<<20 || *h.PidsLimit != 77 || h.NanoCPUs != 5e8 || !h.RestartPolicy.IsAlways() {
		t.Errorf("%+v", h)
	}
	for file, want := range map[string]string{"memory/memory.limit_in_bytes": "50331648", "pids/pids.max": "77", "cpu/cpu.cfs_quota_us": "50000"} {
		controller, name, _ := strings.Cut(file, "/")
		b, err := os.ReadFile(filepath.Join("/sys/fs/cgroup", controller, e.o.CgroupParent, id, name))
		if err == nil && strings.TrimSpace(string(b)) != want {
			t.Errorf("%s is %s, not %s", file, b, want)
		}
	}
	for _, bad := range []container.Resources{{Memory: 1}, {Memory: 128 << 20}, {CPUQuota: 1000}, {CpusetCpus: "77"}} {
		if _, err := e.Update(ctx, id, container.UpdateConfig{Resources: bad}); err == nil {
			t.Errorf("%+v is let through", bad)
		}
	}
	if e.rec(id).HostConfig.Memory != 48<<20 {
		t.Error("a refused update changed something")
	}
}

// TestUpdateRatesOfDevices: a list replaces the one before, also for what runs; an empty one lifts all, none leaves them.
func TestUpdateRatesOfDevices(t *testing.T) {
	e := newEngine(t)
	disk := "/dev/loop0"
	if _, _, err := blockDevice(disk); err != nil {
		t.Fatal(err)
	}
	id := e.run(request{cmd: sh("sleep 3600")})
	update := func(list []*blkiodev.ThrottleDevice) string {
		t.Helper()
		if _, err := e.Update(t.Context(), id, container.UpdateConfig{Resources: container.Resources{BlkioDeviceReadBps: list}}); err != nil {
			t.Fatal(err)
		}
		for _, file := range []string{filepath.Join("/sys/fs/cgroup/blkio", e.o.CgroupParent, id, "blkio.throttle.read_bps_device"), filepath.Join("/sys/fs/cgroup", e.o.CgroupParent, id, "io.max")} {
			if b, err := os.ReadFile(file); err == nil {
				return string(b)
			}
		}
		t.Fatal("no controller of block I/O is where this test looks")
		return ""
	}
	if got := update([]*blkiodev.ThrottleDevice{{Path: disk, Rate: 1 << 20}}); !strings.Contains(got, "1048576") {
		t.Errorf("a rate is %q", got)
	}
	if got := update(nil); !strings.Contains(got, "1048576") || len(e.rec(id).HostConfig.BlkioDeviceReadBps) != 1 {
		t.Errorf("without a list it is %q", got)
	}
	if got := update([]*blkiodev.ThrottleDevice{}); strings.Contains(got, "1048576") || len(e.rec(id).HostConfig.BlkioDeviceReadBps) != 0 {
		t.Errorf("with an empty list it is %q", got)
	}
}

func TestPrune(t *testing.T) {
	e := newEngine(t)
	ctx := context.Background()
	label := map[string]string{"keep": "yes"}
	runs, kept := e.run(request{cmd: sh("sleep 3600")}), e.create(request{c: container.Config{Labels: label}})
	ended := e.create(request{cmd: sh("dd if=/dev/zero of=/big bs=1024 count=100 2>/dev/null")})
	exit := e.arm(ended, container.WaitConditionNextExit)
	e.start(ended)
	e.take(exit)
	if _, err := e.Prune(ctx, map[string]map[string]bool{"labell": {"x": true}}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("an unknown filter: %v", err)
	}
	report, err := e.Prune(ctx, map[string]map[string]bool{"until": {"1h": true}})
	if err != nil || len(report.ContainersDeleted) != 0 {
		t.Errorf("until: %v %v", report, err)
	}
	expected := e.create(request{cmd: sh("true")})
	waits := e.arm(expected, container.WaitConditionNextExit)
	report, err = e.Prune(ctx, map[string]map[string]bool{"label!": {"keep": true}})
	if err != nil || len(report.ContainersDeleted) != 1 || report.ContainersDeleted[0] != ended || report.SpaceReclaimed < 100<<10 {
		t.Errorf("%+v %v", report, err)
	}
	e.start(expected) // somebody waited for it: a run that had not come to its start
	e.take(waits)
	for _, id := range []string{runs, kept} {
		if _, err := e.index.find(id); err != nil {
			t.Error(err)
		}
	}
}

func TestWaitConditions(t *testing.T) {
	e := newEngine(t)
	id := e.create(request{cmd: sh("exit 4")})
	if code := e.take(e.arm(id, container.WaitConditionNotRunning)); code != 0 {
		t.Errorf("never started: %d", code)
	}
	ctx, cancel := context.WithCancel(context.Background())
	if _, err := e.Wait(ctx, id, container.WaitConditionNextExit); err != nil {
		t.Fatal(err)
	}
	c, _ := e.index.find(id)
	cancel()
	e.eventually("a waiter that has gone is forgotten", func() bool {
		return !c.audience.waited()
	})
	next := e.arm(id, container.WaitConditionNextExit)
	e.start(id)
	if code := e.take(next); code != 4 {
		t.Errorf("next exit: %d", code)
	}
}

// TestWaitForWhatHasRemovedItself: Ansible starts a container and waits for it then, when a short one is gone.
func TestWaitForWhatHasRemovedItself(t *testing.T) {
	e := newEngine(t)
	id := e.create(request{name: "brief", cmd: sh("exit 4"), h: container.HostConfig{AutoRemove: true}})
	removed := e.arm(id, container.WaitConditionRemoved)
	e.start(id)
	e.take(removed)
	if code := e.take(e.arm(id, container.WaitConditionNotRunning)); code != 4 {
		t.Errorf("it ended with %d", code)
	}
	for _, row := range []struct {
		id        string
		condition container.WaitCondition
	}{{"brief", container.WaitConditionNotRunning}, {id[:12], container.WaitConditionNotRunning}, {id, container.WaitConditionNextExit}} {
		if _, err := e.Wait(t.Context(), row.id, row.condition); !errdefs.IsNotFound(err) {
			t.Errorf("%v: %v", row, err)
		}
	}
	other := e.create(request{cmd: sh("exit 4")})
	if err := e.Remove(t.Context(), other, RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Wait(t.Context(), other, container.WaitConditionNotRunning); !errdefs.IsNotFound(err) {
		t.Errorf("removed by somebody: %v", err)
	}
}

func TestHealth(t *testing.T) {
	e := newEngine(t)
	ctx := context.Background()
	check := &container.HealthConfig{Test: []string{"CMD-SHELL", "test -e /tmp/ok && echo fine"}, Interval: 50 * time.Millisecond, Retries: 2}
	id := e.run(request{cmd: sh("touch /tmp/ok; sleep 3600"), c: container.Config{Healthcheck: check}})
	c, _ := e.index.find(id)
	if h := c.healthState(); h == nil || h.Status != container.Starting {
		t.Errorf("at first: %+v", h)
	}
	e.eventually("healthy", func() bool { return c.healthState().Status == container.Healthy })
	if h := c.healthState(); h.Log[len(h.Log)-1].Output != "fine\n" || h.Log[len(h.Log)-1].ExitCode != 0 {
		t.Errorf("%+v", h.Log)
	}
	if err := os.Remove(filepath.Join("/proc", strconv.Itoa(e.rec(id).Pid), "root/tmp/ok")); err != nil {
		t.Fatal(err)
	}
	e.eventually("unhealthy", func() bool { return c.healthState().Status == container.Unhealthy })
	e.eventually("the log is bounded", func() bool { h := c.healthState(); return h.FailingStreak > 6 && len(h.Log) == probesKept })
	probes := 0
	got := strings.Join(slices.DeleteFunc(e.happened(id), func(event string) bool {
		probe := strings.HasPrefix(event, "exec_")
		if event == "exec_create: /bin/sh -c test -e /tmp/ok && echo fine" || event == "exec_die" {
			probes++
		}
		return probe
	}), ", ")
	if probes < 4 {
		t.Errorf("%d events of probes", probes)
	}
	if got != "create, start, health_status: healthy, health_status: unhealthy" {
		t.Errorf("events %q", got)
	}
	e.again()
	c, _ = e.index.find(id)
	e.eventually("found unhealthy again", func() bool { return c.healthState().Status == container.Unhealthy })
	now := 0
	if err := e.Restart(ctx, id, StopOptions{Timeout: &now}); err != nil {
		t.Fatal(err)
	}
	e.eventually("healthy after a restart", func() bool { return c.healthState().Status == container.Healthy })
}

// TestHealthOfTheDead is what Docker says it is: unhealthy, with the last probes, in every life of the engine; what has never run has none.
func TestHealthOfTheDead(t *testing.T) {
	e := newEngine(t)
	ctx := context.Background()
	// Five probes are remembered: not so many fail between the kill and its being seen.
	check := &container.HealthConfig{Test: []string{"CMD-SHELL", "echo fine"}, Interval: time.Second, StartPeriod: time.Minute, StartInterval: 20 * time.Millisecond}
	id := e.run(request{cmd: sh("sleep 3600"), c: container.Config{Healthcheck: check}})
	never := e.create(request{cmd: sh("true"), c: container.Config{Healthcheck: check}})
	c, _ := e.index.find(id)
	e.eventually("healthy", func() bool { return c.healthState().Status == container.Healthy })
	if err := e.Kill(ctx, id, "KILL"); err != nil {
		t.Fatal(err)
	}
	for _, when := range []string{"after its end", "after the engine's"} {
		e.eventually("it has ended", func() bool { return e.rec(id).Status == Exited })
		c, _ = e.index.find(id)
		h := c.healthState()
		if h == nil || h.Status != container.Unhealthy || len(h.Log) == 0 || h.Log[0].Output != "fine\n" {
			t.Errorf("%s: %+v", when, h)
		}
		if c, _ := e.index.find(never); c.healthState() != nil {
			t.Errorf("%s, of one that never ran: %+v", when, c.healthState())
		}
		if when == "after its end" {
			e.again()
		}
	}
	e.start(id)
	e.eventually("healthy again", func() bool { c, _ := e.index.find(id); return c.healthState().Status == container.Healthy })
	if e.rec(id).Health != nil {
		t.Error("the record of one that runs has the health of its last life")
	}
}

// TestProbes: time limits, endless output and what probes leave behind.
func TestProbes(t *testing.T) {
	e := newEngine(t)
	for _, row := range []struct {
		test []string
		code int
		want string
	}{
		{[]string{"CMD-SHELL", "sleep 100"}, -1, "exceeded timeout"},
		{[]string{"CMD", "no-such-program"}, 127, "not found"},
		{[]string{"CMD-SHELL", "yes | head -c 1000000; exit 3"}, 3, "y\ny\n"},
		{[]string{"CMD-SHELL", "sleep 100 & echo left; exit 1"}, 1, "left"},
	} {
		h := &container.HealthConfig{Test: row.test, Interval: 20 * time.Millisecond, Timeout: time.Minute, Retries: 1}
		if row.code < 0 {
			h.Timeout = 300 * time.Millisecond
		}
		id := e.run(request{cmd: sh("sleep 3600"), c: container.Config{Healthcheck: h}})
		c, _ := e.index.find(id)
		e.eventually("unhealthy", func() bool { return c.healthState().Status == container.Unhealthy })
		r := c.healthState().Log[0]
		if r.ExitCode != row.code || !strings.Contains(r.Output, row.want) || len(r.Output) > probeOutput+100 {
			t.Errorf("%v: %d %.100q (%d bytes)", row.test, r.ExitCode, r.Output, len(r.Output))
		}
	}
}

// TestStartPeriod: failures in it do not count.
func TestStartPeriod(t *testing.T) {
	e := newEngine(t)
	h := &container.HealthConfig{Test: []string{"CMD", "false"}, Interval: 10 * time.Millisecond, StartInterval: 10 * time.Millisecond, StartPeriod: 500 * time.Millisecond, Retries: 1}
	began := time.Now()
	id := e.run(request{cmd: sh("sleep 3600"), c: container.Config{Healthcheck: h}})
	c, _ := e.index.find(id)
	e.eventually("unhealthy", func() bool { return c.healthState().Status == container.Unhealthy })
	if took := time.Since(began); took < 500*time.Millisecond {
		t.Errorf("unhealthy after %s", took)
	}
}

func TestJoinedNamespaces(t *testing.T) {
	e := newEngine(t)
	ctx := context.Background()
	e.run(request{name: "donor", cmd: sh("echo shared >/dev/shm/file; sleep 3600"), c: container.Config{Hostname: "donor"}, h: container.HostConfig{IpcMode: "shareable"}})
	joins := container.HostConfig{NetworkMode: "container:donor", PidMode: "container:donor", IpcMode: "container:donor"}
	id := e.create(request{name: "guest", cmd: sh("sleep 0.1; cat /dev/shm/file; ps | grep -c 'sleep 3600'; cat /etc/hostname; readlink /proc/self/ns/net"), h: joins})
	exit := e.arm(id, container.WaitConditionNextExit)
	e.start(id)
	if code := e.take(exit); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if got := strings.Fields(e.output(id)); len(got) < 3 || got[0] != "shared" || got[1] == "0" || got[2] != "donor" {
		t.Errorf("%q", e.output(id))
	}
	donor := "container:" + e.rec("donor").ID
	if h := e.rec("guest").HostConfig; string(h.NetworkMode) != donor || string(h.PidMode) != donor || string(h.IpcMode) != donor {
		t.Errorf("a donor that is renamed is lost: network %s, pid %s, ipc %s", h.NetworkMode, h.PidMode, h.IpcMode)
	}
	if got := e.rec("guest").Config.Hostname; got != "donor" {
		t.Errorf("the guest in the network of donor calls itself %s", got)
	}
	for what, h := range map[string]container.HostConfig{"network": {NetworkMode: "container:nobody"}, "pid": {PidMode: "container:nobody"}, "volumes": {VolumesFrom: []string{"nobody"}}} {
		q := request{cmd: sh("true"), h: h}
		if _, err := e.tryCreate(q); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "No such container: nobody") {
			t.Errorf("%s of one that is not there: %v: with \"not found\" a client pulls the image", what, err)
		}
	}
	if e.rec("donor").IDMap != e.rec("guest").IDMap || e.rec("guest").OwnRange {
		t.Error("they do not share their ids")
	}
	private := e.create(request{name: "private", cmd: sh("true"), h: container.HostConfig{IpcMode: "container:guest"}})
	if err := e.Start(ctx, private); !errdefs.IsConflict(err) {
		t.Errorf("joining one that has ended: %v", err)
	}
	shm := e.o.sharedMemory(e.rec("donor").ID)
	if err := e.Remove(ctx, "donor", RemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(shm); err == nil {
		t.Error("the shared memory is left")
	}
	if e.rec("guest").OwnRange == e.rec("private").OwnRange {
		t.Error("the ids of the donor are nobody's, though two containers have them")
	}
	if err := e.Start(ctx, "guest"); !errdefs.IsConflict(err) {
		t.Errorf("joining one that is gone: %v", err)
	}
}

func TestOOM(t *testing.T) {
	e := newEngine(t)
	id := e.create(request{cmd: []string{"tail", "/dev/zero"}, h: container.HostConfig{Resources: container.Resources{Memory: 16 << 20, MemorySwap: 16 << 20}}})
	exit := e.arm(id, container.WaitConditionNextExit)
	e.start(id)
	if code := e.take(exit); code != 137 {
		t.Errorf("exit code %d", code)
	}
	if r := e.rec(id); !r.OOMKilled || r.OOMVictim != "tail" {
		t.Errorf("%+v", r)
	}
	if got := strings.Join(e.happened(id, "victim"), ", "); got != "create, start, oom victim=tail, die" {
		t.Errorf("events %q", got)
	}
}

// TestCopyUp: owners, modes, links, attributes and times of the image's content.
func TestCopyUp(t *testing.T) {
	image, volume := rootWith(t, map[string]string{"data/file": "content", "data/sub/deep": "deep", "plain": "x"}), filepath.Join(t.TempDir(), "_data")
	if err := os.Mkdir(volume, 0o755); err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(image, "data")
	for _, err := range []error{
		os.Symlink("/etc/passwd", data+"/link"), os.Link(data+"/file", data+"/sub/hard"), unix.Mkfifo(data+"/pipe", 0o640),
		os.Chown(data+"/file", 101, 102), unix.Chmod(data+"/file", 0o4750), os.Chown(data, 7, 8), unix.Chmod(data, 0o1770),
		unix.Setxattr(data+"/file", "user.colour", []byte("blue"), 0), os.Chtimes(data+"/sub", time.Unix(1, 0), time.Unix(2, 0)),
		os.Symlink("data", image+"/alias"),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	r := &Record{HostConfig: &container.HostConfig{}}
	r.Image.Lower = []string{image}
	if err := copyUp(r, "/alias", volume); err != nil {
		t.Fatal(err)
	}
	var root, file, hard, sub, pipe unix.Stat_t
	for name, st := range map[string]*unix.Stat_t{"": &root, "file": &file, "sub/hard": &hard, "sub": &sub, "pipe": &pipe} {
		if err := unix.Lstat(filepath.Join(volume, name), st); err != nil {
			t.Fatal(err)
		}
	}
	if root.Uid != 7 || root.Gid != 8 || root.Mode&0o7777 != 0o1770 || file.Uid != 101 || file.Gid != 102 || file.Mode&0o7777 != 0o4750 {
		t.Errorf("owners and modes: %+v %+v", root, file)
	}
	if file.Ino != hard.Ino || sub.Mtim.Sec != 2 || pipe.Mode&unix.S_IFMT != unix.S_IFIFO || pipe.Mode&0o777 != 0o640 {
		t.Errorf("links, times, pipes: %d %d %d %o", file.Ino, hard.Ino, sub.Mtim.Sec, pipe.Mode)
	}
	if to, err := os.Readlink(volume + "/link"); to != "/etc/passwd" || err != nil {
		t.Errorf("link: %q %v", to, err)
	}
	value := make([]byte, 10)
	if n, err := unix.Getxattr(volume+"/file", "user.colour", value); err != nil || string(value[:n]) != "blue" {
		t.Errorf("attribute: %q %v", value[:n], err)
	}
	if left, _ := filepath.Glob(filepath.Dir(volume) + "/.copy-*"); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	for _, nothing := range []string{"/no/such", "/plain", "/plain/below"} {
		if err := copyUp(r, nothing, volume); err != nil {
			t.Errorf("%s: %v", nothing, err)
		}
	}
}

// TestShareOfMemory: what one client describes its containers with does not fill the engine's memory.
func TestShareOfMemory(t *testing.T) {
	e := newEngine(t)
	limited := access.With(context.Background(), access.Scope{Owner: "uid:2001", Limited: true})
	const size = 2<<20 - 4<<10
	make := func(ctx context.Context) error {
		_, err := e.Create(ctx, CreateRequest{Config: &container.Config{Image: "busybox:1", Labels: map[string]string{"a": strings.Repeat("x", size)}},
			HostConfig: &container.HostConfig{NetworkMode: "none"}})
		return err
	}
	n, err := 0, error(nil)
	for ; err == nil && n*size <= access.Share; n++ {
		err = make(limited)
	}
	if !errdefs.IsPermissionDenied(err) || n < access.Share/size/2 {
		t.Fatalf("the container after %d: %v", n-1, err)
	}
	for name, other := range map[string]access.Scope{"somebody else": {Owner: "uid:2002", Limited: true}, "who may everything": {Owner: "uid:2001"}} {
		if err := make(access.With(context.Background(), other)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
