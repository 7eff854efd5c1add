package container

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"
)

// probe is the program that misbehaves as told (internal/ociruntime/testdata/probe), as a bind for a container.
func (e *engine) probe() string {
	e.t.Helper()
	path := filepath.Join(tools.dir, "probe")
	if _, err := os.Stat(path); err == nil {
		return path + ":/bin/probe:ro"
	}
	build := exec.Command("go", "build", "-o", path, "wherry.dev/wherry/internal/ociruntime/testdata/probe")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		e.t.Fatalf("build probe: %v: %s", err, out)
	}
	return path + ":/bin/probe:ro"
}

// named are the processes of this machine, in whatever namespace, whose command line holds a word; zombies have none.
func named(word string) (pids []string) {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range files {
		if b, _ := os.ReadFile(f); strings.Contains(string(b), word) && !strings.Contains(string(b), ".test") {
			pids = append(pids, filepath.Base(filepath.Dir(f)))
		}
	}
	return pids
}

// TestLiesAreNoEnd: class 16: a process that has itself traced by its parent and stops has not ended, be it a container's first one or an
// exec's. What ends it leaves nothing.
func TestLiesAreNoEnd(t *testing.T) {
	e := newEngine(t)
	ctx := context.Background()
	h := container.HostConfig{Binds: []string{e.probe()}}
	stopped := func(word string) {
		t.Helper()
		e.eventually("a process is stopped for its tracer", func() bool {
			for _, pid := range named(word) {
				if b, _ := os.ReadFile("/proc/" + pid + "/stat"); strings.Contains(string(b), ") t ") {
					return true
				}
			}
			return false
		})
	}
	liar := e.run(request{name: "liar", cmd: []string{"probe", "lie", "first-process"}, h: h})
	stopped("first-process")
	honest := e.run(request{name: "honest", cmd: sh("sleep 3600"), h: h})
	x, err := e.ExecCreate(ctx, honest, container.ExecCreateRequest{Cmd: []string{"probe", "lie", "further-process"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.ExecStart(ctx, x, ExecStreams{Detach: true}); err != nil {
		t.Fatal(err)
	}
	stopped("further-process")
	for range 2 { // in the next life too
		time.Sleep(100 * time.Millisecond)
		if r := e.rec(liar); r.Status != Running {
			t.Fatalf("the liar is said to be %s", r.Status)
		}
		if about, err := e.ExecInspect(x); err != nil || !about.Running {
			t.Fatalf("the exec is said to have ended: %+v %v", about, err)
		}
		e.again()
	}
	for _, id := range []string{liar, honest} {
		if err := e.Kill(ctx, id, "KILL"); err != nil { // the liar's other threads would take SIGTERM
			t.Fatal(err)
		}
		if r := e.rec(id); r.Status != Exited || r.ExitCode != 137 {
			t.Errorf("%s: %s %d", r.Name, r.Status, r.ExitCode)
		}
	}
	e.eventually("the exec has ended, too", func() bool {
		about, err := e.ExecInspect(x)
		return err == nil && !about.Running && *about.ExitCode == 137
	})
	if left := append(named("first-process"), named("further-process")...); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// limitParent bounds what all containers of this test may have in processes: the machine survives them.
func (e *engine) limitParent(n int) {
	e.t.Helper()
	for _, dir := range []string{"/sys/fs/cgroup/pids", "/sys/fs/cgroup"} {
		if _, err := os.Stat(dir + e.o.CgroupParent + "/pids.max"); err == nil {
			if err := os.WriteFile(dir+e.o.CgroupParent+"/pids.max", fmt.Append(nil, n), 0o600); err != nil {
				e.t.Fatal(err)
			}
			return
		}
	}
	e.t.Fatal("this host counts no processes")
}

// TestForkBombsEnd: whatever forks faster than anybody lists, leads sessions of its own, ignores signals, and has no parent any more, is dead
// when stop, kill or rm -f has returned, with a limit of processes and without, in a namespace of its own and in the host's.
func TestForkBombsEnd(t *testing.T) {
	e := newEngine(t)
	ctx, now := context.Background(), 0
	steady := e.run(request{name: "steady", cmd: sh("sleep 3600")})
	e.limitParent(120)
	limit, none := int64(100), int64(-1)
	ends := map[string]func(id string) error{
		"stop": func(id string) error { return e.Stop(ctx, id, StopOptions{Timeout: &now}) },
		"kill": func(id string) error { return e.Kill(ctx, id, "KILL") },
		"rm":   func(id string) error { return e.Remove(ctx, id, RemoveOptions{Force: true}) },
	}
	for _, row := range []struct {
		bomb, end string
		h         container.HostConfig
	}{
		{"flood", "stop", container.HostConfig{Resources: container.Resources{PidsLimit: &limit}}},
		{"flood", "rm", container.HostConfig{Resources: container.Resources{PidsLimit: &none}}},
		{"flood", "kill", container.HostConfig{Resources: container.Resources{PidsLimit: &none}, PidMode: "host"}},
		{"runner", "kill", container.HostConfig{Resources: container.Resources{PidsLimit: &none}}},
		{"runner", "rm", container.HostConfig{Resources: container.Resources{PidsLimit: &limit}, PidMode: "host"}},
		{"runner", "stop", container.HostConfig{Resources: container.Resources{PidsLimit: &limit}, PidMode: "host"}},
	} {
		t.Run(row.bomb+" "+row.end+" "+string(row.h.PidMode), func(t *testing.T) {
			word := fmt.Sprintf("bomb-%s-%d", row.bomb, os.Getpid())
			row.h.Binds = []string{e.probe()}
			id := e.run(request{name: "bomb", cmd: []string{"probe", row.bomb, word}, h: row.h})
			first := e.rec(id).Pid
			e.eventually("it has gone off", func() bool {
				return row.bomb == "flood" && len(named(word)) > 50 || e.output(id) == "gone off\n" // runners cannot be seen
			})
			if err := ends[row.end](id); err != nil {
				t.Fatal(err)
			}
			if left := named(word); len(left) > 0 {
				t.Errorf("left after %s: %v", row.end, left)
			}
			if err := unix.Kill(first, 0); err == nil {
				b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", first))
				t.Errorf("the first process is still there: %s", b)
			}
			if row.end != "rm" {
				if r := e.rec(id); r.Status != Exited || r.ExitCode != 137 {
					t.Errorf("%s %d %s", r.Status, r.ExitCode, r.Error)
				}
				if err := e.Remove(ctx, id, RemoveOptions{}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	if r := e.rec(steady); r.Status != Running {
		t.Errorf("the neighbour is %s", r.Status)
	}
}

// zombies counts the dead children of a process that nobody has asked about.
func zombies(t *testing.T, pid int) (n int) {
	t.Helper()
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, f := range lists {
		b, _ := os.ReadFile(f)
		for _, child := range strings.Fields(string(b)) {
			if stat, _ := os.ReadFile("/proc/" + child + "/stat"); strings.Contains(string(stat), ") Z ") {
				n++
			}
		}
	}
	return n
}

// TestZombies: the shim reaps the execs whose parent it is, also those that nobody waits for; --init reaps what loses its parent; and with the
// container all of them go.
func TestZombies(t *testing.T) {
	e := newEngine(t)
	ctx, yes := context.Background(), true
	with := e.run(request{name: "with-init", cmd: sh("sleep 3600"), h: container.HostConfig{Init: &yes}})
	without := e.run(request{name: "without", cmd: []string{"sleep", "3600"}})
	for _, id := range []string{with, without} {
		for i := range 10 {
			// Its child outlives it and ends: an orphan.
			x, err := e.ExecCreate(ctx, id, container.ExecCreateRequest{Cmd: sh("(sleep 0.05; exit 3) & exit " + fmt.Sprint(i))})
			if err != nil {
				t.Fatal(err)
			}
			if err := e.ExecStart(ctx, x, ExecStreams{Detach: true}); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, id := range []string{with, without} {
		pid := e.rec(id).Pid
		shim := parentOf(t, pid)
		e.eventually("the shim has reaped the execs", func() bool {
			b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", shim, shim))
			return zombies(t, shim) == 0 && len(strings.Fields(string(b))) <= 1
		})
		if id == without {
			e.eventually("the orphans are the first process's, which does not care", func() bool { return zombies(t, pid) == 10 })
			continue
		}
		e.eventually("--init has reaped the orphans", func() bool {
			pids, err := members(e, id)
			return err == nil && len(pids) <= 2 && zombies(t, pid) == 0
		})
	}
	pids, err := members(e, without)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Remove(ctx, without, RemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	for _, pid := range pids {
		if err := unix.Kill(pid, 0); err == nil {
			t.Errorf("process %d is left", pid)
		}
	}
}

func members(e *engine, id string) ([]int, error) {
	v, err := e.View(context.Background(), id)
	if err != nil {
		return nil, err
	}
	defer v.Init.Close()
	return v.Cgroup.Procs()
}

// TestFailingExecsLeaveNothing: an exec that cannot be started costs nothing that stays.
func TestFailingExecsLeaveNothing(t *testing.T) {
	e := newEngine(t)
	ctx := context.Background()
	id := e.run(request{name: "box", cmd: sh("sleep 3600")})
	one := func(i int) {
		q := container.ExecCreateRequest{Cmd: []string{"/no/such/program"}, AttachStdout: true, AttachStderr: true, AttachStdin: true, Tty: i%4 == 1}
		if i%4 == 2 {
			q.Cmd, q.User = []string{"true"}, "70000"
		}
		x, err := e.ExecCreate(ctx, id, q)
		if err != nil {
			t.Fatal(err)
		}
		if err := e.ExecStart(ctx, x, ExecStreams{Detach: i%4 == 3, Stdin: strings.NewReader(""), Stdout: &strings.Builder{}, Stderr: &strings.Builder{}}); err == nil {
			t.Fatalf("exec %d has started", i)
		}
	}
	for i := range 8 {
		one(i)
	}
	shim := fmt.Sprint(parentOf(t, e.rec(id).Pid))
	before, own, lives := e.openFiles(shim), e.openFiles("self"), e.goroutines()
	for i := range 200 {
		one(i)
	}
	e.eventually("all is given back", func() bool {
		return e.openFiles(shim) <= before && e.openFiles("self") <= own+spareFiles && e.goroutines() <= lives
	})
}

// spareShim is the one that waits for the next start of this engine.
func (e *engine) spareShim() (pid int) {
	e.t.Helper()
	e.eventually("there is a spare shim", func() bool {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", os.Getpid(), os.Getpid()))
		files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", os.Getpid()))
		for _, f := range files {
			more, _ := os.ReadFile(f)
			b = append(append(b, ' '), more...)
		}
		for _, child := range strings.Fields(string(b)) {
			if name, _ := os.ReadFile("/proc/" + child + "/comm"); strings.TrimSpace(string(name)) == "oar spare" {
				pid = number(e.t, child)
			}
		}
		return pid > 0
	})
	return pid
}

// TestStoppedPeers: a shim, a container's process and a client that are stopped, and a container that is paused, keep nobody else waiting: all
// that is asked about others is answered while what is asked about them is not.
func TestStoppedPeers(t *testing.T) {
	e := newEngine(t)
	ctx, now, forever := context.Background(), 0, -1
	signal := func(pid int, s unix.Signal) {
		t.Helper()
		if err := unix.Kill(pid, s); err != nil {
			t.Fatal(err)
		}
	}
	stuck := e.run(request{name: "stuck", cmd: sh("trap 'exit 5' TERM; while :; do sleep 0.02; done")})
	frozen := e.run(request{name: "frozen", cmd: sh("trap 'exit 6' TERM; while :; do sleep 0.02; done")})
	chatty := e.run(request{name: "chatty", cmd: sh("while ! test -e /tmp/go; do sleep 0.02; done; seq 100000; exit 7")})
	steady := e.run(request{name: "steady", cmd: sh("sleep 3600")})
	paused := e.run(request{name: "paused", cmd: sh("sleep 3600")})
	if err := e.Pause(ctx, paused, PauseOptions{}); err != nil {
		t.Fatal(err)
	}
	shim := shimOf(stuck)
	signal(shim, unix.SIGSTOP)
	defer func() { _ = unix.Kill(shim, unix.SIGCONT) }()
	signal(e.rec(frozen).Pid, unix.SIGSTOP)

	// A client of each that does not go on: it takes no output, and waits for the end of a stop that does not come.
	reads, writes := io.Pipe()
	pending := make(chan string, 3)
	go func() {
		_ = e.Attach(ctx, chatty, AttachOptions{Stdout: writes, Stream: true})
		pending <- "attach"
	}()
	for _, id := range []string{stuck, frozen} {
		go func() {
			_ = e.Stop(ctx, id, StopOptions{Timeout: &forever})
			pending <- id
		}()
	}
	e.eventually("the stops are asked for", func() bool { return e.rec(stuck).Stopped && e.rec(frozen).Stopped })

	if got := e.exec(steady, container.ExecCreateRequest{Cmd: []string{"echo", "here"}}, nil); got.out != "here\n" {
		t.Errorf("%+v", got)
	}
	end := e.arm(chatty, container.WaitConditionNotRunning)
	e.exec(chatty, container.ExecCreateRequest{Cmd: []string{"touch", "/tmp/go"}}, nil)
	if code := e.take(end); code != 7 { // 588 kB, of which the client has taken nothing
		t.Errorf("the container of a stopped client: exit code %d", code)
	}
	spare := e.spareShim()
	signal(spare, unix.SIGSTOP) // the next start takes it
	for i := range 2 {
		if code := e.exitOf(request{name: fmt.Sprint("new", i), cmd: sh("exit 8")}); code != 8 {
			t.Errorf("a new container: exit code %d", code)
		}
	}
	if list, err := e.List(ctx, ListOptions{All: true}); err != nil || len(list) != 7 {
		t.Errorf("%d containers are listed: %v", len(list), err)
	}
	if err := e.Stop(ctx, steady, StopOptions{Timeout: &now}); err != nil {
		t.Error(err)
	}
	if err := e.Remove(ctx, paused, RemoveOptions{Force: true}); err != nil {
		t.Error(err)
	}
	select {
	case who := <-pending:
		t.Errorf("%s was not held up: the test proves nothing", who)
	default:
	}
	signal(shim, unix.SIGCONT)
	signal(e.rec(frozen).Pid, unix.SIGCONT)
	go func() { _, _ = io.Copy(io.Discard, reads) }() // ends with the pipe
	for range 3 {
		<-pending
	}
	writes.Close()
	// A signal that a stopped shim did not take in time is sent by who asks again.
	if err := e.Stop(ctx, stuck, StopOptions{Timeout: &now}); err != nil && !errdefs.IsNotModified(err) {
		t.Error(err)
	}
	if r := e.rec(frozen); r.Status != Exited || r.ExitCode != 6 {
		t.Errorf("frozen: %s %d", r.Status, r.ExitCode)
	}
}
