package main

import (
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// What callers of runc rely on, as its own tests of its command line show it.

func TestHelp(t *testing.T) {
	h := newHost(t, nil, "true")
	for _, args := range [][]string{{}, {"-h"}, {"--help"}, {"help"}} {
		if out := h.oar(args...); !strings.HasPrefix(out, "NAME:\n   oar - Open Container Initiative runtime\n") || !strings.Contains(out, "\n   update ") || !strings.Contains(out, "--root FOLDER") {
			t.Errorf("%q: %s", args, out)
		}
	}
	for _, c := range (&store{}).commands() {
		if c.does == "" || c.name == "help" || c.name == "version" {
			continue
		}
		for _, args := range [][]string{{c.name, "-h"}, {c.name, "--help"}, {"help", c.name}} {
			if out := h.oar(args...); !strings.HasPrefix(out, "NAME:\n   oar "+c.name+" - "+c.does+"\n") || strings.Contains(out, "kernel-memory") {
				t.Errorf("%q: %s", args, out)
			}
		}
	}
	if out := h.oar("create", "--help"); !strings.Contains(out, "--bundle FOLDER, -b FOLDER") {
		t.Errorf("an option's names: %s", out)
	}
	h.refuse("No help topic for 'foo'", "foo", "-h")
	h.refuse(`"kill" requires a maximum of 2 argument(s)`, "kill", "a", "b", "c")
	h.refuse(`"state" requires exactly 1 argument(s)`, "state")
	h.refuse("flag provided but not defined: -x", "list", "-x")
	h.refuse("invalid log-format", "--log-format", "xml", "list")
	h.refuse("not /", "--root", "/", "list")
}

// TestOptionsStandAnywhere: before and after the id, but never among another program's.
func TestOptionsStandAnywhere(t *testing.T) {
	h := newHost(t, nil, "sh", "-c", "exec sleep 1000")
	pid := filepath.Join(h.dir, "pid")
	h.oar("run", "c", "--bundle="+h.dir, "-d", "--pid-file", pid)
	if b, err := os.ReadFile(pid); err != nil || string(b) != strconv.Itoa(h.state().Pid) {
		t.Errorf("pid file: %q, %v", b, err)
	}
	if out := h.oar("exec", "c", "sh", "-c", "echo x$0", "-e", "--cwd"); out != "x-e\n" {
		t.Errorf("another program's options: %q", out)
	}
	if out := h.oar("ps", "c", "-o", "pid,args"); !strings.Contains(out, "sleep 1000") || strings.Contains(out, "ps -o") {
		t.Errorf("ps's options: %q", out)
	}
	h.oar("delete", "c", "--force")
	h.refuse("requires exactly 1", "delete", "--", "--force", "c")
}

func TestLists(t *testing.T) {
	h := newHost(t, nil, "sleep", "1000")
	h.refuse("no such file", "--root", filepath.Join(h.root, "none"), "list")
	h.create()
	out := h.oar("list", "--format", "json")
	if !strings.HasPrefix(out, `[{"ociVersion":"`+specs.Version+`","id":"c","pid":`) || strings.Count(out, "\n") != 1 {
		t.Errorf("list: %q", out)
	}
	if out := h.oar("ps", "-f", "json", "c"); out != "["+strconv.Itoa(h.state().Pid)+"]\n" {
		t.Errorf("ps: %q", out)
	}
}

// TestKillReachesAllOfAKilledInit: no pid namespace, and a first process that is gone already.
func TestKillReachesAllOfAKilledInit(t *testing.T) {
	h := newHost(t, func(s *specs.Spec) { s.Linux.Namespaces = s.Linux.Namespaces[1:] }, "sh", "-c", "sleep 1000 & exit")
	h.create()
	h.oar("start", "c")
	h.await(specs.StateStopped)
	h.oar("kill", "c", "KILL")
	var pids []int
	for range 2000 {
		if must(t, json.Unmarshal([]byte(h.oar("ps", "-f", "json", "c")), &pids)); len(pids) == 0 {
			break
		}
	}
	h.refuse("container not running", "kill", "c", "KILL")
	h.oar("kill", "--all", "c", "KILL")
}

// TestDescriptorsAreHandedOver: a pidfd of the process goes to who listens.
func TestDescriptorsAreHandedOver(t *testing.T) {
	h := newHost(t, nil, "sleep", "1000")
	socket := filepath.Join(h.dir, "socket")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	must(t, err)
	defer l.Close()
	for _, args := range [][]string{{"run", "-d", "-b", h.dir, "--pidfd-socket", socket, "c"}, {"exec", "--pidfd-socket", socket, "c", "sleep", "0.1"}} {
		h.oar(args...)
		conn, err := l.AcceptUnix()
		must(t, err)
		oob := make([]byte, 256)
		_, n, _, _, err := conn.ReadMsgUnix(make([]byte, 256), oob)
		must(t, err)
		conn.Close()
		messages, err := unix.ParseSocketControlMessage(oob[:n])
		must(t, err)
		fds, err := unix.ParseUnixRights(&messages[0])
		must(t, err)
		b, err := os.ReadFile("/proc/self/fdinfo/" + strconv.Itoa(fds[0]))
		must(t, err)
		if got := line(string(b), "Pid"); args[0] == "run" && got != strconv.Itoa(h.state().Pid) || args[0] == "exec" && got != "-1" {
			t.Errorf("%s: a pidfd of %s", args[0], got)
		}
		unix.Close(fds[0])
	}
}

// TestLogTakesWarningsAndDetails: with a log, nothing but errors goes to the streams that may be the container's.
func TestLogTakesWarningsAndDetails(t *testing.T) {
	h := newHost(t, func(s *specs.Spec) {
		s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: []string{"CAP_NOTHING"}}
	}, "echo", "hello")
	log := filepath.Join(h.dir, "log")
	if out := h.oar("--debug", "--log", log, "--log-format", "json", "run", "-b", h.dir, "c"); out != "hello\n" {
		t.Errorf("it printed %q", out)
	}
	b, err := os.ReadFile(log)
	must(t, err)
	levels := map[string]int{}
	for l := range strings.Lines(string(b)) {
		var e struct{ Level, Msg, Time string }
		must(t, json.Unmarshal([]byte(l), &e))
		levels[e.Level]++
	}
	if levels["warning"] != 1 || levels["debug"] < 5 || len(levels) != 2 {
		t.Errorf("%v: %s", levels, b)
	}
	if out := h.oar("--debug", "run", "-b", h.dir, "c"); !strings.Contains(out, `level=debug msg="clone the child"`) || !strings.Contains(out, "oar: warning: ") {
		t.Errorf("without a log: %s", out)
	}
}

// TestLineEndsOfATerminal: what a terminal's program prints comes out of run as it was printed.
func TestLineEndsOfATerminal(t *testing.T) {
	h := newHost(t, func(s *specs.Spec) { s.Process.Terminal = true }, "sh", "-c", "echo a; echo b")
	if out := h.atTerminal("run", "-b", h.dir, "c"); out != "a\nb\n" {
		t.Errorf("run: %q", out)
	}
	h = newHost(t, nil, "sleep", "1000")
	h.create()
	h.oar("start", "c")
	if out := h.atTerminal("exec", "-t", "c", "sh", "-c", "echo a; echo b"); out != "a\nb\n" {
		t.Errorf("exec: %q", out)
	}
}

// TestAnotherConfiguration: crun's callers name it.
func TestAnotherConfiguration(t *testing.T) {
	h := newHost(t, nil, "echo", "hello")
	must(t, os.Rename(filepath.Join(h.dir, "config.json"), filepath.Join(h.dir, "other.json")))
	h.refuse("JSON specification file", "run", "-b", h.dir, "c")
	if out := h.oar("--cgroup-manager", "cgroupfs", "run", "-b", h.dir, "--config", "other.json", "c"); out != "hello\n" {
		t.Errorf("%q", out)
	}
	h.refuse("cgroupfs or systemd", "--cgroup-manager", "x", "list")
}

// TestRootBehindALink: the path of the root file system may be one.
func TestRootBehindALink(t *testing.T) {
	h := newHost(t, nil, "echo", "hello")
	must(t, os.Rename(filepath.Join(h.dir, "rootfs"), filepath.Join(h.dir, "real")))
	must(t, os.Symlink("real", filepath.Join(h.dir, "rootfs")))
	if out := h.oar("run", "-b", h.dir, "c"); out != "hello\n" {
		t.Errorf("%q", out)
	}
}

// TestHooksAreNamedAndCalledAsWritten: which one failed, with the first argument of the configuration and no environment but its own.
func TestHooksAreNamedAndCalledAsWritten(t *testing.T) {
	h := newHost(t, func(s *specs.Spec) {
		s.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/true"}, {Path: "/bin/false"}}}
	}, "true")
	h.refuse("error running createRuntime hook #1:", "create", "-b", h.dir, "c")
	h = newHost(t, func(s *specs.Spec) {
		s.Process.Env = append(s.Process.Env, "ONE=two")
		s.Hooks = &specs.Hooks{StartContainer: []specs.Hook{{Path: "/bin/busybox", Args: []string{"sh", "-c", "echo x$ONE; exit 3"}}}}
	}, "true")
	h.refuse("exit status 3: x\n", "run", "-b", h.dir, "c")
}

// TestEnvironment: a variable once, and HOME from the container's own users.
func TestEnvironment(t *testing.T) {
	h := newHost(t, func(s *specs.Spec) {
		s.Process.Env = []string{"ONE=two", "HOME=", "PATH=/bin", "ONE=three"}
		s.Process.User.UID = 7
	}, "busybox", "env")
	must(t, os.MkdirAll(filepath.Join(h.dir, "rootfs/etc"), 0o755))
	must(t, os.WriteFile(filepath.Join(h.dir, "rootfs/etc/passwd"), []byte("root:x:0:0::/root:/bin/sh\nseven:x:7:7::/home/seven:/bin/sh\n"), 0o644))
	if out := h.oar("run", "-b", h.dir, "c"); out != "HOME=/home/seven\nPATH=/bin\nONE=three\n" {
		t.Errorf("run: %q", out)
	}
	other := filepath.Join(t.TempDir(), "passwd")
	must(t, os.WriteFile(other, []byte("x:x:7:7::/of/a/mount:/bin/sh\n"), 0o644))
	h = newHost(t, func(s *specs.Spec) {
		s.Process.User.UID = 7
		s.Mounts = append(s.Mounts, specs.Mount{Type: "bind", Source: other, Destination: "/etc/passwd", Options: []string{"bind"}})
	}, "sh", "-c", "echo $HOME; exec sleep 1000")
	h.create()
	h.oar("start", "c")
	for h.output() == "" {
		h.state()
	}
	if out := h.output() + h.oar("exec", "c", "sh", "-c", "echo $HOME") + h.oar("exec", "-u", "9", "c", "sh", "-c", "echo $HOME"); out != "/of/a/mount\n/of/a/mount\n/\n" {
		t.Errorf("of a mount, exec, a user without: %q", out)
	}
}

// TestNobodyCanType: a program that waits for input would wait for ever.
func TestNobodyCanType(t *testing.T) {
	h := newHost(t, func(s *specs.Spec) { s.Process.Terminal = true }, "sh")
	h.refuse("oar is at none", "run", "-b", h.dir, "c")
	if out := h.oar("list", "-q"); out != "" {
		t.Errorf("left behind: %q", out)
	}
}

// TestNameOfATerminal: a program finds its terminal by name, in run and before its start.
func TestNameOfATerminal(t *testing.T) {
	h := newHost(t, func(s *specs.Spec) { s.Process.Terminal = true }, "busybox", "tty")
	if out := h.atTerminal("run", "-b", h.dir, "c"); out != "/dev/pts/0\n" {
		t.Errorf("%q", out)
	}
}

// TestMountOptions: flags and mappings are the topmost mount's unless they say otherwise; a read-only tmpfs is filled first.
func TestMountOptions(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "inner"), 0o755))
	must(t, unix.Mount("inner", filepath.Join(dir, "inner"), "tmpfs", 0, "mode=777"))
	defer func() { must(t, unix.Unmount(filepath.Join(dir, "inner"), unix.MNT_DETACH)) }()
	tree := func(at string, options ...string) specs.Mount {
		m := specs.Mount{Type: "bind", Source: dir, Destination: at, Options: append([]string{"rbind"}, options...)}
		if strings.HasPrefix(at, "/mapped") {
			m.UIDMappings = []specs.LinuxIDMapping{{HostID: 100000, Size: 65536}}
			m.GIDMappings = m.UIDMappings
		}
		return m
	}
	h := newHost(t, func(s *specs.Spec) {
		for i := range s.Mounts {
			if s.Mounts[i].Destination == "/dev" {
				s.Mounts[i].Options = append(s.Mounts[i].Options, "ro")
			}
		}
		s.Mounts = append(s.Mounts, tree("/top", "ro"), tree("/all", "rro"), tree("/mapped", "idmap"), tree("/mapped-all", "ridmap"))
	}, "sh", "-c", `busybox touch /dev/x /top/x /top/inner/x /all/inner/y; busybox stat -c '%u' /mapped /mapped/inner /mapped-all/inner`)
	out := h.oar("run", "-b", h.dir, "c")
	for _, want := range []string{"/dev/x: Read-only", "/top/x: Read-only", "/all/inner/y: Read-only", "\n100000\n0\n100000\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in %s", want, out)
		}
	}
	if strings.Contains(out, "/top/inner/x:") {
		t.Errorf("a mount below is read-only too: %s", out)
	}
}

// TestKillOfACreatedContainer: a process that has nothing to handle a signal with yet ends by it, although it is the first of its namespace.
func TestKillOfACreatedContainer(t *testing.T) {
	h := newHost(t, nil, "true")
	h.create()
	h.oar("kill", "c", "WINCH")
	if s := h.state(); s.Status != specs.StateCreated {
		t.Errorf("after a signal that ends nothing: %+v", s)
	}
	h.oar("kill", "c")
	h.await(specs.StateStopped)
}

// TestGroupsThatAreInUse are refused, in words that say so.
func TestGroupsThatAreInUse(t *testing.T) {
	h := newHost(t, nil, "sleep", "1000")
	h.create()
	h.refuse("container's cgroup is not empty", "create", "-b", h.dir, "other")
	h.oar("delete", "-f", "c")
	group := "/sys/fs/cgroup/unified"
	if unifiedHost() {
		group = "/sys/fs/cgroup"
	}
	group += "/wherry-oar-test/" + filepath.Base(filepath.Dir(h.dir))
	must(t, os.MkdirAll(group, 0o755))
	must(t, os.WriteFile(filepath.Join(group, "cgroup.freeze"), []byte("1"), 0))
	h.refuse("container's cgroup unexpectedly frozen", "create", "-b", h.dir, "c")
	must(t, os.Remove(group))
}

// TestBeginnings: what a process begins with, whoever calls: all processors, the image's mode of a folder that a tmpfs covers, and an
// ambient capability of exec where the configuration has inheritable ones.
func TestBeginnings(t *testing.T) {
	own := readAffinity(t)
	h := newHost(t, func(s *specs.Spec) {
		s.Mounts = append(s.Mounts, specs.Mount{Type: "tmpfs", Destination: "/covered"})
		kill, both := []string{"CAP_KILL"}, []string{"CAP_KILL", "CAP_CHOWN"}
		s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: both, Effective: kill, Permitted: kill, Inheritable: both, Ambient: kill}
		s.Hooks = &specs.Hooks{CreateContainer: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "test -e covered && test -e bin/busybox"}}}}
	}, "sh", "-c", "busybox stat -c %a /covered; cat /proc/self/status; exec sleep 1000")
	must(t, os.Mkdir(filepath.Join(h.dir, "rootfs/covered"), 0o700))
	must(t, os.Chmod(filepath.Join(h.dir, "rootfs/covered"), 0o711))
	var one unix.CPUSet
	one.Set(0)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	must(t, unix.SchedSetaffinity(0, &one))
	h.create()
	h.oar("start", "c")
	for h.state().Status == specs.StateRunning && !strings.Contains(h.output(), "nonvoluntary") {
		runtime.Gosched()
	}
	if out := h.output(); !strings.HasPrefix(out, "711\n") || line(out, "Cpus_allowed_list") != own {
		t.Errorf("mode and processors (%s): %s", own, out)
	}
	out := h.oar("exec", "--cap", "CAP_CHOWN", "c", "cat", "/proc/self/status")
	must(t, unix.SchedSetaffinity(0, allProcessors()))
	if line(out, "CapAmb") != "0000000000000021" || line(out, "Cpus_allowed_list") != own {
		t.Errorf("exec: %s, processors %s", line(out, "CapAmb"), line(out, "Cpus_allowed_list"))
	}
}

func allProcessors() *unix.CPUSet {
	var all unix.CPUSet
	for i := range len(all) * 64 {
		all.Set(i)
	}
	return &all
}

// readAffinity is the list of all processors that this test may use.
func readAffinity(t *testing.T) string {
	b, err := os.ReadFile("/proc/self/status")
	must(t, err)
	return line(string(b), "Cpus_allowed_list")
}

// TestLoopbackIsUp in a network namespace of the container's own, a user namespace or not.
func TestLoopbackIsUp(t *testing.T) {
	h := newHost(t, nil, "cat", "/proc/net/fib_trie")
	if out := h.oar("run", "-b", h.dir, "c"); !strings.Contains(out, "127.0.0.1") {
		t.Errorf("%q", out)
	}
}

// TestSocketsOfAServiceManager are passed on, and announced to the program as to the first process.
func TestSocketsOfAServiceManager(t *testing.T) {
	h := newHost(t, nil, "sh", "-c", "echo $LISTEN_FDS $LISTEN_PID; cat <&3; cat <&4")
	var files []*os.File
	for _, text := range []string{"socket\n", "preserved\n"} {
		f, err := os.CreateTemp(t.TempDir(), "passed")
		must(t, err)
		defer f.Close()
		_, err = f.WriteString(text)
		must(t, err)
		_, err = f.Seek(0, 0)
		must(t, err)
		files = append(files, f)
	}
	cmd := oarAt(t, h.root, "run", "--preserve-fds", "1", "-b", h.dir, "c")
	cmd.ExtraFiles = files
	sh := exec.Command("sh", append([]string{"-c", `LISTEN_FDS=1 LISTEN_PID=$$ exec "$@"`, "sh"}, cmd.Args...)...)
	sh.Path, sh.Env, sh.ExtraFiles = "/bin/sh", os.Environ(), files
	sh.Args[3] = cmd.Path
	if out, err := sh.CombinedOutput(); err != nil || string(out) != "1 1\nsocket\npreserved\n" {
		t.Errorf("%q, %v", out, err)
	}
}

// TestMountedTwice: the terminal is in the topmost devpts.
func TestMountedTwice(t *testing.T) {
	h := newHost(t, func(s *specs.Spec) {
		s.Process.Terminal = true
		for _, m := range s.Mounts {
			if m.Type == "devpts" {
				s.Mounts = append(s.Mounts, m)
				break
			}
		}
	}, "busybox", "tty")
	if out := h.atTerminal("run", "-b", h.dir, "c"); out != "/dev/pts/0\n" {
		t.Errorf("%q", out)
	}
	h.oar("create", "-b", h.dir, "--console-socket", listenOnce(t), "d") // it waits: the program would end at once
	h.refuse("chdir to cwd", "exec", "--cwd", "/no/such", "d", "true")
	h.oar("delete", "-f", "d")
}

// listenOnce takes a terminal and keeps it.
func listenOnce(t *testing.T) string {
	socket := filepath.Join(t.TempDir(), "socket")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	must(t, err)
	t.Cleanup(func() { l.Close() })
	return socket
}

// TestStartSaysWhy: what only the execve finds out is start's error, and the container has stopped.
func TestStartSaysWhy(t *testing.T) {
	for program, want := range map[string]string{"/vol/busybox": "exec /vol/busybox: permission denied", "no-interpreter": "its interpreter /no/such is not in the image",
		"no-program": "exec format error: it is neither a program for this machine nor a script"} {
		h := newHost(t, func(s *specs.Spec) {
			s.Process.Env = []string{"PATH=/sbin:/bin:/usr/bin"}
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/vol", Type: "bind", Source: "/bin", Options: []string{"rbind", "noexec"}})
		}, program, "true")
		must(t, os.WriteFile(filepath.Join(h.dir, "rootfs/bin/no-interpreter"), []byte("#!/no/such\n"), 0o755))
		must(t, os.WriteFile(filepath.Join(h.dir, "rootfs/bin/no-program"), []byte("\x00\x01\x02"), 0o755))
		h.create()
		h.refuse(want, "start", "c")
		h.await(specs.StateStopped)
		h.oar("delete", "c")
	}
}

// TestGroupsOfTheCaller stay where crun's annotation asks for it, as Podman's --group-add keep-groups does, and nowhere else.
func TestGroupsOfTheCaller(t *testing.T) {
	for keep, want := range map[string]string{"1": "0 1234\n", "0": "0 7\n"} {
		h := newHost(t, func(s *specs.Spec) {
			s.Annotations = map[string]string{"run.oci.keep_original_groups": keep}
			s.Process.User.AdditionalGids = []uint32{7}
			var rest []specs.LinuxNamespace
			for _, ns := range s.Linux.Namespaces {
				if ns.Type != specs.UserNamespace {
					rest = append(rest, ns)
				}
			}
			s.Linux.Namespaces, s.Linux.UIDMappings, s.Linux.GIDMappings = rest, nil, nil
		}, "sh", "-c", "busybox id -G; exec sleep 1000")
		oar := func(args ...string) string {
			t.Helper()
			cmd := oarAt(t, h.root, args...)
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Groups: []uint32{1234}}}
			out, err := cmd.Output()
			must(t, err)
			return string(out)
		}
		out := filepath.Join(h.dir, "groups")
		f, err := os.Create(out)
		must(t, err)
		defer f.Close()
		cmd := oarAt(t, h.root, "run", "-d", "-b", h.dir, "c")
		cmd.Stdout, cmd.SysProcAttr = f, &syscall.SysProcAttr{Credential: &syscall.Credential{Groups: []uint32{1234}}}
		must(t, cmd.Run())
		if got := oar("exec", "c", "busybox", "id", "-G"); got != want {
			t.Errorf("annotation %s: exec has the groups %q, want %q", keep, got, want)
		}
		var b []byte
		for i := 0; len(b) == 0 && i < 1000; i++ {
			time.Sleep(10 * time.Millisecond)
			b, err = os.ReadFile(out)
			must(t, err)
		}
		if string(b) != want {
			t.Errorf("annotation %s: the first process has the groups %q, want %q", keep, b, want)
		}
		h.oar("delete", "-f", "c")
	}
}
