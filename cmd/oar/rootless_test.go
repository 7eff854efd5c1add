package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// plain is the user of these tests: one that every Debian has, with a name, which newuidmap(1) asks for, and nothing of its own.
const plain = 1

// person is somebody who is not root, with a bundle and a runtime of his own.
type person struct {
	t         *testing.T
	uid       uint32
	dir, root string   // the bundle; where his containers' states lie
	before    []string // a command that runs theirs
	asRoot    bool     // it is root's, and becomes the user
}

// newPerson makes a bundle that maps nobody but the user.
func newPerson(t *testing.T, change func(*specs.Spec), args ...string) *person {
	t.Helper()
	u := &person{t: t, uid: plain}
	own := []specs.LinuxIDMapping{{HostID: plain, Size: 1}}
	u.dir = bundle(t, func(s *specs.Spec) {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
		s.Linux.UIDMappings, s.Linux.GIDMappings, s.Linux.CgroupsPath = own, slices.Clone(own), ""
		s.Mounts[1].Options = []string{"mode=755"} // of /dev
		if change != nil {
			change(s)
		}
	}, args...)
	u.root = filepath.Join(u.dir, "states")
	u.own()
	t.Cleanup(func() {
		c, _ := (&store{root: u.root}).load("c")
		cmd := u.command(context.Background(), "--root", u.root, "delete", "--force", "c")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("delete --force: %v, %s", err, out)
		}
		if c != nil {
			if pidfd, alive := c.process(); alive {
				pidfd.Close()
				t.Errorf("process %d outlives its container", c.Pid)
			}
		}
	})
	return u
}

// own gives the bundle to the user.
func (u *person) own() {
	u.t.Helper()
	must(u.t, os.Chmod(filepath.Dir(u.dir), 0o755))
	must(u.t, filepath.WalkDir(u.dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, int(u.uid), int(u.uid))
	}))
}

// command is an oar of the user's own.
func (u *person) command(ctx context.Context, args ...string) *exec.Cmd {
	line := append(append([]string{}, u.before...), u.dir+"/rootfs/bin/oar")
	line = append(line, args...)
	cmd := exec.CommandContext(ctx, line[0], line[1:]...)
	cmd.Env, cmd.Dir = []string{"PATH=/usr/bin:/bin:/usr/sbin:/sbin"}, u.dir
	if !u.asRoot {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: u.uid, Gid: u.uid}}
	}
	return cmd
}

// try runs a command with a file as its streams: a container that has it as its own keeps nobody waiting.
func (u *person) try(args ...string) (string, error) {
	u.t.Helper()
	f, err := os.CreateTemp(u.t.TempDir(), "out")
	must(u.t, err)
	defer f.Close()
	cmd := u.command(u.t.Context(), append([]string{"--root", u.root}, args...)...)
	cmd.Stdout, cmd.Stderr = f, f
	ended := cmd.Run()
	b, err := os.ReadFile(f.Name())
	must(u.t, err)
	return string(b), ended
}

// execFromPipe has a process executed whose description can be read once.
func (u *person) execFromPipe(id, process string) string {
	u.t.Helper()
	r, w, err := os.Pipe()
	must(u.t, err)
	defer r.Close()
	must(u.t, r.Chown(int(u.uid), -1))
	_, err = w.WriteString(process)
	must(u.t, errors.Join(err, w.Close()))
	cmd := u.command(u.t.Context(), "--root", u.root, "exec", "--process", "/proc/self/fd/0", id)
	cmd.Stdin = r
	out, err := cmd.CombinedOutput()
	if err != nil {
		u.t.Errorf("exec: %v", err)
	}
	return string(out)
}

func (u *person) oar(args ...string) string {
	u.t.Helper()
	out, err := u.try(args...)
	if err != nil {
		u.t.Fatalf("oar %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func (u *person) refuse(words string, args ...string) {
	u.t.Helper()
	if out, err := u.try(args...); err == nil || !strings.Contains(out, words) {
		u.t.Errorf("oar %s: %v, %q; want %q", strings.Join(args, " "), err, out, words)
	}
}

func (u *person) status() specs.ContainerState {
	u.t.Helper()
	var s stateOutput
	must(u.t, json.Unmarshal([]byte(u.oar("state", "c")), &s))
	return s.Status
}

func (u *person) await(want specs.ContainerState) {
	u.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); u.status() != want; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			u.t.Fatalf("it is %s, not %s", u.status(), want)
		}
	}
}

// TestRootlessLifeCycle: every command, of a user without any right, who has no control group.
func TestRootlessLifeCycle(t *testing.T) {
	limit := int64(64 << 20)
	u := newPerson(t, func(s *specs.Spec) {
		s.Linux.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit}}
		s.Hooks = &specs.Hooks{StartContainer: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "echo hooked > /tmp/hook"}}}}
	}, "sh", "-c", "trap 'exit 3' TERM; cat /tmp/hook; > /tmp/ready; while :; do sleep 0.01; done")
	if out := u.oar("create", "--pid-file", u.dir+"/pid", "c"); !strings.Contains(out, "without these limits") {
		t.Errorf("a limit that cannot be had: %q", out)
	}
	if s := u.status(); s != specs.StateCreated {
		t.Errorf("created: %s", s)
	}
	u.refuse("already exists", "create", "c")
	u.oar("start", "c")
	if out := u.oar("list"); !strings.Contains(out, "running") || !strings.Contains(out, " daemon") {
		t.Errorf("list: %q", out)
	}
	u.oar("exec", "c", "sh", "-c", "until [ -e /tmp/ready ]; do sleep 0.01; done")
	if out := u.oar("exec", "c", "cat", "/tmp/hook", "/proc/self/cgroup", "/proc/self/uid_map"); !strings.HasPrefix(out, "hooked\n") {
		t.Errorf("exec: %q", out)
	}
	out, err := u.try("exec", "c", "sh", "-c", "exit 9")
	if exitCodeOf(err) != 9 {
		t.Errorf("exec: %v, %q", err, out)
	}
	if out := u.execFromPipe("c", `{"args": ["sh", "-c", "echo from a pipe"], "cwd": "/"}`); out != "from a pipe\n" {
		t.Errorf("exec of a process from a pipe: %q", out)
	}
	u.refuse("not mapped", "exec", "-u", "5", "c", "true")
	u.refuse("not mapped", "exec", "-u", "0:5", "c", "true")
	u.refuse("may not set groups", "exec", "-g", "0", "c", "true")
	pid, err := os.ReadFile(u.dir + "/pid")
	must(t, err)
	if out := u.oar("ps", "--format", "json", "c"); !strings.Contains(out, string(pid)) {
		t.Errorf("ps: %s is not in %q", pid, out)
	}
	for _, command := range []string{"pause", "update", "events"} {
		u.refuse("it has no control group", command, "c")
	}
	u.oar("kill", "c", "TERM")
	u.await(specs.StateStopped)
	u.oar("delete", "c")
	u.refuse("does not exist", "state", "c")
}

// TestRootlessRunIsTheirs: run passes signals on and ends as its program does, through the process that waits outside.
func TestRootlessRunIsTheirs(t *testing.T) {
	u := newPerson(t, nil, "sh", "-c", "trap 'echo asked to end; exit 7' TERM; echo ready; while :; do sleep 0.01; done")
	cmd := u.command(t.Context(), "--root", u.root, "run", "c")
	out := &lockedBuffer{}
	cmd.Stdout, cmd.Stderr = out, out
	must(t, cmd.Start())
	out.await(t, "ready")
	must(t, cmd.Process.Signal(syscall.SIGTERM))
	if err := cmd.Wait(); exitCodeOf(err) != 7 || !strings.Contains(out.String(), "asked to end") {
		t.Errorf("%v: %q", err, out.String())
	}
	missing := newPerson(t, nil, "nothing")
	if out, err := missing.try("run", "c"); exitCodeOf(err) != 1 || !strings.Contains(out, "not found") {
		t.Errorf("a program that is not there: %v, %q", err, out)
	}
}

// TestRootlessSockets: those of a service manager reach a user's container too.
func TestRootlessSockets(t *testing.T) {
	u := newPerson(t, nil, "sh", "-c", "echo $LISTEN_FDS $LISTEN_PID; cat <&3")
	passed := filepath.Join(u.dir, "passed")
	must(t, os.WriteFile(passed, []byte("socket\n"), 0o644))
	u.before = []string{"/bin/sh", "-c", `LISTEN_FDS=1 LISTEN_PID=$$ exec "$@" 3<` + passed, "sh"}
	if out := u.oar("run", "c"); out != "1 1\nsocket\n" {
		t.Errorf("%q", out)
	}
}

// TestRootlessRefusals: what cannot be is said before, with what to do.
func TestRootlessRefusals(t *testing.T) {
	for words, change := range map[string]func(*specs.Spec){
		"only in a user namespace": func(s *specs.Spec) { s.Linux.Namespaces = s.Linux.Namespaces[:1] },
		"must map the container's id 0": func(s *specs.Spec) {
			s.Linux.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 5, HostID: plain, Size: 1}}
		},
		"may not set groups":      func(s *specs.Spec) { s.Process.User.AdditionalGids = []uint32{0} },
		"user 1000 is not mapped": func(s *specs.Spec) { s.Process.User.UID = 1000 },
		"newuidmap": func(s *specs.Spec) {
			s.Linux.UIDMappings = append(s.Linux.UIDMappings, specs.LinuxIDMapping{ContainerID: 1, HostID: 0, Size: 1})
		},
		"only devices that the host has": func(s *specs.Spec) {
			s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/none", Type: "c", Major: 1, Minor: 3}}
		},
		"has another one at this path": func(s *specs.Spec) {
			s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/ptmx", Type: "c", Major: 1, Minor: 1}}
		},
	} {
		u := newPerson(t, change, "true")
		u.refuse(words, "run", "c")
		u.refuse("does not exist", "state", "c")
	}
	for option, words := range map[string]string{"--rootless=perhaps": "true, false or auto", "--inside=5": "what oar tells itself"} {
		if out, err := oar(t, option, "list").CombinedOutput(); err == nil || !strings.Contains(string(out), words) {
			t.Errorf("%s: %v, %q", option, err, out)
		}
	}
	newPerson(t, nil, "true").refuse("make control group", "--rootless", "false", "run", "c")
}

// TestRootlessSpec: what `spec --rootless` writes runs as it is.
func TestRootlessSpec(t *testing.T) {
	u := newPerson(t, nil)
	must(t, os.Remove(u.dir+"/config.json"))
	u.oar("spec", "--rootless")
	var s specs.Spec
	b, err := os.ReadFile(u.dir + "/config.json")
	must(t, err)
	must(t, json.Unmarshal(b, &s))
	s.Process.Terminal, s.Process.Args = false, []string{"sh", "-c", "echo $(id -u):$(id -g) $(cat /proc/self/uid_map); test -e /sys/class/net && echo x > /dev/null && echo sees"}
	b, err = json.Marshal(&s)
	must(t, err)
	must(t, os.WriteFile(u.dir+"/config.json", b, 0o644))
	if out := u.oar("run", "c"); strings.Join(strings.Fields(out), " ") != "0:0 0 0 1 sees" {
		t.Errorf("it printed %q", out)
	}
}

// TestRootlessFolder: where states lie when nobody says it, and that another's folder is not believed.
func TestRootlessFolder(t *testing.T) {
	u := newPerson(t, nil, "sleep", "1000")
	u.uid = 54321 // has no /run/user
	u.own()
	at := "/tmp/oar-" + strconv.Itoa(int(u.uid))
	defer os.RemoveAll(at)
	run := func(env ...string) (string, error) {
		cmd := u.command(t.Context(), "list", "-q")
		cmd.Env = append(cmd.Env, env...)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := run(); err != nil || out != "" {
		t.Errorf("list of nothing: %v, %q", err, out)
	}
	must(t, os.Mkdir(at, 0o755)) // root's
	if out, err := run(); err == nil || !strings.Contains(out, "must be a folder of this user's") {
		t.Errorf("another's folder: %v, %q", err, out)
	}
	for _, command := range []string{"version", "features", "init -- true"} {
		if out, err := u.command(t.Context(), strings.Fields(command)...).CombinedOutput(); err != nil {
			t.Errorf("%s, which looks for no container: %v, %s", command, err, out)
		}
	}
	must(t, os.MkdirAll(u.dir+"/run/oar/there", 0o755))
	must(t, os.WriteFile(u.dir+"/run/oar/there/state.json", []byte(`{"id":"there"}`), 0o644))
	must(t, os.WriteFile(u.dir+"/run/oar/there/config.json", []byte(`{}`), 0o644))
	u.own()
	if out, err := run("XDG_RUNTIME_DIR=" + u.dir + "/run"); err != nil || out != "there\n" {
		t.Errorf("XDG_RUNTIME_DIR: %v, %q", err, out)
	}
	u.uid = plain
	u.own()
	another := u.command(t.Context(), "create", "box")
	another.Env = append(another.Env, "XDG_RUNTIME_DIR=/")
	if out, err := another.CombinedOutput(); err == nil || !strings.Contains(string(out), "mkdir /oar: permission denied: XDG_RUNTIME_DIR or --root is to name a folder of this user's") {
		t.Errorf("XDG_RUNTIME_DIR is another's: %v, %q", err, out)
	}
}

// waitingAt are the processes that hold a gate below a folder.
func waitingAt(root string) (pids []int) {
	links, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, link := range links {
		to, err := os.Readlink(link)
		if pid, bad := strconv.Atoi(strings.Split(link, "/")[2]); err == nil && bad == nil && strings.HasPrefix(to, root) && path.Base(to) == gateFile && !slices.Contains(pids, pid) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// parentOf is 0 when the process has gone.
func parentOf(pid int) int {
	b, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	_, rest, _ := strings.Cut(string(b), ") ")
	var state string
	var parent int
	_, _ = fmt.Sscan(rest, &state, &parent)
	return parent
}

// traced has strace do something to the user's commands as they rename files.
func (u *person) traced(inject string) {
	const calls = "rename,renameat,renameat2"
	u.before = []string{"strace", "-D", "-f", "-o", "/dev/null", "-e", "trace=" + calls, "-e", "inject=" + calls + ":" + inject}
}

// TestRootlessCreatorIsKilled: whenever a create is killed nobody waits at its gate for ever, though there is no control group to find him by,
// and the id can be had again.
func TestRootlessCreatorIsKilled(t *testing.T) {
	u := newPerson(t, nil, "true")
	for n := 1; n <= 2; n++ {
		u.traced("signal=KILL:when=" + strconv.Itoa(n))
		if out, err := u.try("create", "-b", u.dir, "c"); err == nil {
			t.Errorf("rename %d was not its end: %s", n, out)
		}
		u.before = nil
		u.oar("delete", "--force", "c")
	}

	// Killed when the container's process stands at the gate, and is not noted.
	u.traced("delay_enter=5000000") // long enough to be seen and killed before the second of them, on a machine that is emulated too
	cmd := u.command(t.Context(), "--root", u.root, "create", "-b", u.dir, "c")
	must(t, cmd.Start())
	creator := 0
	for deadline := time.Now().Add(time.Minute); creator == 0 && time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		waiting := waitingAt(u.root)
		for _, pid := range waiting {
			if parent := parentOf(pid); slices.Contains(waiting, parent) {
				creator = parent
			}
		}
	}
	if creator == 0 { // which stands for all of this process's group
		t.Fatal("no process waits at the gate of one that creates it")
	}
	must(t, syscall.Kill(creator, syscall.SIGKILL)) // it does not matter how far the process has come
	_ = cmd.Wait()
	u.before = nil
	for deadline := time.Now().Add(20 * time.Second); len(waitingAt(u.root)) > 0; time.Sleep(5 * time.Millisecond) {
		if left := waitingAt(u.root); time.Now().After(deadline) {
			for _, pid := range left {
				doing, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/syscall")
				t.Errorf("process %d, in the system call %s, waits for ever", pid, doing)
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
	}
	u.oar("delete", "--force", "c")
	u.oar("create", "-b", u.dir, "c")
}
