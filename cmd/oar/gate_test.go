package main

import (
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// takeConsole accepts one terminal on a socket.
func takeConsole(t *testing.T, l *net.UnixListener) *os.File {
	t.Helper()
	must(t, l.SetDeadline(time.Now().Add(10*time.Second)))
	conn, err := l.AcceptUnix()
	must(t, err)
	defer conn.Close()
	data, oob := make([]byte, 64), make([]byte, 64)
	_, n, _, _, err := conn.ReadMsgUnix(data, oob)
	must(t, err)
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	must(t, err)
	fds, err := unix.ParseUnixRights(&messages[0])
	must(t, err)
	return os.NewFile(uintptr(fds[0]), "console")
}

func TestConsoleSocket(t *testing.T) {
	h := newHost(t, func(s *specs.Spec) { s.Process.Terminal = true }, "sh", "-c", "test -t 0 && echo a terminal; read x; echo got $x; sleep 1000")
	h.refuse("--console-socket", "create", "-b", h.dir, "c")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(h.root, "socket"), Net: "unix"})
	must(t, err)
	defer l.Close()
	h.create("--console-socket", l.Addr().String())
	console := takeConsole(t, l)
	defer console.Close()
	h.oar("start", "c")
	text := &lockedBuffer{}
	go func() { _, _ = console.WriteTo(text) }()
	text.await(t, "a terminal")
	_, err = console.WriteString("typed\n")
	must(t, err)
	text.await(t, "got typed")
	h.refuse("needs --console-socket", "exec", "-d", "-t", "c", "true")
	h.refuse("oar is at none whose input could go to it", "exec", "-t", "c", "true")
	h.oar("exec", "-d", "-t", "--console-socket", l.Addr().String(), "c", "sh", "-c", "test -t 1 && echo another")
	second := takeConsole(t, l)
	defer second.Close()
	other := &lockedBuffer{}
	go func() { _, _ = second.WriteTo(other) }()
	other.await(t, "another")
	if out := h.atTerminal("exec", "-t", "c", "sh", "-c", "test -t 0 && echo copied"); !strings.Contains(out, "copied") {
		t.Errorf("exec -t: %q", out)
	}
}

// TestCreatorIsKilled: what a killed create leaves is a stopped container, and goes with a delete.
func TestCreatorIsKilled(t *testing.T) {
	hook := filepath.Join(t.TempDir(), "hook-runs")
	h := newHost(t, func(s *specs.Spec) {
		s.Hooks = &specs.Hooks{CreateContainer: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "echo > " + hook + "; exec sleep 100"}}}}
	}, "true")
	cmd := oarAt(t, h.root, "create", "-b", h.dir, "c")
	must(t, cmd.Start())
	for _, err := os.Stat(hook); err != nil; _, err = os.Stat(hook) {
		time.Sleep(time.Millisecond)
	}
	if s := h.state(); s.Status != specs.StateCreating {
		t.Errorf("while it is created: %+v", s)
	}
	h.refuse("is being created", "start", "c")
	h.refuse("is being created", "delete", "c")
	must(t, cmd.Process.Kill())
	_ = cmd.Wait()
	h.await(specs.StateStopped)
	h.oar("delete", "c") // the hook's process is in the control group too
	h.refuse("does not exist", "state", "c")
}

// TestTwoDeletes: of two at a time one removes the container and runs its hooks, and the other finds nothing.
func TestTwoDeletes(t *testing.T) {
	stopped := filepath.Join(t.TempDir(), "stopped")
	h := newHost(t, func(s *specs.Spec) {
		s.Hooks = &specs.Hooks{Poststop: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "echo stopped >> " + stopped}}}}
	}, "true")
	h.create()
	c, err := (&store{root: h.root}).load("c")
	must(t, err)
	release, err := c.lock()
	must(t, err)
	var deletes []*exec.Cmd
	for range 2 {
		d := oarAt(t, h.root, "delete", "--force", "c")
		must(t, d.Start())
		deletes = append(deletes, d)
	}
	time.Sleep(100 * time.Millisecond) // both wait for the lock
	release()
	for _, d := range deletes {
		must(t, d.Wait())
	}
	if b, err := os.ReadFile(stopped); err != nil || string(b) != "stopped\n" {
		t.Errorf("the poststop hook: %q, %v", b, err)
	}
}

// TestWriteWhole: what lies in the way is neither followed nor written to.
func TestWriteWhole(t *testing.T) {
	dir := t.TempDir()
	others := filepath.Join(dir, "others")
	must(t, os.WriteFile(others, []byte("theirs"), 0o600))
	for _, put := range []func(string, string) error{os.Symlink, os.Link} {
		must(t, put(others, filepath.Join(dir, ".pid.new")))
		must(t, writeWhole(filepath.Join(dir, "pid"), []byte("1")))
		for name, want := range map[string]string{"others": "theirs", "pid": "1"} {
			if b, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(b) != want {
				t.Errorf("%s: %q, %v", name, b, err)
			}
		}
	}
}

// TestMountNamespaces: one that is joined by path, and none of its own: then the host's mounts are not touched.
func TestMountNamespaces(t *testing.T) {
	without := func(s *specs.Spec) []specs.LinuxNamespace {
		var rest []specs.LinuxNamespace
		for _, n := range s.Linux.Namespaces {
			if n.Type != specs.MountNamespace {
				rest = append(rest, n)
			}
		}
		return rest
	}
	own, err := os.Readlink("/proc/self/ns/mnt")
	must(t, err)
	before, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	h := newHost(t, func(s *specs.Spec) { s.Linux.Namespaces = without(s) }, "sh", "-c", "echo /*; exec sleep 1000")
	h.create()
	h.oar("start", "c")
	for !strings.Contains(h.output(), "/bin") {
		time.Sleep(time.Millisecond)
	}
	if out := h.output(); strings.Contains(out, "/home") || !strings.Contains(out, "/bin /dev /proc") {
		t.Errorf("its root: %q", out)
	}
	out := h.oar("exec", "c", "sh", "-c", "busybox readlink /proc/self/ns/mnt; echo /*")
	if !strings.HasPrefix(out, own) || strings.Contains(out, "/home") {
		t.Errorf("exec: %q", out)
	}
	h.oar("delete", "--force", "c")
	if after, err := os.ReadFile("/proc/self/mountinfo"); err != nil || string(after) != string(before) {
		t.Errorf("the host's mounts changed (%v):\n%s", err, after)
	}
	refused := newHost(t, func(s *specs.Spec) {
		s.Linux.Namespaces = append(without(s), specs.LinuxNamespace{Type: specs.MountNamespace, Path: "/proc/self/ns/mnt"})
	}, "true")
	refused.refuse("the runtime's own", "create", "-b", refused.dir, "c")
}

// TestUserNamespace: a bundle whose ids are mapped, from create to exec.
func TestUserNamespace(t *testing.T) {
	const base = 0x32000000
	ids := []specs.LinuxIDMapping{{HostID: base, Size: 65536}}
	h := newHost(t, func(s *specs.Spec) {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
		s.Linux.UIDMappings, s.Linux.GIDMappings = ids, ids
		s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: []string{"CAP_SYS_ADMIN"}, Effective: []string{"CAP_SYS_ADMIN"}, Permitted: []string{"CAP_SYS_ADMIN"}}
		s.Hooks = &specs.Hooks{CreateContainer: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", `read -r s; b=${s#*bundle\":\"}; b=${b%%\"*}; test -e $b/rootfs/bin/busybox`}}}}
	}, "sh", "-c", "cat /proc/self/uid_map; exec sleep 1000")
	for _, d := range []string{h.dir, filepath.Dir(h.dir)} { // a folder that others may pass
		must(t, os.Chmod(d, 0o755))
	}
	must(t, os.Chown(filepath.Join(h.dir, "rootfs"), base, base))
	h.create()
	h.oar("start", "c")
	for !strings.Contains(h.output(), "65536") {
		time.Sleep(time.Millisecond)
	}
	out := h.oar("exec", "c", "sh", "-c", "cat /proc/self/uid_map; cat /proc/self/status")
	if !strings.HasPrefix(out, h.output()) || line(out, "CapEff") != "0000000000200000" || !strings.HasPrefix(line(out, "Uid"), "0") {
		t.Errorf("exec: %q", out)
	}
	h.oar("kill", "c", "KILL")
	h.await(specs.StateStopped)
	h.oar("delete", "c")
}

func TestSignalsAndNumbers(t *testing.T) {
	for text, want := range map[string]unix.Signal{"9": 9, "KILL": 9, "sigterm": 15, "SIGUSR1": 10, "RTMIN+2": 36, "SIGRTMAX-1": 63, "rtmin": 34, "0": 0} {
		if got, err := parseSignal(text); err != nil || got != want {
			t.Errorf("%s: %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "65", "-1", "SIGNOTHING", "RTMIN+99", "RTMINx", "9x"} {
		if got, err := parseSignal(text); err == nil {
			t.Errorf("%q is taken for %d", text, got)
		}
	}
}

// TestLimitsOfUpdate: every option goes to its own place, and nonsense to none.
func TestLimitsOfUpdate(t *testing.T) {
	for _, row := range [][3]string{
		{"memory", "64m", `{"memory":{"limit":67108864}}`}, {"memory-reservation", "1.5GiB", `{"memory":{"reservation":1610612736}}`},
		{"memory-swap", "-1", `{"memory":{"swap":-1}}`}, {"kernel-memory", "2KB", `{"memory":{"kernel":2048}}`}, {"kernel-memory-tcp", "7", `{"memory":{"kernelTCP":7}}`},
		{"cpu-period", "10", `{"cpu":{"period":10}}`}, {"cpu-quota", "-1", `{"cpu":{"quota":-1}}`}, {"cpu-burst", "0", `{"cpu":{"burst":0}}`}, {"cpu-share", "512", `{"cpu":{"shares":512}}`},
		{"cpu-idle", "1", `{"cpu":{"idle":1}}`}, {"cpu-idle", "2", "out of range"}, {"cpu-idle", "-1", "0 or 1"}, {"cpu-rt-period", "5", `{"cpu":{"realtimePeriod":5}}`}, {"cpu-rt-runtime", "6", `{"cpu":{"realtimeRuntime":6}}`},
		{"cpuset-cpus", "0-1", `{"cpu":{"cpus":"0-1"}}`}, {"cpuset-mems", "0", `{"cpu":{"mems":"0"}}`}, {"pids-limit", "-1", `{"pids":{"limit":-1}}`}, {"pids-limit", "0", `{"pids":{"limit":1}}`}, {"blkio-weight", "500", `{"blockIO":{"weight":500}}`},
		{"memory", "99999999999t", "out of range"}, {"memory", "much", "not a number"}, {"memory", "-2", "negative"}, {"cpu-share", "-1", "negative"}, {"blkio-weight", "70000", "out of range"},
		{"pids-limit", "1k", "not a number"},
	} {
		f := newFlags(command{name: "update"}, []string{"--" + row[0] + "=" + row[1]})
		given := defineLimits(f)
		must(t, f.parse())
		var r specs.LinuxResources
		got := ""
		if err := given(&r); err != nil {
			got = err.Error()
		} else if b, err := json.Marshal(r); err == nil {
			got = string(b)
		}
		if !strings.Contains(got, row[2]) {
			t.Errorf("--%s %s: %s, want %s", row[0], row[1], got, row[2])
		}
	}
	if n := len(limits()); n != 16 {
		t.Errorf("%d limits have a row above", n)
	}
}

func FuzzStartTime(f *testing.F) {
	f.Add("1 (a) b) S 0")
	f.Add("7 (x) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19")
	f.Fuzz(func(t *testing.T, text string) {
		if n, err := startTimeOf(text); err == nil && !strings.Contains(text, strconv.FormatUint(n, 10)) && !strings.Contains(text, "0") {
			t.Errorf("%q has the time %d", text, n)
		}
	})
}

// TestSharedMounts: what a bundle shares with the host is mounted on both sides, and stays on the host when the old root goes.
func TestSharedMounts(t *testing.T) {
	dir := t.TempDir()
	must(t, unix.Mount("shared", dir, "tmpfs", 0, ""))
	defer func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) }()
	must(t, unix.Mount("", dir, "", unix.MS_SHARED, ""))
	for _, d := range []string{"inner", "before"} {
		must(t, os.Mkdir(filepath.Join(dir, d), 0o755))
	}
	must(t, unix.Mount("before", filepath.Join(dir, "before"), "tmpfs", 0, ""))
	h := newHost(t, func(s *specs.Spec) {
		admin := []string{"CAP_SYS_ADMIN"}
		s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: admin, Effective: admin, Permitted: admin}
		s.Linux.RootfsPropagation = "rshared"
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/shared", Type: "bind", Source: dir, Options: []string{"rbind", "rshared"}})
	}, "sh", "-c", "busybox mount -t tmpfs made-inside /shared/inner && cat /proc/self/mountinfo")
	if out := h.oar("run", "-b", h.dir, "c"); !strings.Contains(out, "made-inside") || !strings.Contains(out, "/shared/before") {
		t.Errorf("inside: %q", out)
	}
	outside, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	for _, d := range []string{"inner", "before"} {
		if !strings.Contains(string(outside), filepath.Join(dir, d)) {
			t.Errorf("%s is not mounted on the host", d)
		}
	}
}
