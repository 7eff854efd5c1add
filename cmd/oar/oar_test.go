package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"wherry.dev/wherry/internal/cgroup"
)

// binaries are oar as the Makefile links it, without an entry of its own (plain), and the program that looks around in containers.
var binaries = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "wherry-oar-test-")
	if err != nil {
		return "", err
	}
	for name, build := range map[string][]string{"oar": {"-ldflags=-E oar_entry", "."}, "plain": {"."}, "probe": {"../../internal/ociruntime/testdata/probe"}} {
		cmd := exec.Command("go", append([]string{"build", "-o", filepath.Join(dir, name)}, build...)...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return dir, errors.New(string(out))
		}
	}
	return dir, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if dir, _ := binaries(); dir != "" {
		os.RemoveAll(dir)
	}
	if g, err := cgroup.Open("/wherry-oar-test"); err == nil {
		_ = g.Delete()
	}
	os.Exit(code)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// bundle makes one with a busybox image; change edits its configuration.
func bundle(t *testing.T, change func(*specs.Spec), args ...string) string {
	t.Helper()
	bin, err := binaries()
	must(t, err)
	dir := t.TempDir()
	for _, d := range []string{"bin", "proc", "dev", "sys", "tmp"} {
		must(t, os.MkdirAll(filepath.Join(dir, "rootfs", d), 0o755))
	}
	for from, to := range map[string]string{"/bin/busybox": "busybox", bin + "/oar": "oar", bin + "/probe": "probe"} {
		b, err := os.ReadFile(from)
		must(t, err)
		must(t, os.WriteFile(filepath.Join(dir, "rootfs/bin", to), b, 0o755))
	}
	for _, a := range strings.Fields("sh sleep cat echo true kill setsid id test readlink touch") {
		must(t, os.Symlink("busybox", filepath.Join(dir, "rootfs/bin", a)))
	}
	s := &specs.Spec{Version: specs.Version, Root: &specs.Root{Path: "rootfs"}, Hostname: "box", Process: &specs.Process{Args: args, Cwd: "/", Env: []string{"PATH=/bin"}},
		Mounts: []specs.Mount{{Destination: "/proc", Type: "proc"}, {Destination: "/dev", Type: "tmpfs"}, {Destination: "/dev/pts", Type: "devpts"}},
		Linux: &specs.Linux{CgroupsPath: "/wherry-oar-test/" + filepath.Base(filepath.Dir(dir)),
			Namespaces: []specs.LinuxNamespace{{Type: "pid"}, {Type: "mount"}, {Type: "ipc"}, {Type: "uts"}, {Type: "network"}}}}
	if change != nil {
		change(s)
	}
	b, err := json.Marshal(s)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "config.json"), b, 0o644))
	return dir
}

func oar(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	return oarAt(t, t.TempDir(), args...)
}

// oarAt keeps its containers' states below root.
func oarAt(t *testing.T, root string, args ...string) *exec.Cmd {
	t.Helper()
	return oarContext(t.Context(), t, root, args...)
}

func oarContext(ctx context.Context, t *testing.T, root string, args ...string) *exec.Cmd {
	t.Helper()
	bin, err := binaries()
	must(t, err)
	return exec.CommandContext(ctx, bin+"/oar", append([]string{"--root", root}, args...)...)
}

func exitCodeOf(err error) int {
	var e *exec.ExitError
	if errors.As(err, &e) {
		return e.ExitCode()
	}
	if err != nil {
		return -1
	}
	return 0
}

func TestRunEndsAsItsProgram(t *testing.T) {
	rows := map[string]struct {
		args []string
		code int
		says string
	}{
		"well":           {[]string{"echo", "hello"}, 0, "hello\n"},
		"code":           {[]string{"sh", "-c", "echo to stderr >&2; exit 5"}, 5, "to stderr\n"},
		"no such":        {[]string{"nothing"}, 1, "not found"},
		"not executable": {[]string{"/tmp"}, 1, "permission denied"},
	}
	for name, row := range rows {
		cmd := oar(t, "run", "--bundle", bundle(t, nil, row.args...), "x")
		out, err := cmd.CombinedOutput()
		if exitCodeOf(err) != row.code || !strings.Contains(string(out), row.says) {
			t.Errorf("%s: %v, %q", name, err, out)
		}
	}
}

func TestRunPassesInputAndSignals(t *testing.T) {
	dir := bundle(t, nil, "sh", "-c", "trap 'echo asked to end; exit 7' TERM; read x; echo got $x; while :; do sleep 0.01; done")
	cmd := oar(t, "run", "-b", dir, "x")
	cmd.Stdin = strings.NewReader("a line\n")
	out := &lockedBuffer{}
	cmd.Stdout, cmd.Stderr = out, out
	must(t, cmd.Start())
	out.await(t, "got a line\n")
	must(t, cmd.Process.Signal(syscall.SIGTERM))
	if err := cmd.Wait(); exitCodeOf(err) != 7 || !strings.Contains(out.String(), "asked to end") {
		t.Errorf("%v: %q", err, out.String())
	}
	for _, controller := range []string{"unified", "memory", "pids"} {
		if _, err := os.Stat("/sys/fs/cgroup/" + controller + "/wherry-oar-test/" + filepath.Base(filepath.Dir(dir))); err == nil {
			t.Errorf("the group of %s is left", controller)
		}
	}
}

// TestRunsFromAReadOnlyBinary: where the container's root is the host's, the process before its execve leads to a file nobody can write to;
// both by the entry and by Go's own hand.
func TestRunsFromAReadOnlyBinary(t *testing.T) {
	bin, err := binaries()
	must(t, err)
	for _, name := range []string{"oar", "plain"} {
		t.Run(name, func(t *testing.T) { readOnlyBinary(t, filepath.Join(bin, name)) })
	}
}

func readOnlyBinary(t *testing.T, program string) {
	run := func(args ...string) (*exec.Cmd, string) {
		dir := bundle(t, nil, args...)
		return exec.CommandContext(t.Context(), program, "--root", t.TempDir(), "run", "-b", dir, "x"), dir
	}
	cmd, _ := run("/proc/self/exe", "hello")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "Hello from") {
		t.Fatalf("%v: %q", err, out)
	}
	cmd, dir := run("/proc/self/exe", "hello", "--wait")
	text := &lockedBuffer{}
	cmd.Stdout, cmd.Stderr = text, text
	must(t, cmd.Start())
	defer func() { _ = cmd.Process.Signal(syscall.SIGTERM); _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	text.await(t, "Hello from")
	pids, err := os.ReadFile("/sys/fs/cgroup/unified/wherry-oar-test/" + filepath.Base(filepath.Dir(dir)) + "/cgroup.procs")
	must(t, err)
	pid := strings.TrimSpace(string(pids))
	defer func() { n, _ := strconv.Atoi(pid); _ = syscall.Kill(n, syscall.SIGKILL) }()
	var st syscall.Statfs_t
	must(t, syscall.Statfs("/proc/"+pid+"/exe", &st))
	if st.Flags&syscall.MS_RDONLY == 0 {
		t.Error("the container's process runs from a mount that can be written to")
	}
}

func TestTraceNamesTheSteps(t *testing.T) {
	out, err := oar(t, "run", "--trace", "-b", bundle(t, nil, "true"), "x").CombinedOutput()
	must(t, err)
	for _, step := range []string{"read the configuration", "make the control group", "clone the child", "start the program",
		"  enter the control groups", "  change the root", "  take rights away", "remove the control group"} {
		if !strings.Contains(string(out), "µs  "+step) {
			t.Errorf("no %q in %q", step, out)
		}
	}
}

// TestInit is the first process of --init: it reaps what others leave, passes signals on, and ends as its command does.
func TestInit(t *testing.T) {
	orphans := "for i in 1 2 3 4 5; do (sleep 0.05 & ); done; sleep 0.3; probe zombies; exit 9"
	out, err := oar(t, "run", "-b", bundle(t, nil, "oar", "init", "--", "sh", "-c", orphans), "x").CombinedOutput()
	if exitCodeOf(err) != 9 || string(out) != "0\n" {
		t.Errorf("with init: %v, %q", err, out)
	}
	for name, row := range map[string]struct {
		args []string
		code int
	}{"signal": {[]string{"sh", "-c", "kill -TERM $$"}, 128 + 15}, "no such": {[]string{"nothing"}, 127}, "not a program": {[]string{"/tmp"}, 126}} {
		out, err := oar(t, "run", "-b", bundle(t, nil, append([]string{"oar", "init", "--"}, row.args...)...), "x").CombinedOutput()
		if exitCodeOf(err) != row.code {
			t.Errorf("%s: %v, %q", name, err, out)
		}
	}
	dir := bundle(t, nil, "oar", "init", "--", "sh", "-c", "trap 'echo usr1' USR1; trap 'echo term; exit 3' TERM; echo ready; while :; do sleep 0.01; done")
	cmd := oar(t, "run", "-b", dir, "x")
	text := &lockedBuffer{}
	cmd.Stdout, cmd.Stderr = text, text
	must(t, cmd.Start())
	text.await(t, "ready")
	must(t, cmd.Process.Signal(syscall.SIGUSR1))
	text.await(t, "usr1")
	must(t, cmd.Process.Signal(syscall.SIGTERM))
	if err := cmd.Wait(); exitCodeOf(err) != 3 {
		t.Errorf("%v: %q", err, text.String())
	}
}

func TestHelloSaysWhatItSees(t *testing.T) {
	out, err := oar(t, "run", "-b", bundle(t, func(s *specs.Spec) {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: "cgroup"})
	}, "oar", "hello"), "x").CombinedOutput()
	must(t, err)
	for _, want := range []string{"process id         1, of 1", "host name          box", "user               0, group 0", "interfaces         lo", "pid:[", "net:[", "mnt:[", "uts:[", "ipc:[", "user:[", "cgroup:[", "memory", "processors", "seccomp            off"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{{"nonsense"}, {"run"}, {"run", "a", "b"}, {"run", "--no-such", "x"}, {"run", "-b", "/no/such", "x"}, {"init"}, {"shim", "x"}} {
		out, err := oar(t, args...).CombinedOutput()
		if code := exitCodeOf(err); code != 1 && code != 2 || len(out) == 0 {
			t.Errorf("%q: %v, %q", args, err, out)
		}
	}
	if out, err := oar(t, "version").Output(); err != nil || !strings.HasPrefix(string(out), "oar version ") || !strings.Contains(string(out), "\ncommit: ") || !strings.Contains(string(out), "\nspec: ") {
		t.Errorf("%v: %q", err, out)
	}
}

// lockedBuffer is written by a process while the test reads it.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func (b *lockedBuffer) await(t *testing.T, text string) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !strings.Contains(b.String(), text); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("no %q in %q", text, b.String())
		}
	}
}

func TestRunWithoutAPivot(t *testing.T) {
	out, err := oar(t, "run", "--no-pivot", "-b", bundle(t, nil, "cat", "/proc/1/comm"), "x").CombinedOutput()
	if err != nil || string(out) != "cat\n" {
		t.Errorf("%v: %q", err, out)
	}
}
