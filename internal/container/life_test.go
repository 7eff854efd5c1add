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
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"

	"wherry.dev/wherry/internal/image"
)

func sh(script string) []string { return []string{"sh", "-c", script} }

func TestLife(t *testing.T) {
	e := newEngine(t)
	ctx := context.Background()
	id := e.create(request{name: "one", cmd: sh("echo hello; exit 7")})
	removed := e.arm(id, container.WaitConditionRemoved)
	exit := e.arm(id, container.WaitConditionNextExit)
	e.start(id)
	if code := e.take(exit); code != 7 {
		t.Errorf("exit code %d", code)
	}
	r := e.rec(id)
	if r.Status != Exited || r.ExitCode != 7 || r.FinishedAt.Before(r.StartedAt) || !r.HasRun || r.Pid != 0 {
		t.Errorf("%+v", r)
	}
	if out := e.output(id); out != "hello\n" {
		t.Errorf("output %q", out)
	}
	if code := e.take(e.arm(id, container.WaitConditionNotRunning)); code != 7 {
		t.Errorf("of an ended container: %d", code)
	}
	if err := e.Remove(ctx, id, RemoveOptions{}); err != nil {
		t.Error(err)
	}
	if code := e.take(removed); code != 7 {
		t.Errorf("at the removal: %d", code)
	}
	if err := e.Start(ctx, id); !errdefs.IsNotFound(err) {
		t.Errorf("start of a removed one: %v", err)
	}
	want := "create start die exitCode=7 destroy"
	if got := strings.Join(e.happened(id, "exitCode"), " "); got != want {
		t.Errorf("events %q, want %q", got, want)
	}
	if e.noted() != "" {
		t.Error(e.noted())
	}
}

// TestProgramsThatDoNotStart: the exit code is what a shell would answer, the error says why, and nothing is left.
func TestProgramsThatDoNotStart(t *testing.T) {
	e := newEngine(t)
	ctx := context.Background()
	for _, row := range []struct {
		cmd  []string
		code int
		want string
	}{
		{[]string{"no-such-program"}, 127, "executable file not found in $PATH"},
		{[]string{"/no/such/program"}, 127, "no such file or directory"},
		{[]string{"/etc/plain"}, 126, "permission denied"},
		{[]string{"/bin/crlf"}, 127, "CRLF"},
		{[]string{"/bin/orphan"}, 127, "/no/such/interpreter"},
	} {
		id := e.create(request{cmd: row.cmd})
		err := e.Start(ctx, id)
		r := e.rec(id)
		if err == nil || !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%v: %v, want %q", row.cmd, err, row.want)
		}
		if r.Status != Created || r.ExitCode != row.code || r.Error == "" || r.Pid != 0 {
			t.Errorf("%v: %s %d %q", row.cmd, r.Status, r.ExitCode, r.Error)
		}
		if _, err := os.Stat(e.o.State + "/tasks/" + id); err == nil {
			t.Errorf("%v: the task is left", row.cmd)
		}
	}
	id := ""
	// Scripts that are mounted, as they come from editors on other systems.
	dir := t.TempDir()
	for name, text := range map[string]string{"crlf": "#!/bin/sh\r\necho\r\n", "orphan": "#!/no/such/interpreter\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, row := range []struct {
		bind, cwd, cmd, want string
	}{
		{dir + ":/x", "/", "/x/crlf", "CRLF"}, {dir + ":/x", "/x", "./crlf", "CRLF"}, {dir + "/crlf:/run.sh", "/", "/run.sh", "CRLF"},
		{dir + ":/x", "/", "/x/orphan", "/no/such/interpreter"}, {dir + ":/x/y", "/x/y", "./none", "there is no such file"},
	} {
		id := e.create(request{cmd: []string{row.cmd}, c: container.Config{WorkingDir: row.cwd}, h: container.HostConfig{Binds: []string{row.bind}}})
		if err := e.Start(ctx, id); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%+v: %v", row, err)
		}
	}
	id = e.create(request{cmd: []string{"nothing"}, h: container.HostConfig{AutoRemove: true}})
	removed := e.arm(id, container.WaitConditionRemoved)
	if err := e.Start(ctx, id); err == nil {
		t.Error("it started")
	}
	if code := e.take(removed); code != 127 {
		t.Errorf("--rm: %d", code)
	}
	if _, err := e.tryCreate(request{c: container.Config{User: "nobodyknows", Image: "busybox:1"}}); err != nil {
		t.Error(err)
	}
	id = e.create(request{c: container.Config{User: "nobodyknows"}, cmd: []string{"true"}})
	if err := e.Start(ctx, id); err == nil || !strings.Contains(err.Error(), "nobodyknows") || e.rec(id).ExitCode != 128 {
		t.Errorf("unknown user: %v", err)
	}
}

func TestWhoAndWhere(t *testing.T) {
	e := newEngine(t)
	for _, row := range []struct {
		q    request
		want string
	}{
		{request{cmd: sh("id -u; id -g; echo $HOME; pwd")}, "0 0 /root /"},
		{request{cmd: sh("id -u; id -G; echo $HOME; pwd"), c: container.Config{User: "web", WorkingDir: "/made/for/it"}}, "101 102 /home /made/for/it"},
		{request{cmd: sh("stat -c '%u %g %a' /made/for/it /made"), c: container.Config{WorkingDir: "/made/for/it"}}, "0 0 755 0 0 755"},
		{request{cmd: sh("echo $HOME $PATH $HOSTNAME; hostname"), c: container.Config{Hostname: "box", Env: []string{"HOME=/x", "PATH=/bin"}}}, "/x /bin box box"},
		{request{cmd: sh("id -G"), h: container.HostConfig{GroupAdd: []string{"web", "77"}}}, "0 77 102"},
		{request{cmd: sh("cat /proc/1/uid_map"), h: container.HostConfig{UsernsMode: "host"}}, "0 0 4294967295"},
		{request{cmd: sh("ls -d /dev/fuse; stat -c %t:%T /dev/fuse"), h: container.HostConfig{Resources: container.Resources{Devices: []container.DeviceMapping{{PathOnHost: "/dev/fuse"}}}}}, "/dev/fuse a:e5"},
		{request{cmd: sh("touch /x 2>/dev/null || echo ro; touch /etc/x 2>/dev/null || echo ro; touch /t/x && echo rw; grep -c localhost /etc/hosts"),
			h: container.HostConfig{ReadonlyRootfs: true, Tmpfs: map[string]string{"/t": ""}}}, "ro ro rw 2"},
		{request{cmd: sh("cat /etc/hosts | grep -c localhost; cat /etc/hostname"), c: container.Config{Hostname: "named"}}, "2 named"},
	} {
		id := e.create(row.q)
		exit := e.arm(id, container.WaitConditionNextExit)
		e.start(id)
		code := e.take(exit)
		if got := strings.Join(strings.Fields(e.output(id)), " "); got != row.want || code != 0 {
			t.Errorf("%v: %q (%d), want %q", row.q.cmd, got, code, row.want)
		}
	}
	id := e.create(request{cmd: []string{"true"}, c: container.Config{User: "70000"}})
	if err := e.Start(context.Background(), id); err == nil || !strings.Contains(err.Error(), "65536 ids") {
		t.Errorf("an id out of range: %v", err)
	}
}

func TestStopAndKill(t *testing.T) {
	e := newEngine(t)
	ctx := context.Background()
	deaf := sh("trap '' TERM; echo ready; while :; do sleep 0.05; done")
	polite := sh("trap 'exit 5' TERM; trap 'echo hup' HUP; echo ready; while :; do sleep 0.05; done")
	second := 1
	id := e.run(request{name: "polite", cmd: polite})
	e.eventually("ready", func() bool { return strings.Contains(e.output(id), "ready") })
	if err := e.Kill(ctx, id, "HUP"); err != nil {
		t.Error(err)
	}
	e.eventually("the signal arrives", func() bool { return strings.Contains(e.output(id), "hup") })
	if err := e.Stop(ctx, id, StopOptions{}); err != nil {
		t.Error(err)
	}
	if r := e.rec(id); r.Status != Exited || r.ExitCode != 5 || !r.Stopped {
		t.Errorf("%s %d", r.Status, r.ExitCode)
	}
	if err := e.Stop(ctx, id, StopOptions{}); !errdefs.IsNotModified(err) {
		t.Errorf("stop of a stopped one: %v", err)
	}
	if err := e.Kill(ctx, id, ""); !errdefs.IsConflict(err) {
		t.Errorf("kill of a stopped one: %v", err)
	}
	e.start(id)
	if err := e.Start(ctx, id); !errdefs.IsNotModified(err) {
		t.Errorf("start of a running one: %v", err)
	}
	e.eventually("ready again", func() bool { return strings.Count(e.output(id), "ready") == 2 })
	before := len(e.happened(id))
	if err := e.Restart(ctx, id, StopOptions{Timeout: &second}); err != nil {
		t.Error(err)
	}
	e.eventually("ready for the third time", func() bool { return strings.Count(e.output(id), "ready") == 3 })
	if got, want := e.happened(id)[before:], []string{"kill", "die", "stop", "start", "restart"}; !slices.Equal(got, want) {
		t.Errorf("events of a restart: %q", got)
	}
	if err := e.Pause(ctx, id, PauseOptions{}); err != nil {
		t.Error(err)
	}
	if err := e.Pause(ctx, id, PauseOptions{}); !errdefs.IsConflict(err) || e.rec(id).Status != Paused {
		t.Errorf("pause twice: %v", err)
	}
	if err := e.Start(ctx, id); !errdefs.IsConflict(err) {
		t.Errorf("start of a paused one: %v", err)
	}
	if err := e.Stop(ctx, id, StopOptions{}); err != nil || e.rec(id).ExitCode != 5 {
		t.Errorf("stop of a paused one: %v %d", err, e.rec(id).ExitCode)
	}
	id = e.run(request{name: "deaf", cmd: deaf})
	e.eventually("ready", func() bool { return strings.Contains(e.output(id), "ready") })
	if err := e.Remove(ctx, id, RemoveOptions{}); !errdefs.IsConflict(err) {
		t.Errorf("remove of a running one: %v", err)
	}
	if err := e.Stop(ctx, id, StopOptions{Timeout: &second}); err != nil || e.rec(id).ExitCode != 137 {
		t.Errorf("stop of a deaf one: %v %d", err, e.rec(id).ExitCode)
	}
	want := "create; start; kill signal=15; kill signal=9; die exitCode=137; stop"
	if got := strings.Join(e.happened(id, "exitCode", "signal"), "; "); got != want {
		t.Errorf("events %q, want %q", got, want)
	}
	e.start(id)
	if err := e.Pause(ctx, id, PauseOptions{}); err != nil {
		t.Error(err)
	}
	if err := e.Remove(ctx, id, RemoveOptions{Force: true}); err != nil {
		t.Errorf("remove of a paused one: %v", err)
	}
	if _, err := e.index.find("deaf"); !errdefs.IsNotFound(err) {
		t.Errorf("it is still there: %v", err)
	}
}

func TestRestartPolicies(t *testing.T) {
	e := newEngine(t)
	ctx := context.Background()
	policy := func(name container.RestartPolicyMode, n int) container.HostConfig {
		return container.HostConfig{RestartPolicy: container.RestartPolicy{Name: name, MaximumRetryCount: n}}
	}
	id := e.run(request{cmd: sh("echo run >>/runs; exit 9"), h: policy("on-failure", 2)})
	e.eventually("given up", func() bool { r := e.rec(id); return r.Status == Exited && r.RestartCount == 2 })
	e.eventually("all is told", func() bool { // the last of it after the record has changed
		return strings.Join(e.happened(id, "restart"), " ") == "create start die start restart=kept die start restart=kept die"
	})
	upper, _ := layerDirs(filepath.Join(e.o.Root, "containers", id))
	if b, err := os.ReadFile(filepath.Join(upper, "runs")); err != nil || strings.Count(string(b), "run") != 3 {
		t.Errorf("the layer: %q %v", b, err)
	}
	if code := e.exitOf(request{cmd: sh("exit 0"), h: policy("on-failure", 0)}); code != 0 {
		t.Error(code)
	}
	id = e.run(request{cmd: sh("exit 0"), h: policy("always", 0)})
	e.eventually("three restarts", func() bool { return e.rec(id).RestartCount >= 3 })
	if err := e.Stop(ctx, id, StopOptions{}); err != nil && !errdefs.IsNotModified(err) {
		t.Error(err)
	}
	r := e.rec(id)
	if r.Status != Exited || !r.Stopped {
		t.Errorf("after stop: %s", r.Status)
	}
	// A start that fails is tried again, and can be stopped.
	id = e.create(request{cmd: sh("rm /bin/sh; exit 1"), h: policy("always", 0)})
	e.start(id)
	e.eventually("starts that fail", func() bool { r := e.rec(id); return r.RestartCount >= 2 && r.Error != "" })
	if r := e.rec(id); r.Status != Restarting || r.ExitCode != 127 {
		t.Errorf("%s %d %s", r.Status, r.ExitCode, r.Error)
	}
	if err := e.Remove(ctx, id, RemoveOptions{}); !errdefs.IsConflict(err) {
		t.Errorf("remove of a restarting one: %v", err)
	}
	if err := e.Remove(ctx, id, RemoveOptions{Force: true}); err != nil {
		t.Error(err)
	}
}

func TestBackoff(t *testing.T) {
	c := newContainer(&Record{}, "", "")
	var got []time.Duration
	for range 12 {
		got = append(got, c.nextBackoff(time.Second))
	}
	for i, want := range []time.Duration{100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 51200, 60000, 60000} {
		if got[i] != want*time.Millisecond {
			t.Errorf("wait %d is %s", i, got[i])
		}
	}
	if d := c.nextBackoff(10 * time.Second); d != 100*time.Millisecond {
		t.Errorf("after 10 s of running: %s", d)
	}
	c.nextBackoff(0)
	c.cancelRestart()
	if d := c.nextBackoff(0); d != 100*time.Millisecond {
		t.Errorf("after the user's start: %s", d)
	}
}

func TestRestartFresh(t *testing.T) {
	e := newEngine(t)
	fresh := container.HostConfig{RestartPolicy: container.RestartPolicy{Name: "on-failure", MaximumRetryCount: 1}, Annotations: map[string]string{"wherry.restart": "fresh"}}
	labelled := fresh
	labelled.Annotations = nil
	byLabel := e.create(request{cmd: sh("true"), h: labelled, c: container.Config{Labels: map[string]string{"wherry.restart": "fresh"}}})
	if !e.rec(byLabel).fresh() {
		t.Error("a label of the request is not heard")
	}
	id := e.run(request{cmd: sh("ls -d /mark /bin; touch /mark; pwd; exit 1"), h: fresh, c: container.Config{WorkingDir: "/work"}})
	e.eventually("ended twice", func() bool { r := e.rec(id); return r.Status == Exited && r.RestartCount == 1 })
	if out := e.output(id); strings.Count(out, "/mark: No such file") != 2 || strings.Count(out, "/work") != 2 {
		t.Errorf("output %q", out)
	}
	if got := strings.Join(e.happened(id, "restart"), " "); !strings.Contains(got, "start restart=fresh") {
		t.Errorf("events %q", got)
	}
}

// TestImageDoesNotThrowAway: an image has no say in whether what a container writes outlasts its restart.
func TestImageDoesNotThrowAway(t *testing.T) {
	img := &dockerspec.DockerOCIImage{}
	img.Config.Labels = map[string]string{restartKey: "fresh"}
	n := creating{s: newEngine(t).Service, q: CreateRequest{Config: &container.Config{Cmd: []string{"true"}}}, r: &Record{ID: newID()}, img: &image.Image{Config: *img}}
	if err := n.configure(t.Context()); err != nil || n.r.fresh() {
		t.Errorf("fresh %v, %v", n.r.fresh(), err)
	}
	if n.r.Config.Labels[restartKey] != "fresh" {
		t.Error("the image's label is not shown")
	}
}

// TestVolumes: the image's content is copied once, ids are those inside, a part of a volume can be mounted, and no link leads out of it.
func TestVolumes(t *testing.T) {
	e := newEngine(t)
	ctx := context.Background()
	id := e.create(request{name: "first", cmd: sh("cat /data/file; stat -c '%u %g %a' /data /data/file; mkdir /data/part /data/hollow; echo in >/data/part/inner; ln -s /etc /data/out; rm /data/file"), h: container.HostConfig{Binds: []string{"things:/data"}}})
	exit := e.arm(id, container.WaitConditionNextExit)
	e.start(id)
	if code := e.take(exit); code != 0 || e.output(id) != "from-image\n101 102 750\n101 102 644\n" {
		t.Errorf("%d %q", code, e.output(id))
	}
	below := func(path string) container.HostConfig {
		return container.HostConfig{Mounts: []mount.Mount{{Type: mount.TypeVolume, Source: "things", Target: "/data", VolumeOptions: &mount.VolumeOptions{Subpath: path}}}}
	}
	id = e.create(request{cmd: sh("ls /data; cat /data/inner; touch /data/new"), h: below("part")})
	exit = e.arm(id, container.WaitConditionNextExit)
	e.start(id)
	if code := e.take(exit); code != 0 || e.output(id) != "inner\nin\n" {
		t.Errorf("a part: %d %q", code, e.output(id))
	}
	for _, path := range []string{"nothing", "out/passwd"} {
		id = e.create(request{cmd: sh("true"), h: below(path)})
		if err := e.Start(ctx, id); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v", path, err)
		}
	}
	id = e.create(request{cmd: sh("cat /data/file; stat -c '%u %g %a' /data"), h: below("hollow")})
	exit = e.arm(id, container.WaitConditionNextExit)
	e.start(id)
	if code := e.take(exit); code != 0 || e.output(id) != "from-image\n101 102 750\n" {
		t.Errorf("an empty part: %d %q", code, e.output(id))
	}
	id = e.create(request{name: "last", cmd: sh("ls /data"), h: container.HostConfig{VolumesFrom: []string{"first"}, AutoRemove: false}})
	exit = e.arm(id, container.WaitConditionNextExit)
	e.start(id)
	if code := e.take(exit); code != 0 || e.output(id) != "hollow\nlink\nout\npart\nsub\n" {
		t.Errorf("of another container: %d %q", code, e.output(id))
	}
	if err := e.vols.Remove(ctx, "things", false); err == nil {
		t.Error("a volume in use is removed")
	}
}

// TestRestartWithRemoval: a restart does not remove a container with --rm, and one that fails does not leave it.
func TestRestartWithRemoval(t *testing.T) {
	e := newEngine(t)
	ctx, now := context.Background(), 0
	id := e.run(request{name: "brief", cmd: sh("echo here >>/tmp/marks; sleep 3600"), h: container.HostConfig{AutoRemove: true}})
	marks := func() int {
		b, _ := os.ReadFile(filepath.Join("/proc", strconv.Itoa(e.rec(id).Pid), "root/tmp/marks"))
		return strings.Count(string(b), "here")
	}
	for i := range 2 {
		e.eventually("the program marks its layer, which is kept", func() bool { return marks() == i+1 })
		if err := e.Restart(ctx, id, StopOptions{Timeout: &now}); err != nil {
			t.Fatal(err)
		}
	}
	if r := e.rec(id); r.Status != Running {
		t.Errorf("it is %s", r.Status)
	}
	e.eventually("its layer is kept", func() bool { return marks() == 3 })
	removed := e.arm(id, container.WaitConditionRemoved)
	if err := os.Remove(filepath.Join("/proc", strconv.Itoa(e.rec(id).Pid), "root/bin/sh")); err != nil {
		t.Fatal(err)
	}
	if err := e.Restart(ctx, id, StopOptions{Timeout: &now}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("a restart without a program: %v", err)
	}
	e.take(removed)
}

// TestClientGoes: a stop goes on to its end though nobody waits for the answer any more.
func TestClientGoes(t *testing.T) {
	e := newEngine(t)
	id := e.run(request{cmd: sh("trap '' TERM; echo ready; while :; do sleep 0.05; done")})
	e.eventually("ready", func() bool { return strings.Contains(e.output(id), "ready") })
	ctx, cancel := context.WithCancel(context.Background())
	second := 1
	time.AfterFunc(50*time.Millisecond, cancel)
	if err := e.Stop(ctx, id, StopOptions{Timeout: &second}); err != nil {
		t.Error(err)
	}
	if r := e.rec(id); r.Status != Exited || r.ExitCode != 137 {
		t.Errorf("%s %d", r.Status, r.ExitCode)
	}
}
