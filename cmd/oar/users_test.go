package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

var updatePosture = flag.Bool("update", false, "write testdata/posture-*.txt anew")

// prepare has root run a line of shell before each of the user's commands.
func (u *person) prepare(script string) {
	u.asRoot = true
	id := strconv.Itoa(int(u.uid))
	u.before = []string{"sh", "-c", "set -e; " + script + "; exec setpriv --reuid=" + id + " --regid=" + id + ` --clear-groups "$@"`, "sh"}
}

// hostOf is what /proc/PID/status says of a process's user on the host.
func (u *person) hostOf(pidFile string) (pid, users string) {
	u.t.Helper()
	b, err := os.ReadFile(pidFile)
	must(u.t, err)
	status, err := os.ReadFile("/proc/" + string(b) + "/status")
	must(u.t, err)
	_, rest, _ := strings.Cut(string(status), "\nUid:\t")
	users, _, _ = strings.Cut(rest, "\t")
	return string(b), users
}

// TestSubordinateIDs: users of a container beside its root, whose ids newuidmap(1) maps; signals from outside reach them.
func TestSubordinateIDs(t *testing.T) {
	u := newPerson(t, func(s *specs.Spec) {
		l := s.Linux
		l.UIDMappings = append(l.UIDMappings, specs.LinuxIDMapping{ContainerID: 1, HostID: 200000, Size: 65536})
		l.GIDMappings = append(l.GIDMappings, specs.LinuxIDMapping{ContainerID: 1, HostID: 200000, Size: 65536})
		s.Process.User = specs.User{UID: 33, GID: 44, AdditionalGids: []uint32{5, 6}}
		l.Namespaces = append(l.Namespaces[:4:4], l.Namespaces[5]) // the network is the host's
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/run", Type: "tmpfs", Options: []string{"mode=700", "uid=33", "gid=44"}},
			specs.Mount{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"ro"}})
	}, "sh", "-c", "id; touch /run/mine; trap 'exit 3' TERM; while :; do sleep 0.01; done")
	ids := u.dir + "/ids"
	must(t, os.WriteFile(ids, []byte("daemon:200000:65536\n"), 0o644))
	u.before = []string{"unshare", "--mount", "--propagation", "private"}
	outer := u.before
	u.prepare("mount --bind " + ids + " /etc/subuid; mount --bind " + ids + " /etc/subgid")
	u.before = append(append([]string{}, outer...), u.before...)
	u.oar("create", "--pid-file", u.dir+"/pid", "c")
	u.oar("start", "c")
	if _, users := u.hostOf(u.dir + "/pid"); users != "200032" {
		t.Errorf("on the host the program's user is %s", users)
	}
	if out := u.oar("exec", "c", "sh", "-c", "while ! test -e /run/mine; do sleep 0.01; done; id; cat /proc/self/uid_map; test -O /run/mine && echo mine"); strings.Join(strings.Fields(out), " ") !=
		"uid=33 gid=44 groups=5,6 0 0 1 1 1 65536 mine" {
		t.Errorf("exec: %q", out)
	}
	typed := u.command(t.Context(), "--root", u.root, "exec", "-u", "7", "-t", "c", "sh", "-c", "test -t 0 && test -O /dev/pts/0 && echo a terminal of $(id -u)")
	_, typed.Stdin = openTerminal(t)
	if out, err := typed.Output(); err != nil || strings.TrimSpace(string(out)) != "a terminal of 7" {
		t.Errorf("exec -t: %v, %q", err, out)
	}
	u.asRoot, u.before = false, nil // from outside, without help
	u.oar("kill", "c", "TERM")
	u.await(specs.StateStopped)
	u.oar("delete", "c")
}

// TestNestedInUserNamespaces: oar as root of a user namespace that somebody else has made, with and without a mount namespace of its own.
func TestNestedInUserNamespaces(t *testing.T) {
	without := func(s *specs.Spec) {
		s.Linux.Namespaces, s.Linux.UIDMappings, s.Linux.GIDMappings = s.Linux.Namespaces[:4], nil, nil // nor a network of its own
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"ro"}})
	}
	further := func(s *specs.Spec) { s.Linux.UIDMappings[0].HostID, s.Linux.GIDMappings[0].HostID = 0, 0 }
	hosts := func(s *specs.Spec) { without(s); s.Linux.Namespaces = s.Linux.Namespaces[1:4] }
	for name, row := range map[string]struct {
		before []string
		change func(*specs.Spec)
		says   string
	}{
		"users only":               {[]string{"unshare", "--user", "--map-root-user"}, without, "1 0 0 plain 1"},
		"users and mounts":         {[]string{"unshare", "--user", "--map-root-user", "--mount"}, without, "1 0 0 plain 1"},
		"a further user namespace": {[]string{"unshare", "--user", "--map-root-user", "--mount"}, further, "1 0 0 0 1"},
		"the host's processes":     {[]string{"unshare", "--user", "--map-root-user", "--mount"}, hosts, "many 0 0 plain 1"},
	} {
		t.Run(name, func(t *testing.T) {
			u := newPerson(t, row.change, "sh", "-c", "echo x > /dev/null; echo $(test $(readlink /proc/self) -lt 100 && echo 1 || echo many) $(id -u) $(cat /proc/self/uid_map)")
			u.before = row.before
			if out, want := u.oar("run", "c"), strings.ReplaceAll(row.says, "plain", strconv.Itoa(plain)); strings.TrimSpace(out) != want {
				t.Errorf("it printed %q, want %q", out, want)
			}
		})
	}
}

// TestInsideAContainer: oar in a container of oar's that may make others, and that is told why it may not when its /proc is masked.
func TestInsideAContainer(t *testing.T) {
	capabilities := []string{"CAP_SYS_ADMIN", "CAP_SETUID", "CAP_SETGID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_KILL"}
	ids := []specs.LinuxIDMapping{{HostID: 0x32000000, Size: 65536}}
	for name, row := range map[string]struct {
		masked []string
		users  bool
		says   string
	}{
		"its users":                {nil, false, "inside as 0\n"},
		"a further user namespace": {nil, true, "inside as 0\n"},
		"masked":                   {[]string{"/proc/keys"}, true, "parts of /proc are masked"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := bundle(t, func(s *specs.Spec) {
				s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
				s.Linux.UIDMappings, s.Linux.GIDMappings, s.Linux.MaskedPaths = ids, ids, row.masked
				s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: capabilities, Effective: capabilities, Permitted: capabilities}
				s.Mounts = append(s.Mounts, specs.Mount{Destination: "/run", Type: "tmpfs"})
			}, "oar", "run", "-b", "/inner", "i")
			u := newPerson(t, func(s *specs.Spec) {
				s.Linux.UIDMappings = []specs.LinuxIDMapping{{Size: 65536}}
				s.Linux.GIDMappings = s.Linux.UIDMappings
				if !row.users {
					s.Linux.Namespaces, s.Linux.UIDMappings, s.Linux.GIDMappings = s.Linux.Namespaces[:5], nil, nil
				}
			}, "sh", "-c", "echo inside as $(id -u)")
			must(t, os.Rename(u.dir, dir+"/rootfs/inner"))
			u.dir, u.uid = dir, ids[0].HostID
			u.own()
			out, err := oar(t, "run", "-b", dir, "x").CombinedOutput()
			if !strings.Contains(string(out), row.says) || (err == nil) != (row.masked == nil) {
				t.Errorf("%v, %q; want %q", err, out, row.says)
			}
		})
	}
}

// TestRootlessBinaryIsProtected: the user owns the runtime's binary, and so does the container's root, who is that user; by way of a
// process that runs it nobody writes to it all the same.
func TestRootlessBinaryIsProtected(t *testing.T) {
	u := newPerson(t, nil, "sleep", "1000")
	before := sumOf(t, u.dir+"/rootfs/bin/oar")
	u.oar("create", "c")
	u.oar("start", "c")
	u.oar("exec", "-d", "--pid-file", u.dir+"/pid", "c", "/proc/self/exe", "hello", "--wait")
	pid, users := u.hostOf(u.dir + "/pid")
	if users != strconv.Itoa(plain) {
		t.Errorf("the container's root is %s on the host", users)
	}
	var st unix.Statfs_t
	must(t, unix.Statfs("/proc/"+pid+"/exe", &st))
	if st.Flags&unix.ST_RDONLY == 0 {
		t.Error("the container's process runs from a mount that can be written to")
	}
	// As attackers do: what the process executes is held open, and written to when nobody executes it any more.
	const attack = `for p in /proc/[0-9]*; do case "$(busybox readlink $p/exe)" in /bin/busybox | "") ;; *) exec 9< $p/exe; kill -9 ${p#/proc/} ;; esac; done
		i=0; while { echo x >> /proc/self/fd/9; } 2>&1 | busybox grep -q busy && test $i -lt 500; do sleep 0.01; i=$((i+1)); done
		{ echo x >> /proc/self/fd/9 && echo written; } > /tmp/said 2>&1; echo . >> /tmp/said`
	u.oar("exec", "-d", "c", "sh", "-c", attack)
	said := awaitFile(t, u.dir+"/rootfs/tmp/said", ".\n")
	if !strings.Contains(strings.ToLower(said), "read-only") {
		t.Errorf("a write to the runtime: %q", said)
	}
	u.oar("delete", "--force", "c")
	if after := sumOf(t, u.dir+"/rootfs/bin/oar"); !bytes.Equal(before, after) {
		t.Error("the runtime's binary has changed")
	}
}

// awaitFile waits for a file that ends so.
func awaitFile(t *testing.T, name, end string) string {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if b, _ := os.ReadFile(name); strings.HasSuffix(string(b), end) || time.Now().After(deadline) {
			return string(b)
		}
	}
}

func sumOf(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	must(t, err)
	sum := sha256.Sum256(b)
	return sum[:]
}

// TestRootlessPosture holds what a container of an unprivileged user is confined to against a checked-in description, for run and exec.
// Read the diff before -update.
func TestRootlessPosture(t *testing.T) {
	change := func(s *specs.Spec) {
		first := firstSpec()
		s.Mounts, s.Process.Capabilities, s.Process.NoNewPrivileges = first.Mounts, first.Process.Capabilities, true
		s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = first.Linux.MaskedPaths, first.Linux.ReadonlyPaths
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.CgroupNamespace})
	}
	byRun := posture(t, newPerson(t, change, "probe", "posture").oar("run", "c"))
	u := newPerson(t, change, "sleep", "1000")
	u.oar("create", "c")
	u.oar("start", "c")
	if byExec := posture(t, u.oar("exec", "c", "probe", "posture")); byExec != byRun {
		t.Errorf("run and exec differ:\n%s\n%s", byRun, byExec)
	}
	const file = "testdata/posture-rootless.txt"
	if *updatePosture {
		must(t, os.MkdirAll(filepath.Dir(file), 0o755))
		must(t, os.WriteFile(file, []byte(byRun), 0o644))
	}
	want, err := os.ReadFile(file)
	must(t, err)
	if byRun != string(want) {
		t.Errorf("%s is\n%s\nand should be\n%s", file, byRun, want)
	}
}

// posture leaves out what is the machine's or the kernel's own, and says of namespaces whether they are the host's.
func posture(t *testing.T, text string) string {
	t.Helper()
	var out strings.Builder
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		kept := slices.Contains(strings.Fields("status umask namespace mount device mknod descriptor environment securebits dumpable leads"), f[0])
		if f[0] == "mount" && strings.HasPrefix(f[1], "/proc/") { // not everything that is masked is there
			kept = slices.Contains([]string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys"}, f[1])
		}
		if !kept && !strings.HasPrefix(line, "writable below ") {
			continue
		}
		if f[0] == "descriptor" {
			line = "descriptor " + f[1] + "\n"
		}
		if f[0] == "mount" && f[1] == "/" {
			line = strings.Replace(line, f[2], "fs", 1)
		}
		if f[0] == "namespace" {
			host, err := os.Readlink("/proc/self/ns/" + f[1])
			must(t, err)
			line = "namespace " + f[1] + " own\n"
			if host == f[2] {
				line = "namespace " + f[1] + " the host's\n"
			}
		}
		out.WriteString(line)
	}
	return out.String()
}

// TestRootlessLimits: what only more rights give is made the best of.
func TestRootlessLimits(t *testing.T) {
	more, less := 500, -500
	for _, row := range []struct {
		score *int
		says  string
	}{{&more, "500"}, {&less, ""}} {
		u := newPerson(t, func(s *specs.Spec) {
			s.Process.OOMScoreAdj = row.score
			s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 1 << 19, Hard: 1 << 19}}
			s.Hooks = &specs.Hooks{CreateContainer: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "grep -q '^NSpid:.*[[:space:]][0-9]*[[:space:]]' /proc/self/status || id -u"}}}}
		}, "sh", "-c", "cat /proc/self/oom_score_adj; ulimit -n")
		u.prepare("ulimit -n 4000")
		out := u.oar("run", "c")
		if !strings.Contains(out, "RLIMIT_NOFILE is 4000 and not") || !strings.Contains(out, row.says+"\n4000\n") {
			t.Errorf("score %d: %q", *row.score, out)
		}
	}
}

// TestDelegatedGroup: where a service manager has given the user a part of the cgroup2 tree, a container has its group there.
func TestDelegatedGroup(t *testing.T) {
	tree := "/sys/fs/cgroup"
	if _, err := os.Stat(tree + "/cgroup.procs"); err != nil {
		tree += "/unified"
	}
	tree += "/wherry-oar-rootless"
	u := newPerson(t, nil, "sh", "-c", "while :; do sleep 0.01; done")
	u.prepare("mkdir -p " + tree + "/caller; chown " + strconv.Itoa(plain) + " " + tree + " " + tree + "/cgroup.procs; echo $$ > " + tree + "/caller/cgroup.procs")
	t.Cleanup(func() {
		must(t, unix.Rmdir(tree+"/caller"))
		must(t, unix.Rmdir(tree))
	})
	u.oar("create", "--pid-file", u.dir+"/pid", "c")
	u.oar("start", "c")
	pid, err := os.ReadFile(u.dir + "/pid")
	must(t, err)
	procs, err := os.ReadFile(tree + "/c/cgroup.procs")
	must(t, err)
	if !strings.Contains(string(procs), string(pid)) {
		t.Errorf("the container's group has the processes %q, and not %s", procs, pid)
	}
	u.oar("pause", "c")
	if s := u.status(); s != statusPaused {
		t.Errorf("paused: %s", s)
	}
	u.oar("resume", "c")
	u.oar("exec", "c", "true")
	u.asRoot, u.before = false, nil
	u.refuse("may not move into the container's control group", "exec", "c", "true")
	u.oar("delete", "--force", "c")
	if _, err := os.Stat(tree + "/c"); err == nil {
		t.Error("the control group is left")
	}
}

// TestRootlessJoinsNamespaces: a user and a network namespace that the same user has made before, by their paths, and exec into them.
func TestRootlessJoinsNamespaces(t *testing.T) {
	holder := exec.CommandContext(t.Context(), "unshare", "--user", "--map-root-user", "--net", "sh", "-c", "echo made; exec sleep 1000")
	holder.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: plain, Gid: plain}}
	out := &lockedBuffer{}
	holder.Stdout = out
	must(t, holder.Start())
	defer func() { _ = holder.Process.Kill(); _ = holder.Wait() }()
	out.await(t, "made")
	ns := "/proc/" + strconv.Itoa(holder.Process.Pid) + "/ns/"
	u := newPerson(t, func(s *specs.Spec) {
		l := s.Linux
		l.UIDMappings, l.GIDMappings = nil, nil
		l.Namespaces[4].Path, l.Namespaces[5].Path = ns+"net", ns+"user"
	}, "sleep", "1000")
	u.oar("create", "c")
	u.oar("start", "c")
	var want []string
	for _, name := range []string{"user", "net"} {
		link, err := os.Readlink(ns + name)
		must(t, err)
		want = append(want, link)
	}
	if out := u.oar("exec", "c", "sh", "-c", "readlink /proc/self/ns/user; readlink /proc/self/ns/net; readlink /proc/1/ns/net"); !slices.Equal(strings.Fields(out), append(want, want[1])) {
		t.Errorf("it is in %q, not in %q", out, want)
	}
}

// TestRootlessSharesProcesses: a container without a control group, in the pid namespace of somebody else's processes. What ends it, and all of
// it, ends nobody else.
func TestRootlessSharesProcesses(t *testing.T) {
	holder := exec.CommandContext(t.Context(), "unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child", "sh", "-c", "echo made; sleep 1000; echo killed")
	holder.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: plain, Gid: plain}}
	out := &lockedBuffer{}
	holder.Stdout = out
	must(t, holder.Start())
	defer func() { _ = holder.Process.Kill(); _ = holder.Wait() }()
	out.await(t, "made")
	ns := "/proc/" + strconv.Itoa(holder.Process.Pid) + "/ns/"
	u := newPerson(t, func(s *specs.Spec) {
		l := s.Linux
		l.UIDMappings, l.GIDMappings = nil, nil
		l.Namespaces = slices.DeleteFunc(l.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.NetworkNamespace })
		l.Namespaces[0].Path, l.Namespaces[len(l.Namespaces)-1].Path = ns+"pid_for_children", ns+"user"
	}, "sh", "-c", "trap 'echo asked >> /tmp/asked' USR1; (trap 'echo asked >> /tmp/asked' USR1; echo listens >> /tmp/asked; while :; do sleep 0.01; done) & echo listens >> /tmp/asked; while :; do sleep 0.01; done")
	u.oar("create", "c")
	u.oar("start", "c")
	said := func(word string) int {
		b, _ := os.ReadFile(filepath.Join(u.dir, "rootfs/tmp/asked"))
		return strings.Count(string(b), word)
	}
	until := func(word string) {
		for deadline := time.Now().Add(time.Minute); said(word) < 2 && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		}
	}
	until("listens")
	u.oar("kill", "--all", "c", "USR1")
	until("asked")
	time.Sleep(100 * time.Millisecond)
	if n := said("asked"); n != 2 {
		t.Errorf("the signal came %d times to two processes", n)
	}
	var pids []int
	must(t, json.Unmarshal([]byte(u.oar("ps", "--format", "json", "c")), &pids))
	if len(pids) < 2 {
		t.Errorf("ps: %v", pids)
	}
	u.oar("delete", "--force", "c")
	alive := func(pid int) bool {
		b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		return err == nil && !strings.Contains(string(b), ") Z ")
	}
	for deadline := time.Now().Add(time.Minute); slices.ContainsFunc(pids, alive) && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
	}
	if slices.ContainsFunc(pids, alive) {
		t.Errorf("some of the processes %v are left", pids)
	}
	if strings.Contains(out.String(), "killed") || !alive(holder.Process.Pid) {
		t.Error("the other processes of the namespace were ended too")
	}
}

// TestRootlessInterrupts: what is typed at a terminal reaches both processes that wait for a container, and its program once.
func TestRootlessInterrupts(t *testing.T) {
	u := newPerson(t, nil, "sh", "-c", "trap 'echo interrupted' INT; trap 'echo asked; exit 5' TERM; sleep 1000 & echo ready; while :; do wait; done")
	master, slave := openTerminal(t)
	cmd := u.command(t.Context(), "--root", u.root, "run", "c")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr.Setsid, cmd.SysProcAttr.Setctty = true, true
	must(t, cmd.Start())
	must(t, slave.Close())
	out := &lockedBuffer{}
	go func() { _, _ = master.WriteTo(out) }()
	out.await(t, "ready")
	_, err := master.Write([]byte{3})
	must(t, err)
	out.await(t, "interrupted")
	must(t, cmd.Process.Signal(unix.SIGTERM))
	out.await(t, "asked")
	if err := cmd.Wait(); exitCodeOf(err) != 5 || strings.Count(out.String(), "interrupted") != 1 {
		t.Errorf("%v: %q", err, out.String())
	}
}
