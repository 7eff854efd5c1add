package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"wherry.dev/wherry/internal/cgroup"
	"wherry.dev/wherry/internal/ociruntime"
)

// TestExecInAGroupInside: --cgroup names groups inside the container's, by controller or all.
func TestExecInAGroupInside(t *testing.T) {
	h := newHost(t, nil, "sleep", "1000")
	h.create()
	h.oar("start", "c")
	name := "/wherry-oar-test/" + filepath.Base(filepath.Dir(h.dir))
	g, err := cgroup.Open(name)
	must(t, err)
	for controller, dir := range g.Dirs() {
		must(t, os.Mkdir(dir+"/inner", 0o755))
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			if controller == "cpuset" {
				b, err := os.ReadFile(filepath.Join(dir, file))
				must(t, err)
				must(t, os.WriteFile(filepath.Join(dir, "inner", file), b, 0o644))
			}
		}
	}
	_, first := g.Dirs()["memory"] // control groups of version 1
	groups := func(args ...string) map[string]string {
		out := map[string]string{}
		for line := range strings.Lines(h.oar(append(append([]string{"exec"}, args...), "c", "cat", "/proc/self/cgroup")...)) {
			_, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
			controller, path, _ := strings.Cut(rest, ":")
			out[controller] = path
		}
		return out
	}
	if g := groups("--cgroup", "/inner"); g[""] != name+"/inner" || first && g["memory"] != name+"/inner" {
		t.Errorf("all: %v", g)
	}
	if first {
		if g := groups("--cgroup", "memory:inner"); g[""] != name || g["memory"] != name+"/inner" || g["pids"] != name {
			t.Errorf("memory: %v", g)
		}
	}
	if g := groups(); g[""] != name || first && g["memory"] != name {
		t.Errorf("none: %v", g)
	}
	h.refuse("no such file", "exec", "--cgroup", "nothing", "c", "true")
	h.refuse("nonsense", "exec", "--cgroup", "nonsense:inner", "c", "true")
	h.refuse("once for each", "exec", "--cgroup", "memory:inner", "--cgroup", "memory,pids:inner", "c", "true")
}

// TestExecProcessFile: each member of a process's file has its effect, and a file that says less gives no more and no less than the first
// process has.
func TestExecProcessFile(t *testing.T) {
	h := newHost(t, func(s *specs.Spec) {
		s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: []string{"CAP_KILL"}, Effective: []string{"CAP_KILL"}, Permitted: []string{"CAP_KILL"}}
		s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 50, Hard: 60}}
	}, "sleep", "1000")
	h.create()
	h.oar("start", "c")
	umask, adj := uint32(0o77), 300
	script := `echo $A $(id -u) $(id -g) $(id -G); umask; pwd; ulimit -n; cat /proc/self/oom_score_adj; grep -E 'NoNewPrivs|CapBnd' /proc/self/status; tty; stty size; true`
	bin := filepath.Join(h.dir, "rootfs/bin")
	for _, a := range []string{"id", "grep", "tty", "stty"} {
		_ = os.Symlink("busybox", filepath.Join(bin, a)) // or it is there
	}
	rows := map[string]struct {
		p    specs.Process
		want string
	}{
		"everything": {specs.Process{Terminal: true, ConsoleSize: &specs.Box{Height: 11, Width: 22}, User: specs.User{UID: 5, GID: 6, Umask: &umask, AdditionalGids: []uint32{7, 8}},
			Args: []string{"sh", "-c", script}, Env: []string{"PATH=/bin", "A=b"}, Cwd: "/tmp", Capabilities: &specs.LinuxCapabilities{Bounding: []string{"CAP_CHOWN"}},
			Rlimits: []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 20, Hard: 30}}, NoNewPrivileges: true, OOMScoreAdj: &adj},
			"b 5 6 6 7 8\n0077\n/tmp\n20\n300\nCapBnd:\t0000000000000001\nNoNewPrivs:\t1\n/dev/pts/0\n11 22\n"},
		"little": {specs.Process{Args: []string{"sh", "-c", "exec 2>&1; " + script}, Env: []string{"PATH=/bin"}, Cwd: "/"},
			"0 0 0\n0022\n/\n50\n" + ownScore(t) + "CapBnd:\t0000000000000020\nNoNewPrivs:\t0\nnot a tty\nstty: standard input"},
	}
	for name, row := range rows {
		b, err := json.Marshal(row.p)
		must(t, err)
		file := filepath.Join(h.dir, "process.json")
		must(t, os.WriteFile(file, b, 0o644))
		out := strings.ReplaceAll(h.atTerminal("exec", "--process", file, "c"), "\r\n", "\n")
		if !strings.HasPrefix(out, row.want) {
			t.Errorf("%s:\n%s\nwant:\n%s", name, out, row.want)
		}
	}
}

func ownScore(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/oom_score_adj")
	must(t, err)
	return string(b)
}

// TestExecPreservesDescriptors passes as many on as it is told, and only those.
func TestExecPreservesDescriptors(t *testing.T) {
	h := newHost(t, nil, "sleep", "1000")
	h.create()
	h.oar("start", "c")
	f, err := os.Create(filepath.Join(h.dir, "kept"))
	must(t, err)
	defer f.Close()
	cmd := oarAt(t, h.root, "exec", "--preserve-fds", "2", "c", "sh", "-c", "echo four >&4; ls /proc/self/fd | tail -n +4; echo five >&5")
	for _, a := range []string{"ls", "tail"} {
		_ = os.Symlink("busybox", filepath.Join(h.dir, "rootfs/bin", a)) // or it is there
	}
	cmd.ExtraFiles = []*os.File{f, f, f}
	out, err := cmd.CombinedOutput()
	kept, _ := os.ReadFile(f.Name())
	if err == nil || string(kept) != "four\n" || !strings.HasPrefix(string(out), "3\n4\n") || !strings.Contains(string(out), "Bad file descriptor") {
		t.Errorf("%v: %q, the file has %q", err, out, kept)
	}
	h.refuse("--preserve-fds 3", "exec", "--preserve-fds", "3", "c", "true")
}

// TestExecInAPausedContainer: only when asked for does the process wait for the container to go on.
func TestExecInAPausedContainer(t *testing.T) {
	h := newHost(t, nil, "sleep", "1000")
	h.create()
	h.oar("start", "c")
	h.oar("pause", "c")
	h.refuse("paused", "exec", "c", "echo", "hello")
	cmd := oarAt(t, h.root, "exec", "--ignore-paused", "c", "echo", "hello")
	out := &lockedBuffer{}
	cmd.Stdout, cmd.Stderr = out, out
	must(t, cmd.Start())
	h.oar("resume", "c")
	if err := cmd.Wait(); err != nil || out.String() != "hello\n" {
		t.Errorf("%v: %q", err, out.String())
	}
}

// TestLabelsThatNobodyApplies: where neither module is in force, a profile of AppArmor is left out with a warning, as callers set one
// without looking; what is asked for by hand, and SELinux's labels, are errors. Where AppArmor is, a profile that it does not have is one.
func TestLabelsThatNobodyApplies(t *testing.T) {
	if ociruntime.AppArmor() {
		h := newHost(t, func(s *specs.Spec) { s.Process.ApparmorProfile = "some" }, "true")
		h.refuse("it is not loaded", "run", "-b", h.dir, "c")
		return
	}
	h := newHost(t, func(s *specs.Spec) { s.Process.ApparmorProfile, s.Linux.MountLabel = "some", "a:b:c:s0" }, "sleep", "1000")
	h.create()
	h.oar("start", "c")
	if said := h.output(); !strings.Contains(said, "apparmorProfile") || !strings.Contains(said, "mountLabel") {
		t.Errorf("create says %q", said)
	}
	if out := h.oar("exec", "c", "echo", "hello"); out != "hello\n" {
		t.Error(out)
	}
	h.refuse("AppArmor", "exec", "--apparmor", "other", "c", "true")
	h.refuse("SELinux is not in force", "exec", "--process-label", "a:b:c:s0", "c", "true")
}

func TestSELinuxLabelThatNobodyApplies(t *testing.T) {
	h := newHost(t, func(s *specs.Spec) { s.Process.SelinuxLabel = "a:b:c:s0" }, "true")
	h.refuse("SELinux is not in force", "run", "-b", h.dir, "c")
}
