package task

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"wherry.dev/wherry/internal/cgroup"
	"wherry.dev/wherry/internal/logs"
	"wherry.dev/wherry/internal/rootfs"
)

// oar builds the runtime; the build cache makes that quick but for the first time.
func oar(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "oar")
	cmd := exec.Command("go", "build", "-o", path, "../../cmd/oar")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build oar: %v\n%s", err, out)
	}
	return path
}

// options of a busybox container in its own user namespace.
func options(t testing.TB, oar, id string, args ...string) CreateOptions {
	t.Helper()
	dir := t.TempDir()
	layer, upper, work := filepath.Join(dir, "layer"), filepath.Join(dir, "upper"), filepath.Join(dir, "work")
	for _, d := range []string{"bin", "proc", "dev", "sys", "tmp"} {
		if err := os.MkdirAll(filepath.Join(layer, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(layer, "bin/busybox"), b, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, applet := range []string{"sh", "sleep", "cat", "echo", "stty", "tty", "tail", "ps", "true", "id", "mount"} {
		if err := os.Symlink("busybox", filepath.Join(layer, "bin", applet)); err != nil {
			t.Fatal(err)
		}
	}
	const base = 0x20000000
	for _, d := range []string{upper, work} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(d, base, base); err != nil {
			t.Fatal(err)
		}
	}
	ids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: base, Size: 65536}}
	return CreateOptions{Oar: oar, Dir: filepath.Join(dir, "task"), ID: id, Log: LogOptions{Dir: filepath.Join(dir, "log")},
		Rootfs: &rootfs.Rootfs{Lower: []string{layer}, Upper: upper, Work: work, IDMap: rootfs.IDMap{Base: base, Size: 65536}},
		Spec: &specs.Spec{Version: specs.Version, Root: &specs.Root{Path: "rootfs"}, Hostname: "box",
			Process: &specs.Process{Args: args, Cwd: "/", Env: []string{"PATH=/bin"}},
			Mounts: []specs.Mount{{Destination: "/proc", Type: "proc"}, {Destination: "/dev", Type: "tmpfs", Options: []string{"mode=755"}},
				{Destination: "/dev/pts", Type: "devpts", Options: []string{"newinstance", "ptmxmode=0666", "mode=0620"}}},
			Linux: &specs.Linux{UIDMappings: ids, GIDMappings: ids, CgroupsPath: "/wherry-task-test/" + id,
				Namespaces: []specs.LinuxNamespace{{Type: "pid"}, {Type: "mount"}, {Type: "user"}, {Type: "ipc"}, {Type: "uts"}, {Type: "network"}, {Type: "cgroup"}}}}}
}

func create(t *testing.T, o CreateOptions) *Task {
	t.Helper()
	tk, err := Create(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tk.Close() })
	return tk
}

func output(t *testing.T, o CreateOptions) string { return read(t, o, logs.ReadOptions{}) }

// peek is what has been printed so far.
func peek(t *testing.T, o CreateOptions) string { return read(t, o, logs.ReadOptions{}) }

func read(t *testing.T, o CreateOptions, options logs.ReadOptions) string {
	t.Helper()
	r, err := logs.Open(o.Log.Dir, options)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var s strings.Builder
	for {
		e, err := r.Next(t.Context())
		if err == io.EOF {
			return s.String()
		}
		if err != nil {
			t.Fatal(err)
		}
		s.Write(e.Data)
	}
}

func TestLife(t *testing.T) {
	o := options(t, oar(t), "life", "sh", "-c", "echo $$ to stdout; echo to stderr >&2; exit 7")
	tk := create(t, o)
	if err := tk.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	exit, err := tk.Wait(t.Context())
	if err != nil || exit.Code != 7 || exit.Signal != 0 || !exit.Started {
		t.Fatalf("%v %+v", err, exit)
	}
	if out := output(t, o); !strings.Contains(out, "1 to stdout\n") || !strings.Contains(out, "to stderr\n") {
		t.Fatalf("log: %q", out)
	}
	if err := tk.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(o.Dir); !os.IsNotExist(err) {
		t.Fatal("the task's folder is left")
	}
}

// TestLastLeavesItsGroupToDelete: the end of a task that is not started again is told before its control group goes, which then is Delete's, in
// this life of the engine or in the next.
func TestLastLeavesItsGroupToDelete(t *testing.T) {
	for _, comesBack := range []bool{false, true} {
		o := options(t, oar(t), "last", "true")
		o.Last = true
		tk := create(t, o)
		g, err := cgroup.Open(o.Spec.Linux.CgroupsPath)
		if err != nil {
			t.Fatal(err)
		}
		if err := tk.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := tk.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		there := func() bool {
			for _, dir := range g.Dirs() {
				if _, err := os.Stat(dir); err == nil {
					return true
				}
			}
			return false
		}
		if !there() {
			t.Error("its group has gone before its end was told")
		}
		if comesBack {
			tk.Close()
			if tk, err = Open(t.Context(), o.Dir); err != nil {
				t.Fatal(err)
			}
		}
		if err := tk.Delete(t.Context()); err != nil {
			t.Fatal(err)
		}
		if there() {
			t.Error("its group is left")
		}
	}
}

func TestEngineComesBack(t *testing.T) {
	o := options(t, oar(t), "again", "sh", "-c", "sleep 0.3; echo said; exit 9")
	tk := create(t, o)
	if err := tk.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	pid := tk.Pid()
	tk.Close()
	back, err := Open(t.Context(), o.Dir)
	if err != nil || back.Pid() != pid || !back.Started() {
		t.Fatalf("%v: pid %d, not %d", err, back.Pid(), pid)
	}
	back.Close()
	// The container ends while nobody is there; the exit status is on disk.
	deadline := time.Now().Add(time.Minute)
	for {
		if _, err := os.Stat(filepath.Join(o.Dir, "exit.json")); err == nil || time.Now().After(deadline) {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	last, err := Open(t.Context(), o.Dir)
	if err != nil {
		t.Fatal(err)
	}
	exit, err := last.Wait(t.Context())
	if err != nil || exit.Code != 9 {
		t.Fatalf("%v %+v", err, exit)
	}
	if out := output(t, o); out != "said\n" {
		t.Fatalf("log: %q", out)
	}
	if err := last.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestExec(t *testing.T) {
	o := options(t, oar(t), "exec", "sleep", "1000")
	tk := create(t, o)
	if err := tk.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := tk.Delete(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p, err := tk.Exec(t.Context(), ExecOptions{ID: "1", Out: w, Process: &specs.Process{Args: []string{"sh", "-c", "echo in $$; cat /proc/1/cmdline; exit 3"}, Cwd: "/", Env: []string{"PATH=/bin"}}})
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	out, _ := io.ReadAll(r)
	if code, err := p.Wait(t.Context()); err != nil || code != 3 {
		t.Fatalf("%v, code %d", err, code)
	}
	if !strings.Contains(string(out), "sleep\x001000") {
		t.Fatalf("%q", out)
	}
	for path, want := range map[string]int{"nothing": 127, "/proc": 126} {
		_, err = tk.Exec(t.Context(), ExecOptions{ID: "2", Process: &specs.Process{Args: []string{path}, Cwd: "/", Env: []string{"PATH=/bin"}}})
		if e, ok := err.(*ExecError); !ok || e.Code != want {
			t.Fatalf("%s: %v", path, err)
		}
	}
}

func TestTerminal(t *testing.T) {
	o := options(t, oar(t), "tty", "sh", "-c", "tty; read x; stty size; echo got $x")
	o.Spec.Process.Terminal = true
	tk := create(t, o)
	if err := tk.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := tk.Resize(t.Context(), 33, 77); err != nil {
		t.Fatal(err)
	}
	in, err := tk.Stdin(t.Context())
	if err != nil || in == nil {
		t.Fatalf("%v %v", err, in)
	}
	if _, err := in.WriteString("typed\n"); err != nil {
		t.Fatal(err)
	}
	if exit, err := tk.Wait(t.Context()); err != nil || exit.Code != 0 {
		t.Fatalf("%v %+v", err, exit)
	}
	out := output(t, o)
	for _, want := range []string{"/dev/pts/0", "33 77", "got typed"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in %q", want, out)
		}
	}
	in.Close()
	if err := tk.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestShimDies(t *testing.T) {
	o := options(t, oar(t), "lost", "sleep", "1000")
	tk := create(t, o)
	if err := tk.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	shim := parent(t, tk.Pid())
	if err := syscall.Kill(shim, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	exit, err := tk.Wait(t.Context())
	if err != nil || !exit.Lost || exit.Code != 137 {
		t.Fatalf("%v %+v", err, exit)
	}
	if b, err := os.ReadFile("/proc/" + itoa(tk.Pid()) + "/cmdline"); err == nil && strings.HasPrefix(string(b), "sleep") {
		t.Fatal("the container's process still lives")
	}
	if err := tk.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestShimNotAsked: an engine that could not ask a shim, or went before that answered, has learnt nothing of it, and ends nothing.
func TestShimNotAsked(t *testing.T) {
	o := options(t, oar(t), "unasked", "sleep", "1000")
	tk := create(t, o)
	if err := tk.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	pid, shim := tk.Pid(), parent(t, tk.Pid())
	if err := tk.Close(); err != nil {
		t.Fatal(err)
	}
	unanswered := func(t *testing.T) error {
		if err := syscall.Kill(shim, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = syscall.Kill(shim, syscall.SIGCONT) }()
		for wait := time.Now().Add(20 * time.Second); !stopped(t, shim); time.Sleep(time.Millisecond) {
			if time.Now().After(wait) {
				t.Fatal("the shim does not stop")
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		_, err := Open(ctx, o.Dir)
		return err
	}
	without := func(spare int) func(t *testing.T) error {
		return func(t *testing.T) error {
			entries, err := os.ReadDir("/proc/self/fd")
			if err != nil {
				t.Fatal(err)
			}
			var had syscall.Rlimit
			if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &had); err != nil {
				t.Fatal(err)
			}
			last, err := strconv.Atoi(entries[len(entries)-2].Name()) // the last one was the folder's
			if err != nil {
				t.Fatal(err)
			}
			if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: uint64(last + 1 + spare), Max: had.Max}); err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &had); err != nil {
					t.Error(err)
				}
			}()
			_, err = Open(t.Context(), o.Dir)
			return err
		}
	}
	for name, open := range map[string]func(*testing.T) error{"stopped": unanswered, "no descriptor": without(0), "one descriptor": without(1), "two descriptors": without(2)} {
		t.Run(name, func(t *testing.T) {
			if err := open(t); err == nil || errdefs.IsNotFound(err) {
				t.Errorf("opened: %v", err)
			}
			if err := syscall.Kill(pid, 0); err != nil {
				t.Fatalf("the container's process: %v", err)
			}
		})
	}
	again, err := Open(t.Context(), o.Dir)
	if err != nil || again.Pid() != pid {
		t.Fatalf("then: %v", err)
	}
	if err := again.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// stopped says that all threads of a process have come to a stop.
func stopped(t *testing.T, pid int) bool {
	t.Helper()
	files, err := filepath.Glob("/proc/" + itoa(pid) + "/task/*/stat")
	if err != nil || len(files) == 0 {
		t.Fatalf("the threads of %d: %v", pid, err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil || !strings.HasPrefix(string(b[strings.LastIndexByte(string(b), ')')+1:]), " T") {
			return false
		}
	}
	return true
}

// TestExitOnAFullDisk: an exit status that there is no room for is kept by the shim until there is.
func TestExitOnAFullDisk(t *testing.T) {
	o := options(t, oar(t), "full", "sh", "-c", "read x; exit 7")
	o.Stdin = true
	small := filepath.Dir(o.Dir) + "/small"
	if err := os.Mkdir(small, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", small, "tmpfs", 0, "size=256k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(small, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	o.Dir = filepath.Join(small, "task")
	tk := create(t, o)
	if err := tk.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	in, err := tk.Stdin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := tk.Close(); err != nil {
		t.Fatal(err)
	}
	fill, err := os.Create(filepath.Join(small, "fill"))
	for block := make([]byte, 4096); err == nil; {
		_, err = fill.Write(block)
	}
	fill.Close()
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	if _, err := in.WriteString("\n"); err != nil {
		t.Fatal(err)
	}
	in.Close()
	path := "/proc/" + itoa(tk.Pid())
	for wait := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(path); err != nil {
			break
		}
		if time.Now().After(wait) {
			t.Fatal("the container does not end")
		}
	}
	again, err := Open(t.Context(), o.Dir) // asks the shim
	if err != nil {
		t.Fatal(err)
	}
	if exit, err := again.Wait(t.Context()); err != nil || exit.Code != 7 || exit.Lost {
		t.Errorf("%v %+v", err, exit)
	}
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(fill.Name()); err != nil {
		t.Fatal(err)
	}
	for wait := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(filepath.Join(o.Dir, "exit.json")); err == nil {
			break
		}
		if time.Now().After(wait) {
			t.Fatal("with room the exit status is not written")
		}
	}
	last, err := Open(t.Context(), o.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if exit, err := last.Wait(t.Context()); err != nil || exit.Code != 7 || exit.Lost {
		t.Errorf("with room: %v %+v", err, exit)
	}
	if err := last.Delete(t.Context()); err != nil {
		t.Error(err)
	}
}

func itoa(n int) string { return strconv.Itoa(n) }

func parent(t *testing.T, pid int) int {
	t.Helper()
	b, err := os.ReadFile("/proc/" + itoa(pid) + "/stat")
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	n := 0
	for _, c := range fields[1] {
		n = n*10 + int(c-'0')
	}
	return n
}

// TestShimDeadAndItsSocketAlive: whoever keeps a dead shim's socket, as an exec's process does that stands still before its program, does not keep
// the engine waiting for the shim.
func TestShimDeadAndItsSocketAlive(t *testing.T) {
	o := options(t, oar(t), "socketlives", "sleep", "1000")
	tk := create(t, o)
	if err := tk.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	pid, shimPid := tk.Pid(), parent(t, tk.Pid())
	g, err := cgroup.Open(o.Spec.Linux.CgroupsPath)
	if err == nil {
		err = errors.Join(tk.Close(), g.Freeze(t.Context()), syscall.Kill(shimPid, syscall.SIGKILL))
	}
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.Open(o.Dir)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	at := socketAddress(dir)
	if err := os.Remove(at.Name); err != nil {
		t.Fatal(err)
	}
	l, err := net.ListenUnix("unix", at)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err := Open(ctx, o.Dir); !errdefs.IsNotFound(err) {
		t.Errorf("opened: %v", err)
	}
	if b, err := os.ReadFile("/proc/" + itoa(pid) + "/cmdline"); err == nil && strings.HasPrefix(string(b), "sleep") {
		t.Error("the container's process still lives")
	}
}
