package ociruntime

import (
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// TestLimits reach the process by run and by exec; where this process may not give more than it has, the process gets that.
func TestLimits(t *testing.T) {
	var own unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &own))
	limits := []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 20, Hard: 30}, {Type: "RLIMIT_CORE", Soft: 0, Hard: 0}, {Type: "RLIMIT_NPROC", Soft: own.Max, Hard: unix.RLIM_INFINITY}}
	script := "ulimit -n; ulimit -Hn; ulimit -c; ulimit -p"
	b := newBox(t, "sh", "-c", script)
	b.spec.Process.Rlimits = limits
	out, _, err := b.run()
	if err != nil || !strings.HasPrefix(out, "20\n30\n0\n") {
		t.Errorf("run: %q, %v", out, err)
	}
	b = newBox(t)
	byExec, _, err := b.exec(b.sleeper(), &specs.Process{Args: []string{"sh", "-c", script}, Rlimits: limits})
	if err != nil || byExec != out {
		t.Errorf("exec: %q, not %q, %v", byExec, out, err)
	}
	for _, bad := range []specs.POSIXRlimit{{Type: "RLIMIT_NONSENSE"}, {Type: "RLIMIT_NOFILE", Soft: 2, Hard: 1}} {
		b := newBox(t, "true")
		b.spec.Process.Rlimits = []specs.POSIXRlimit{bad}
		if _, _, err := b.run(); err == nil || !strings.Contains(err.Error(), bad.Type) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

func TestOOMScore(t *testing.T) {
	own := strconv.Itoa(ownOOMScore())
	adj := 321
	for name, want := range map[string]string{"": own, "own": "321"} {
		b := newBox(t, "cat", "/proc/self/oom_score_adj")
		if name != "" {
			b.spec.Process.OOMScoreAdj = &adj
		}
		c, err := b.create(os.Stderr)
		must(t, err)
		got, err := os.ReadFile("/proc/" + strconv.Itoa(c.Pid()) + "/oom_score_adj")
		must(t, err)
		if strings.TrimSpace(string(got)) != want {
			t.Errorf("%q: %s, want %s", name, got, want)
		}
		if now := strconv.Itoa(ownOOMScore()); now != own {
			t.Fatalf("this process's own has become %s", now)
		}
	}
}

// TestHooks run while the process waits, before its mounts are in place, with the state and nothing of this process's environment.
func TestHooks(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(dir+"/hook", []byte("#!/bin/sh\nenv > "+dir+"/env\ncat > "+dir+"/state\nset -- $(cat "+dir+"/state | tr ',' '\\n' | grep '\"pid\"' | tr -dc 0-9)\n"+
		"readlink /proc/$1/root > "+dir+"/root\nexit ${CODE:-0}\n"), 0o755))
	t.Setenv("SECRET", "of the engine")
	b := newBox(t, "true")
	b.spec.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: dir + "/hook", Env: []string{"ONE=1"}}}}
	if _, status, err := b.run(); err != nil || status.Code != 0 {
		t.Fatalf("%v %+v", err, status)
	}
	for file, want := range map[string]string{"env": "ONE=1", "state": `"status":"creating"`, "root": "/"} {
		got, err := os.ReadFile(dir + "/" + file)
		if err != nil || !strings.Contains(string(got), want) || strings.Contains(string(got), "SECRET") {
			t.Errorf("%s: %q, %v", file, got, err)
		}
	}
	b = newBox(t, "touch", "/ran")
	b.spec.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: dir + "/hook", Env: []string{"CODE=3"}}}}
	if _, _, err := b.run(); err == nil || !strings.Contains(err.Error(), dir+"/hook") {
		t.Errorf("a hook that fails: %v", err)
	}
	if _, err := os.Stat(b.upper + "/ran"); err == nil {
		t.Error("the program ran")
	}
}

// TestOOMScoreOfExecs: a program has it from its beginning, however late this process comes to set it: what it has begun before would keep
// this process's.
func TestOOMScoreOfExecs(t *testing.T) {
	b := newBox(t)
	c := b.sleeper()
	adj := 321
	busy := make(chan struct{})
	defer close(busy)
	for range 4 * runtime.NumCPU() { // who is to set it has no processor for a while
		go func() {
			for {
				select {
				case <-busy:
					return
				default:
				}
			}
		}()
	}
	for range 25 {
		out, _, err := b.exec(c, &specs.Process{Args: []string{"cat", "/proc/self/oom_score_adj"}, OOMScoreAdj: &adj})
		if err != nil || out != "321\n" {
			t.Fatalf("%q, %v", out, err)
		}
	}
}

// TestWrongSysctls: what the kernel has no setting for, or takes no such value of.
func TestWrongSysctls(t *testing.T) {
	for want, list := range map[string]map[string]string{
		"open sysctl net.ipv4.no_such: no such file or directory: the kernel has no such setting":    {"net.ipv4.no_such": "1"},
		"set sysctl net.ipv4.ip_forward to x: invalid argument: the kernel does not take that value": {"net.ipv4.ip_forward": "x"},
	} {
		b := newBox(t, "true")
		b.spec.Linux.Sysctl = list
		if _, _, err := b.run(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v", list, err)
		}
		b.cleanup()
	}
}

// TestFailuresLeaveNothing: whatever step a start fails at, no process, descriptor or control group stays.
func TestFailuresLeaveNothing(t *testing.T) {
	rows := map[string]func(*box){
		"mount": func(b *box) {
			b.spec.Mounts = append(b.spec.Mounts, specs.Mount{Type: "bind", Source: "/no/such", Destination: "/x"})
		},
		"file type": func(b *box) { b.spec.Mounts = append(b.spec.Mounts, specs.Mount{Type: "nonsense", Destination: "/x"}) },
		"namespace": func(b *box) { b.spec.Linux.Namespaces[0].Path = "/proc/self/ns/net" },
		"layer":     func(b *box) { b.rootfs.Lower = []string{"/no/such"} },
		"program":   func(b *box) { b.spec.Process.Args = []string{"nothing"} },
		"seccomp":   func(b *box) { b.spec.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: "x"} },
		"sysctl":    func(b *box) { b.spec.Linux.Sysctl = map[string]string{"net.no.such": "1"} },
		"limit":     func(b *box) { b.spec.Linux.Resources = &specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "999"}} },
		"device":    func(b *box) { b.spec.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/x", Type: "z"}} },
		"agent":     func(b *box) { b.filtered(specs.ActNotify, nil).ListenerPath = "/no/such" },
		"hook":      func(b *box) { b.spec.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/false"}}} },
	}
	count := func() string {
		list, err := os.ReadDir("/proc/self/fd")
		must(t, err)
		var out []string
		for _, e := range list {
			to, err := os.Readlink("/proc/self/fd/" + e.Name())
			if err == nil { // the folder itself is closed by now
				out = append(out, e.Name()+" "+to)
			}
		}
		return strings.Join(out, "\n")
	}
	first := newBox(t, "true") // what the Go runtime opens once
	_, _, err := first.run()
	must(t, err)
	first.cleanup()
	for range 10000 { // what a start needed is closed beside its program
		if !strings.Contains(count(), testGroup()) {
			break
		}
		time.Sleep(time.Millisecond)
	}
	for name, change := range rows {
		t.Run(name, func(t *testing.T) {
			b := newBox(t, "true")
			change(b)
			before := count()
			if _, _, err := b.run(); err == nil {
				t.Error("no error")
			}
			b.cleanup()
			after := count()
			for range 20000 { // what forked the process ends on its own
				if after == before {
					break
				}
				time.Sleep(time.Millisecond)
				after = count()
			}
			if after != before {
				t.Errorf("descriptors:\n%s\nbefore:\n%s", after, before)
			}
			closesNoOthers(t)
			if _, err := os.Stat("/sys/fs/cgroup/unified" + b.spec.Linux.CgroupsPath); err == nil {
				t.Error("its control group is left")
			}
		})
	}
}

// closesNoOthers holds that what the collector finds closes no descriptor of somebody else: the numbers that were closed before are in use again.
func closesNoOthers(t *testing.T) {
	t.Helper()
	var others []int
	for range 64 {
		fd, err := unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, 3)
		must(t, err)
		others = append(others, fd)
	}
	for range 2 { // what a first round frees, and what that held
		done := make(chan struct{})
		runtime.SetFinalizer(&struct{ *testing.T }{t}, func(any) { close(done) })
		runtime.GC()
		<-done
	}
	for _, fd := range others {
		if err := unix.Close(fd); err != nil {
			t.Errorf("descriptor %d has been closed by another's finalizer: %v", fd, err)
		}
	}
}

// TestMountOverItsUnlike: a file over a folder, or the other way round, is refused in words.
func TestMountOverItsUnlike(t *testing.T) {
	for source, destination := range map[string]string{"/etc": "/bin/sh", "/etc/passwd": "/bin"} {
		b := newBox(t, "true")
		b.spec.Mounts = append(b.spec.Mounts, specs.Mount{Type: "bind", Source: source, Destination: destination, Options: []string{"bind"}})
		if _, _, err := b.run(); err == nil || !strings.Contains(err.Error(), "in the container is a f") {
			t.Errorf("%s over %s: %v", source, destination, err)
		}
	}
}

// TestUnsupported: what is asked for and not done is said; what would leave the container less confined is refused.
func TestUnsupported(t *testing.T) {
	for name, row := range map[string]struct {
		change  func(*specs.Spec)
		refused bool
	}{
		"mountLabel":   {func(s *specs.Spec) { s.Linux.MountLabel = "x" }, false},
		"AppArmor":     {func(s *specs.Spec) { s.Process.ApparmorProfile = "docker-default" }, true},
		"selinuxLabel": {func(s *specs.Spec) { s.Process.SelinuxLabel = "x" }, true},
		"NOTIFY": {func(s *specs.Spec) {
			s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"mount"}, Action: specs.ActNotify}}}
		}, true},
	} {
		b := newBox(t, "true")
		row.change(b.spec)
		if row.refused {
			if _, _, err := b.run(); err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		c, err := b.create(nil)
		must(t, err)
		if !strings.Contains(strings.Join(c.Warnings(), "\n"), name) {
			t.Errorf("%s: warned of %q", name, c.Warnings())
		}
	}
}

// TestCgroupsPath is the same place whether it begins with a slash or not, and does not lead out of the hierarchies.
func TestCgroupsPath(t *testing.T) {
	for _, path := range []string{testGroup()[1:] + "/rel/./x/", testGroup() + "/rel/x", "/../.." + testGroup() + "/rel//x"} {
		b := newBox(t)
		b.spec.Linux.CgroupsPath = path
		if c := b.sleeper(); c.Cgroup().Path() != testGroup()+"/rel/x" {
			t.Errorf("%q is %q", path, c.Cgroup().Path())
		}
		b.cleanup()
	}
}
