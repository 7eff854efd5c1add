package main

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/runtime-spec/specs-go/features"
	"golang.org/x/sys/unix"
)

// host is a folder of containers, and a bundle that the test's own container is made from.
type host struct {
	t         *testing.T
	root, dir string
}

// newHost makes a bundle; what the test leaves is deleted, and its control group must then be gone.
func newHost(t *testing.T, change func(*specs.Spec), args ...string) *host {
	t.Helper()
	h := &host{t, t.TempDir(), bundle(t, change, args...)}
	t.Cleanup(func() {
		cmd := oarContext(context.Background(), t, h.root, "delete", "--force", "c")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("delete --force: %v, %s", err, out)
		}
		if _, err := os.Stat("/sys/fs/cgroup/unified/wherry-oar-test/" + filepath.Base(filepath.Dir(h.dir))); err == nil {
			t.Error("the control group is left")
		}
	})
	return h
}

// oar runs a command that succeeds, and returns what it printed.
func (h *host) oar(args ...string) string {
	h.t.Helper()
	out, err := h.try(args...)
	if err != nil {
		h.t.Fatalf("oar %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// try runs a command with files as its streams: a container that has them as its own keeps nobody waiting.
func (h *host) try(args ...string) (string, error) {
	h.t.Helper()
	return h.tryFrom(nil, args...)
}

// atTerminal is oar with a terminal to type at.
func (h *host) atTerminal(args ...string) string {
	h.t.Helper()
	_, slave := openTerminal(h.t)
	out, err := h.tryFrom(slave, args...)
	if err != nil {
		h.t.Fatalf("oar %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// openTerminal makes one; both sides are closed with the test.
func openTerminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	must(t, err)
	t.Cleanup(func() { master.Close() })
	must(t, unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0))
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	must(t, err)
	slave, err = os.OpenFile("/dev/pts/"+strconv.Itoa(number), os.O_RDWR|unix.O_NOCTTY, 0)
	must(t, err)
	t.Cleanup(func() { slave.Close() })
	return master, slave
}

func (h *host) tryFrom(stdin *os.File, args ...string) (string, error) {
	h.t.Helper()
	f, err := os.CreateTemp(h.t.TempDir(), "out")
	must(h.t, err)
	defer f.Close()
	cmd := oarAt(h.t, h.root, args...)
	cmd.Stdout, cmd.Stderr = f, f
	if cmd.SysProcAttr = (&unix.SysProcAttr{Setsid: true}); stdin != nil {
		cmd.Stdin = stdin
	}
	ended := cmd.Run()
	b, err := os.ReadFile(f.Name())
	must(h.t, err)
	return string(b), ended
}

// refuse runs a command that fails, and whose text has the words.
func (h *host) refuse(words string, args ...string) {
	h.t.Helper()
	if out, err := h.try(args...); err == nil || !strings.Contains(out, words) {
		h.t.Errorf("oar %s: %v, %q; want %q", strings.Join(args, " "), err, out, words)
	}
}

// create makes container c with a file as its output.
func (h *host) create(args ...string) {
	h.t.Helper()
	out, err := os.Create(filepath.Join(h.dir, "out"))
	must(h.t, err)
	defer out.Close()
	cmd := oarAt(h.t, h.root, append(append([]string{"create", "-b", h.dir}, args...), "c")...)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Run(); err != nil {
		b, _ := os.ReadFile(out.Name())
		h.t.Fatalf("create: %v, %s", err, b)
	}
}

func (h *host) output() string {
	h.t.Helper()
	b, err := os.ReadFile(filepath.Join(h.dir, "out"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		h.t.Fatal(err)
	}
	return string(b)
}

func (h *host) state() stateOutput {
	h.t.Helper()
	var s stateOutput
	must(h.t, json.Unmarshal([]byte(h.oar("state", "c")), &s))
	return s
}

// await waits for a status.
func (h *host) await(want specs.ContainerState) stateOutput {
	h.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		s := h.state()
		if s.Status == want {
			return s
		}
		if time.Now().After(deadline) {
			h.t.Fatalf("it is %s, not %s; its output: %s", s.Status, want, h.output())
		}
	}
}

func TestLifeCycle(t *testing.T) {
	h := newHost(t, func(s *specs.Spec) { s.Annotations = map[string]string{"a": "b"} }, "sh", "-c", "echo runs; trap 'echo asked; exit 3' TERM; while :; do sleep 0.01; done")
	pidFile := filepath.Join(h.dir, "pid")
	h.create("--pid-file", pidFile)
	s := h.state()
	if s.Status != specs.StateCreated || s.ID != "c" || s.Bundle != h.dir || s.Rootfs != h.dir+"/rootfs" || s.Version != specs.Version || s.Annotations["a"] != "b" {
		t.Errorf("created: %+v", s)
	}
	if b, err := os.ReadFile(pidFile); err != nil || string(b) != strconv.Itoa(s.Pid) || s.Pid == 0 {
		t.Errorf("pid file: %v, %q for %d", err, b, s.Pid)
	}
	if h.output() != "" {
		t.Error("the program runs before start")
	}
	h.refuse("container with given ID already exists", "create", "-b", h.dir, "c")
	h.oar("start", "c")
	if s := h.state(); s.Status != specs.StateRunning {
		t.Errorf("started: %+v", s)
	}
	h.refuse("cannot start an already running container", "start", "c")
	h.refuse("cannot delete container c that is not stopped", "delete", "c")
	var listed []stateOutput
	must(t, json.Unmarshal([]byte(h.oar("list", "-f", "json")), &listed))
	if len(listed) != 1 || listed[0].Pid != s.Pid || listed[0].Status != specs.StateRunning || h.oar("list", "-q") != "c\n" || !strings.Contains(h.oar("list"), h.dir) {
		t.Errorf("list: %+v", listed)
	}
	for !strings.Contains(h.output(), "runs") {
		time.Sleep(time.Millisecond)
	}
	h.oar("kill", "c", "TERM")
	if s := h.await(specs.StateStopped); s.Pid != 0 || !strings.Contains(h.output(), "asked") {
		t.Errorf("stopped: %+v, %q", s, h.output())
	}
	h.refuse("container not running", "kill", "c", "KILL") // also when nobody has waited for its process yet
	h.oar("kill", "-a", "c", "0")
	h.refuse("cannot start a container that has stopped", "start", "c")
	h.refuse("cannot exec in a stopped container", "exec", "c", "true")
	h.oar("delete", "c")
	h.refuse("container does not exist", "state", "c")
	h.refuse("does not exist", "delete", "c")
}

func TestCreatedContainerIsDeleted(t *testing.T) {
	h := newHost(t, nil, "true")
	h.create()
	pid := h.state().Pid
	h.oar("delete", "c")
	if err := unix.Kill(pid, 0); !errors.Is(err, unix.ESRCH) {
		if b, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat"); !strings.Contains(string(b), ") Z ") {
			t.Errorf("process %d is left: %s", pid, b)
		}
	}
}

func TestExecIsConfinedAsRun(t *testing.T) {
	capabilities := &specs.LinuxCapabilities{Bounding: []string{"CAP_KILL", "CAP_CHOWN"}, Effective: []string{"CAP_KILL"}, Permitted: []string{"CAP_KILL"}}
	h := newHost(t, func(s *specs.Spec) {
		s.Process.Capabilities, s.Process.NoNewPrivileges = capabilities, true
		s.Process.Env = append(s.Process.Env, "FROM=config")
		s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"sethostname"}, Action: specs.ActErrno}}}
	}, "sh", "-c", "cat /proc/self/status; exec sleep 1000")
	h.create()
	h.oar("start", "c")
	for !strings.Contains(h.output(), "nonvoluntary") {
		time.Sleep(time.Millisecond)
	}
	run, exec := h.output(), h.oar("exec", "c", "cat", "/proc/self/status")
	for _, key := range []string{"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "Seccomp", "NoNewPrivs", "Uid", "Gid"} {
		if a, b := line(run, key), line(exec, key); a != b || a == "" {
			t.Errorf("%s: run %q, exec %q", key, a, b)
		}
	}
	if out := h.oar("exec", "--cap", "CAP_CHOWN", "c", "cat", "/proc/self/status"); line(out, "CapEff") != "0000000000000021" {
		t.Errorf("with --cap: %s", line(out, "CapEff"))
	}
	for _, ns := range []string{"pid", "mnt", "net", "ipc", "uts"} {
		want, err := os.Readlink("/proc/" + strconv.Itoa(h.state().Pid) + "/ns/" + ns)
		must(t, err)
		if got := h.oar("exec", "c", "sh", "-c", "exec /bin/busybox readlink /proc/self/ns/"+ns); strings.TrimSpace(got) != want {
			t.Errorf("%s: %s, not %s", ns, got, want)
		}
	}
	out := h.oar("exec", "-e", "MORE=x", "--cwd", "/tmp", "-u", "7:8", "-g", "9", "c", "sh", "-c", "/bin/busybox env; /bin/busybox pwd; /bin/busybox id")
	for _, want := range []string{"FROM=config", "MORE=x", "/tmp\n", "uid=7 gid=8 groups=8,9"} {
		if !strings.Contains(out, want) && !strings.Contains(strings.ReplaceAll(out, "groups=9", "groups=8,9"), want) {
			t.Errorf("no %q in %q", want, out)
		}
	}
}

func line(status, key string) string {
	for l := range strings.Lines(status) {
		if v, ok := strings.CutPrefix(l, key+":"); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

func TestExecEndsAsItsProgram(t *testing.T) {
	h := newHost(t, nil, "sleep", "1000")
	h.create()
	h.oar("start", "c")
	for _, row := range []struct {
		code int
		args []string
	}{{0, []string{"true"}}, {5, []string{"sh", "-c", "exit 5"}}, {137, []string{"sh", "-c", "kill -9 $$"}}, {255, []string{"nothing"}}, {255, []string{"/tmp"}}} {
		if out, err := h.try(append([]string{"exec", "c"}, row.args...)...); exitCodeOf(err) != row.code {
			t.Errorf("%q: %v, %q", row.args, err, out)
		}
	}
	process := filepath.Join(h.dir, "process.json")
	must(t, os.WriteFile(process, []byte(`{"args": ["sh", "-c", "echo $X; sleep 1000"], "cwd": "/", "env": ["PATH=/bin", "X=from a file"], "user": {"uid": 5, "gid": 5}}`), 0o600))
	pidFile := filepath.Join(h.dir, "exec.pid")
	h.oar("exec", "--detach", "--process", process, "--pid-file", pidFile, "c")
	b, err := os.ReadFile(pidFile)
	must(t, err)
	var pids []int
	must(t, json.Unmarshal([]byte(h.oar("ps", "-f", "json", "c")), &pids))
	found := false
	for _, p := range pids {
		found = found || strconv.Itoa(p) == string(b)
	}
	if !found {
		t.Errorf("process %s is not among %v", b, pids)
	}
	h.refuse("invalid format option", "ps", "-f", "xml", "c")
}

func TestPauseAndResume(t *testing.T) {
	h := newHost(t, nil, "sh", "-c", "while :; do echo tick; sleep 0.01; done")
	h.create()
	h.refuse("container not paused", "resume", "c")
	h.oar("start", "c")
	h.oar("pause", "c")
	if s := h.state(); s.Status != statusPaused {
		t.Errorf("paused: %+v", s)
	}
	h.refuse("container not running", "pause", "c")
	h.refuse("cannot exec in a paused container", "exec", "c", "true")
	before := h.output()
	time.Sleep(50 * time.Millisecond)
	if h.output() != before {
		t.Error("a paused container goes on")
	}
	h.oar("resume", "c")
	for h.output() == before {
		time.Sleep(time.Millisecond)
	}
	h.oar("pause", "c")
	h.oar("kill", "c", "KILL")
	h.await(specs.StateStopped)
}

func TestUpdateAndEvents(t *testing.T) {
	h := newHost(t, nil, "sleep", "1000")
	h.create()
	h.oar("start", "c")
	h.oar("update", "--memory", "64m", "--pids-limit", "77", "--cpu-quota", "20000", "c")
	var e struct {
		Type string
		ID   string
		Data statistics
	}
	must(t, json.Unmarshal([]byte(h.oar("events", "--stats", "c")), &e))
	if e.Type != "stats" || e.ID != "c" || e.Data.Memory.Usage.Limit != 64<<20 || e.Data.Pids.Limit != 77 || e.Data.Pids.Current != 1 {
		t.Errorf("%+v", e)
	}
	file := filepath.Join(h.dir, "resources.json")
	must(t, os.WriteFile(file, []byte(`{"memory": {"limit": 33554432}, "cpu": {"quota": 0, "shares": 0}, "pids": {"limit": 0}}`), 0o600))
	h.oar("update", "--resources", file, "c")
	must(t, json.Unmarshal([]byte(h.oar("events", "--stats", "c")), &e))
	if e.Data.Memory.Usage.Limit != 32<<20 || e.Data.Pids.Limit != 77 {
		t.Errorf("from a file: %+v", e.Data)
	}
	must(t, os.WriteFile(file, []byte(`{"devices": [{"allow": false, "access": "rwm"}]}`), 0o600)) // as Kubernetes sends it
	h.oar("update", "--resources", file, "c")
	h.oar("exec", "c", "sh", "-c", "echo > /dev/null")
	h.refuse("not a number", "update", "--memory", "much", "c")
	h.refuse("linux.intelRdt", "update", "--l3-cache-schema", "x", "c")
}

// TestDeleteByForce ends what runs, what ignores signals, and what is not there.
func TestDeleteByForce(t *testing.T) {
	h := newHost(t, nil, "sh", "-c", "trap '' TERM; while :; do sleep 0.01; done")
	h.create()
	h.oar("start", "c")
	h.oar("delete", "--force", "c")
	h.refuse("container does not exist", "state", "c")
	h.oar("delete", "-f", "c")
	if _, err := os.Stat(filepath.Join(h.root, "c")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the folder is left: %v", err)
	}
	must(t, os.MkdirAll(filepath.Join(h.root, "c"), 0o700))
	must(t, os.WriteFile(filepath.Join(h.root, "c", recordFile), []byte("{half"), 0o600))
	h.refuse("damaged", "state", "c")
	h.oar("delete", "--force", "c")
}

// TestKillReachesOtherProcesses: without a pid namespace those outlive the first one.
func TestKillReachesOtherProcesses(t *testing.T) {
	h := newHost(t, func(s *specs.Spec) { s.Linux.Namespaces = s.Linux.Namespaces[1:] }, "sh", "-c", "sleep 1000 & exit")
	h.create()
	h.oar("start", "c")
	h.await(specs.StateStopped)
	var pids []int
	must(t, json.Unmarshal([]byte(h.oar("ps", "--format", "json", "c")), &pids))
	if len(pids) != 1 {
		t.Fatalf("processes: %v", pids)
	}
	h.oar("kill", "c", "KILL")
	for deadline := time.Now().Add(10 * time.Second); len(pids) > 0; time.Sleep(2 * time.Millisecond) {
		must(t, json.Unmarshal([]byte(h.oar("ps", "--format", "json", "c")), &pids))
		if time.Now().After(deadline) {
			t.Fatalf("left: %v", pids)
		}
	}
}

// TestHooks: all six, in order, where they belong, with the state on their input and nothing in their environment.
func TestHooks(t *testing.T) {
	trace := filepath.Join(t.TempDir(), "trace")
	say := func(name, file, more string) []specs.Hook {
		return []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "read -r s; echo " + name + " $HOME$FOO $s >> " + file + "; " + more}, Env: []string{"FOO=foo"}}}
	}
	t.Setenv("HOME", "/of/the/caller")
	h := newHost(t, func(s *specs.Spec) {
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/trace", Type: "bind", Source: filepath.Dir(trace), Options: []string{"bind"}})
		s.Hooks = &specs.Hooks{Prestart: say("prestart", trace, ""), CreateRuntime: say("createRuntime", trace, ""),
			CreateContainer: say("createContainer", trace, "hostname >> "+trace), Poststart: say("poststart", trace, ""), Poststop: say("poststop", trace, ""),
			StartContainer: say("startContainer", "/trace/trace", "")}
	}, "sh", "-c", "echo program >> /trace/trace")
	h.create()
	h.oar("start", "c")
	h.await(specs.StateStopped)
	h.oar("delete", "c")
	b, err := os.ReadFile(trace)
	must(t, err)
	var order []string
	for l := range strings.Lines(string(b)) {
		name, rest, _ := strings.Cut(strings.TrimSpace(l), " ")
		order = append(order, name)
		if rest != "" && (!strings.HasPrefix(rest, "foo {") || !strings.Contains(rest, `id:c`) && !strings.Contains(rest, `"id":"c"`)) {
			t.Errorf("%s: %q", name, rest)
		}
	}
	got := strings.Join(order, " ")
	if !strings.HasPrefix(got, "prestart createRuntime createContainer box startContainer ") || !strings.HasSuffix(got, " poststop") ||
		!strings.Contains(got, "program") || !strings.Contains(got, "poststart") {
		t.Errorf("order: %s", got)
	}
}

func TestHookThatFailsOrHangs(t *testing.T) {
	second := 1
	for name, row := range map[string]struct {
		change func(*specs.Hooks)
		words  string
	}{
		"createRuntime": {func(h *specs.Hooks) {
			h.CreateRuntime = []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "echo no >&2; exit 1"}}}
		}, "exit status 1: no"},
		"createContainer": {func(h *specs.Hooks) {
			h.CreateContainer = []specs.Hook{{Path: "/bin/sleep", Args: []string{"sleep", "100"}, Timeout: &second}}
		}, "did not end within 1s"},
		"prestart": {func(h *specs.Hooks) {
			h.Prestart = []specs.Hook{{Path: "/bin/sleep", Args: []string{"sleep", "100"}, Timeout: &second}}
		}, "did not end within 1s"},
		"no such": {func(h *specs.Hooks) { h.CreateContainer = []specs.Hook{{Path: "/no/such"}} }, "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, func(s *specs.Spec) { s.Hooks = &specs.Hooks{}; row.change(s.Hooks) }, "true")
			h.refuse(row.words, "create", "-b", h.dir, "c")
			h.refuse("container does not exist", "state", "c")
		})
	}
	for name, hooks := range map[string]specs.Hooks{"startContainer": {StartContainer: []specs.Hook{{Path: "/bin/no-such"}}}, "poststart": {Poststart: []specs.Hook{{Path: "/bin/no-such"}}}} {
		t.Run(name, func(t *testing.T) {
			told := filepath.Join(t.TempDir(), "told")
			hooks.Poststop = []specs.Hook{{Path: "/bin/false"}, {Path: "/bin/sh", Args: []string{"sh", "-c", "echo stopped > " + told}}}
			h := newHost(t, func(s *specs.Spec) { s.Hooks = &hooks }, "sleep", "1000")
			h.create()
			h.refuse("no-such", "start", "c")
			h.refuse("container does not exist", "state", "c")
			if _, err := os.Stat(told); err != nil {
				t.Errorf("no poststop hook ran behind the one that failed: %v", err)
			}
			h.oar("delete", "--force", "c")
		})
	}
}

func TestCreateRefuses(t *testing.T) {
	h := newHost(t, nil, "no-such-program")
	h.refuse("executable file not found in $PATH", "create", "-b", h.dir, "c")
	h.refuse("container does not exist", "state", "c")
	h.refuse("systemd", "--systemd-cgroup", "create", "-b", h.dir, "c")
	h.refuse("was not passed", "create", "--preserve-fds", "1", "-b", h.dir, "c")
	h.refuse("cannot use console socket", "create", "--console-socket", "/x", "-b", h.dir, "c")
	h.refuse("letters, digits", "create", "-b", h.dir, "../c")
	if _, err := os.Stat(filepath.Join(h.root, "c")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a folder is left: %v", err)
	}
	for _, v := range []string{"", "1", "1.0", "2.0.0", "invalid", "1.0.x"} {
		if validVersion(v) {
			t.Errorf("version %q is taken", v)
		}
	}
	if !validVersion("1.0.0") || !validVersion("1.2.1-dev") {
		t.Error("versions of the specification are refused")
	}
}

func TestErrorsAreLoggedForTheCaller(t *testing.T) {
	h := newHost(t, nil, "true")
	log := filepath.Join(h.dir, "log")
	h.refuse("does not exist", "--log", log, "--log-format", "json", "state", "c")
	b, err := os.ReadFile(log)
	must(t, err)
	var entry map[string]string
	if err := json.Unmarshal(b, &entry); err != nil || entry["level"] != "error" || !strings.Contains(entry["msg"], "does not exist") {
		t.Errorf("%v, %q", err, b)
	}
}

// TestPreservedDescriptors: the program has those that the caller passed, and none of the runtime's.
func TestPreservedDescriptors(t *testing.T) {
	h := newHost(t, nil, "sh", "-c", "echo from inside >&3; ls /proc/self/fd")
	must(t, os.Symlink("busybox", filepath.Join(h.dir, "rootfs/bin/ls")))
	f, err := os.Create(filepath.Join(h.dir, "third"))
	must(t, err)
	defer f.Close()
	out := &lockedBuffer{}
	cmd := oarAt(t, h.root, "run", "--preserve-fds", "1", "-b", h.dir, "c")
	cmd.ExtraFiles, cmd.Stdout, cmd.Stderr = []*os.File{f}, out, out
	if err := cmd.Run(); err != nil || strings.Join(strings.Fields(out.String()), " ") != "0 1 2 3 4" { // 4: the folder that ls reads
		t.Errorf("%v: %q", err, out.String())
	}
	if b, err := os.ReadFile(f.Name()); err != nil || string(b) != "from inside\n" {
		t.Errorf("%v: %q", err, b)
	}
}

func TestSpecAndFeatures(t *testing.T) {
	dir := t.TempDir()
	if out, err := oar(t, "spec", "-b", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v, %s", err, out)
	}
	s, err := readSpec(dir)
	must(t, err)
	if s.Version != specs.Version || len(s.Mounts) == 0 || checkSpec(s, creation{gate: true, consoleSocket: "x"}) != nil {
		t.Errorf("%+v", s)
	}
	if out, err := oar(t, "spec", "-b", dir).CombinedOutput(); err == nil || !strings.Contains(string(out), "exists already") {
		t.Errorf("over one that is there: %v, %s", err, out)
	}
	out, err := oar(t, "features").Output()
	must(t, err)
	var f features.Features
	must(t, json.Unmarshal(out, &f))
	if l := f.Linux; f.OCIVersionMax != specs.Version || len(f.Hooks) != 6 || len(f.MountOptions) < 64 || len(l.Namespaces) != 8 || len(l.MemoryPolicy.Modes) != 7 ||
		len(l.MemoryPolicy.Flags) != 3 || !*l.IntelRdt.Schemata || !*l.IntelRdt.Monitoring || !*l.NetDevices.Enabled || !*l.Cgroup.Rdma || !*l.MountExtensions.IDMap.Enabled ||
		!slices.Contains(f.PotentiallyUnsafeConfigAnnotations, "org.systemd.property.") || !slices.Contains(f.PotentiallyUnsafeConfigAnnotations, keepGroupsAnnotation) {
		t.Errorf("%s", out)
	}
	// What it writes runs, when there is a root file system.
	s.Process.Terminal, s.Process.Args = false, []string{"sh", "-c", "echo $(cat /proc/self/cgroup | wc -l) >/dev/null; echo well"}
	h := newHost(t, func(to *specs.Spec) { cgroup := to.Linux.CgroupsPath; *to = *s; to.Linux.CgroupsPath = cgroup }, "sh")
	must(t, os.Symlink("busybox", filepath.Join(h.dir, "rootfs/bin/wc")))
	if got := h.oar("run", "-b", h.dir, "c"); got != "well\n" {
		t.Errorf("%q", got)
	}
}
