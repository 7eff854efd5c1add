package ociruntime

import (
	"fmt"
	"os"
	osexec "os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// TestProcIsNotCovered: class 3 and 9 (CVE-2019-16884, CVE-2019-19921, CVE-2025-52881): nothing that a configuration or an image's links
// lead to /proc hides what the kernel says there, or gets what is written there; files of the machine's size may be covered.
func TestProcIsNotCovered(t *testing.T) {
	_, intact := canary(t)
	defer intact()
	folder := func(destination string) specs.Mount {
		return specs.Mount{Type: "bind", Source: t.TempDir(), Destination: destination, Options: []string{"rbind"}}
	}
	source := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(source, []byte("covered\n"), 0o644))
	file := func(destination string) specs.Mount {
		return specs.Mount{Type: "bind", Source: source, Destination: destination, Options: []string{"bind"}}
	}
	host := specs.Mount{Type: "bind", Source: "/proc", Destination: "/proc", Options: []string{"rbind"}}
	for name, row := range map[string]struct {
		mount specs.Mount
		ok    bool
	}{
		"folder over it":   {folder("/proc"), false},
		"tmpfs over it":    {specs.Mount{Type: "tmpfs", Destination: "/proc"}, false},
		"by a link":        {folder("/covert"), false},
		"below, by a link": {folder("/covert/sys"), false},
		"attributes":       {folder("/proc/self/attr"), false},
		"a process":        {folder("/proc/1"), false},
		"itself":           {folder("/proc/self"), false},
		"dots":             {folder("/tmp/../proc/sys"), false},
		"a file":           {file("/proc/sysrq-trigger"), false},
		"an attribute":     {file("/proc/self/attr/exec"), false},
		"the machine":      {file("/proc/meminfo"), true},
		"by a procfs":      {specs.Mount{Type: "proc", Destination: "/proc"}, true},
		"by the host's":    {host, true},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBox(t, "cat", "/proc/meminfo")
			must(t, os.Symlink("/proc", filepath.Join(b.image, "covert")))
			b.spec.Mounts = append(b.spec.Mounts, row.mount)
			out, status, err := b.run()
			if (err == nil) != row.ok || err != nil && !strings.Contains(err.Error(), "would be covered") {
				t.Fatalf("%v %+v %q", err, status, out)
			}
			if row.ok && name == "the machine" && out != "covered\n" {
				t.Errorf("%q", out)
			}
		})
	}
	b := newBox(t, "true")
	b.spec.Mounts = append([]specs.Mount{folder("/proc")}, b.spec.Mounts[1:]...)
	if _, _, err := b.run(); err == nil || !strings.Contains(err.Error(), "would be covered") {
		t.Errorf("a folder in its place: %v", err)
	}
}

// TestDevicesOfImages: class 9: device nodes that an image, or a copy into a container, brings open nothing: the control group says which
// devices there are. Nor does the runtime open one on its own account when it looks why a program does not start.
func TestDevicesOfImages(t *testing.T) {
	_, intact := canary(t)
	defer intact()
	for name, own := range map[string]bool{"own users": true, "host's users": false} {
		t.Run(name, func(t *testing.T) {
			b := postureBox(t, container.HostConfig{}, own, specs.User{})
			for node, dev := range map[string]uint64{"disk": unix.Mkdev(254, 0), "loop": unix.Mkdev(7, 0)} {
				makeNode(t, filepath.Join(b.image, node), unix.S_IFBLK, dev)
			}
			makeNode(t, filepath.Join(b.image, "memory"), unix.S_IFCHR, unix.Mkdev(1, 1))
			makeNode(t, filepath.Join(b.image, "console"), unix.S_IFCHR, unix.Mkdev(5, 1))
			makeNode(t, filepath.Join(b.image, "zero"), unix.S_IFCHR, unix.Mkdev(1, 5))
			b.spec.Process.Args = []string{"sh", "-c", "for n in disk loop memory console; do head -c 0 /$n && echo opened $n; done; for n in zero; do head -c 1 /$n >/dev/null && echo opened $n; done; :"}
			out, _, err := b.run()
			if err != nil || strings.Count(out, "not permitted") != 4 || !strings.Contains(out, "opened zero") {
				t.Errorf("%v %q", err, out)
			}
		})
	}
	b := newBox(t, "/program") // of a number that no driver has: an open would say so
	makeNode(t, filepath.Join(b.image, "program"), unix.S_IFCHR, unix.Mkdev(4000, 7))
	if _, err := readHead(view{root: openRootOf(t, b.image)}, "/program"); err == nil || !strings.Contains(err.Error(), "neither a regular file") {
		t.Errorf("a device is looked into: %v", err)
	}
	if _, _, err := b.run(); err == nil {
		t.Error("a device is executed")
	}
}

// makeNode makes a device that everybody may use and execute.
func makeNode(t *testing.T, path string, kind uint32, dev uint64) {
	t.Helper()
	must(t, unix.Mknod(path, kind|0o777, int(dev)))
	must(t, os.Chmod(path, 0o777))
}

func openRootOf(t *testing.T, dir string) *os.File {
	t.Helper()
	f, err := os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	must(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

// TestMasksOfImagesOwnDev: class 3 (CVE-2025-31133, CVE-2025-52565): where /dev is the image's own, what it has in null's, console's and
// pts' places decides neither what masks are made of nor where anything is mounted.
func TestMasksOfImagesOwnDev(t *testing.T) {
	out, intact := canary(t)
	for name, change := range map[string]func(dev string) error{
		"links": func(dev string) error {
			for at, to := range map[string]string{"null": out + "/null", "pts": out + "/dev/pts", "console": out + "/hosts", "ptmx": out + "/null"} {
				if err := os.Symlink(to, filepath.Join(dev, at)); err != nil {
					return err
				}
			}
			return nil
		},
		"a file":   func(dev string) error { return os.WriteFile(dev+"/null", []byte("canary"), 0o666) },
		"a folder": func(dev string) error { return os.Mkdir(dev+"/null", 0o777) },
		"a disk":   func(dev string) error { return unix.Mknod(dev+"/null", unix.S_IFBLK|0o666, int(unix.Mkdev(254, 0))) },
	} {
		for _, own := range []bool{true, false} {
			t.Run(fmt.Sprint(name, ", own users ", own), func(t *testing.T) {
				b := newBox(t, "sh", "-c", "stat -c '%t:%T %F' /proc/keys; echo x >/proc/keys; cat /proc/keys")
				if !own {
					b.hostUsers()
				}
				var rest []specs.Mount
				for _, m := range b.spec.Mounts {
					if m.Destination != "/dev" && m.Destination != "/dev/pts" {
						rest = append(rest, m)
					}
				}
				b.spec.Mounts = append(rest, specs.Mount{Destination: "/dev/pts", Type: "devpts", Options: []string{"newinstance"}})
				must(t, change(filepath.Join(b.image, "dev")))
				b.spec.Process.Terminal = name == "links"
				text, status, err := b.run()
				if b.spec.Process.Terminal { // what it printed went there
					text = "1:3 character special file\n"
				}
				if err != nil || status.Code != 0 || text != "1:3 character special file\n" {
					t.Errorf("%v %+v %q", err, status, text)
				}
				intact()
			})
		}
	}
}

// TestExecInSwappedDirectories: class 2 and 3: an exec's working directory that a container swaps for a link out of it all the time.
func TestExecInSwappedDirectories(t *testing.T) {
	out, intact := canary(t)
	volume := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(volume, "a/etc"), 0o777))
	must(t, os.Symlink(out, filepath.Join(volume, "b")))
	b := newBox(t).hostUsers()
	b.spec.Mounts = append(b.spec.Mounts, specs.Mount{Type: "bind", Source: volume, Destination: "/vol", Options: []string{"rbind"}})
	c := b.sleeper()
	stop := exchange(t, volume+"/a", volume+"/b")
	entered := 0
	for range 150 {
		text, _, err := b.exec(c, &specs.Process{Args: []string{"sh", "-c", "pwd; cat ../secret ../../secret secret 2>/dev/null"}, Cwd: "/vol/a/etc"})
		if strings.Contains(text, "canary") {
			t.Fatalf("the process sees outside: %q", text)
		}
		if err == nil {
			entered++
		}
	}
	if swaps := stop(); swaps < 100 || entered == 0 {
		t.Errorf("%d swaps, %d times entered: nothing was tried", swaps, entered)
	}
	intact()
}

// exchange swaps two names all the time until it is told to stop; it tells how often it did.
func exchange(t *testing.T, a, b string) (stop func() int) {
	t.Helper()
	end, done, n := make(chan struct{}), make(chan struct{}), 0
	go func() { // ends with end, which stop closes and waits for
		defer close(done)
		for {
			select {
			case <-end:
				return
			default:
				if unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE) == nil {
					n++
				}
			}
		}
	}()
	return func() int {
		close(end)
		<-done
		return n
	}
}

// TestReleaseAgent: class 9 (CVE-2022-0492): no container has the kernel run its program on the host, with seccomp or without.
func TestReleaseAgent(t *testing.T) {
	_, intact := canary(t)
	defer intact()
	for _, options := range [][]string{nil, {"seccomp=unconfined"}} {
		for _, own := range []bool{true, false} {
			b := postureBox(t, container.HostConfig{SecurityOpt: options}, own, specs.User{})
			b.spec.Process.Args = []string{"probe", "agent"}
			out, status, err := b.run()
			if err != nil || status.Code != 0 || !strings.HasSuffix(out, "done\n") || strings.Contains(out, "WRITTEN") {
				t.Errorf("%v, own users %v: %v %+v %q", options, own, err, status, out)
			}
			if len(options) > 0 && !strings.Contains(out, "mounted") && !strings.Contains(out, "namespaces of its own") {
				t.Errorf("own users %v: nothing was tried: %q", own, out)
			}
		}
	}
}

// TestKeyringIsItsOwn: a container finds no key of its creator's, neither by its session's keyring nor, where it has users of its own, by
// its user's; seccomp, which forbids the calls, is off.
func TestKeyringIsItsOwn(t *testing.T) {
	_, intact := canary(t)
	defer intact()
	const name = "wherry-canary"
	for _, ring := range []int{unix.KEY_SPEC_SESSION_KEYRING, unix.KEY_SPEC_USER_KEYRING} {
		id, err := unix.AddKey("user", name, []byte("secret"), ring)
		must(t, err)
		t.Cleanup(func() { _, _ = unix.KeyctlInt(unix.KEYCTL_UNLINK, id, ring, 0, 0) })
	}
	for _, own := range []bool{true, false} {
		b := newBox(t, "probe", "keyring", name).probe()
		if !own {
			b.hostUsers()
		}
		byRun, _, err := b.run()
		must(t, err)
		byExec, _, err := b.exec(b.sleeper(), &specs.Process{Args: []string{"probe", "keyring", name}})
		must(t, err)
		for _, out := range []string{byRun, byExec} {
			lines := strings.Split(out, "\n")
			if !strings.HasPrefix(lines[0], "session ") || !strings.Contains(lines[0], "not found") {
				t.Errorf("own users %v: its session's: %q", own, out)
			}
			if own && strings.Contains(out, "FOUND") {
				t.Errorf("a key of the host's: %q", out)
			}
		}
	}
}

// TestNeighboursAreOutOfReach: a container sees no process of others; where it shows all of the host's by configuration, its users may
// still neither signal nor trace nor read them.
func TestNeighboursAreOutOfReach(t *testing.T) {
	_, intact := canary(t)
	defer intact()
	other := newBox(t).sleeper()
	b := newBox(t, "probe", "processes").probe()
	if out, _, err := b.run(); err != nil || out != "probe\n" {
		t.Errorf("a container sees %q, %v", out, err)
	}
	b = newBox(t, "probe", "neighbours", strconv.Itoa(other.Pid()), strconv.Itoa(os.Getpid())).probe()
	b.spec.Linux.Namespaces = b.spec.Linux.Namespaces[1:]
	b.spec.Mounts[0] = specs.Mount{Type: "bind", Source: "/proc", Destination: "/proc", Options: []string{"rbind"}}
	b.rootfs.IDMap.Base += 1 << 17 // another container's users
	for _, maps := range [][]specs.LinuxIDMapping{b.spec.Linux.UIDMappings, b.spec.Linux.GIDMappings} {
		maps[0].HostID = b.rootfs.IDMap.Base
	}
	for _, dir := range []string{b.upper, b.rootfs.Work} {
		must(t, os.Chown(dir, int(b.rootfs.IDMap.Base), int(b.rootfs.IDMap.Base)))
	}
	out, _, err := b.run()
	if err != nil || strings.Count(out, "signal: operation not permitted") != 2 || strings.Count(out, "ptrace: operation not permitted") != 2 || strings.Contains(out, "OPENED") {
		t.Errorf("%v %q", err, out)
	}
}

// TestSysctlValuesAreValues: class 6 (CVE-2022-0811): a value is written to its one file as it is.
func TestSysctlValuesAreValues(t *testing.T) {
	_, intact := canary(t)
	defer intact()
	for _, value := range []string{"1+kernel.core_pattern=|/evil", "1\nkernel.core_pattern=|/evil", "0 kernel.core_pattern=|/evil", "|/evil"} {
		b := newBox(t, "cat", "/proc/sys/kernel/core_pattern")
		b.spec.Linux.Sysctl = map[string]string{"kernel.shm_rmid_forced": value}
		if out, _, err := b.run(); strings.Contains(out, "evil") {
			t.Errorf("%q: %q %v", value, out, err)
		}
	}
}

// TestMountsHaveNoPeers: class 3: on a host whose mounts are shared, as systemd makes them, nothing that a container mounts, with the rights to, appears on the host:
// over its control group, the host's view of that group.
func TestMountsHaveNoPeers(t *testing.T) {
	const shares = "SHARES_ALL_MOUNTS"
	if os.Getenv(shares) == "" {
		cmd := osexec.Command("/proc/self/exe", "-test.run", "^"+t.Name()+"$")
		cmd.Env = append(os.Environ(), shares+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	must(t, unix.Mount("", "/", "", unix.MS_SHARED|unix.MS_REC, ""))
	withGroup := func(b *box) *box {
		b.spec.Mounts = append(b.spec.Mounts, specs.Mount{Type: "cgroup", Destination: "/sys/fs/cgroup", Options: []string{"ro"}})
		return b
	}
	for name, change := range map[string]func(*box){
		"own users":  func(*box) {},
		"host users": func(b *box) { b.hostUsers() },
		"host network": func(b *box) {
			b.spec.Linux.Namespaces = slices.DeleteFunc(b.spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.NetworkNamespace })
		},
		"a folder and a file": func(b *box) {
			for source, destination := range map[string]string{t.TempDir(): "/folder", "/etc/hostname": "/etc/hostname"} {
				b.spec.Mounts = append(b.spec.Mounts, specs.Mount{Type: "bind", Source: source, Destination: destination, Options: []string{"rbind"}})
			}
		},
		"devices": func(b *box) {
			b.hostUsers().spec.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/full", Type: "c", Major: 1, Minor: 7}}
		},
	} {
		b := withGroup(newBox(t, "cat", "/proc/self/mountinfo"))
		change(b)
		out, status, err := b.run()
		must(t, err)
		if status.Code != 0 || !strings.Contains(out, "cgroup") {
			t.Fatalf("%s: %+v %s", name, status, out)
		}
		for line := range strings.Lines(out) {
			if strings.Contains(line, " shared:") {
				t.Errorf("%s: a mount with peers on the host: %s", name, line)
			}
		}
		b.cleanup()
	}
}

// TestNothingScarceIsShared: class 14: what the kernel counts for each user, a container takes from itself only: others, and the host, have all of theirs.
func TestNothingScarceIsShared(t *testing.T) {
	taken := func(id uint32) (watches, queues int) {
		b := newBox(t, "probe", "scarce").probe()
		b.rootfs.IDMap.Base += id
		for _, maps := range [][]specs.LinuxIDMapping{b.spec.Linux.UIDMappings, b.spec.Linux.GIDMappings} {
			maps[0].HostID = b.rootfs.IDMap.Base
		}
		for _, dir := range []string{b.upper, b.rootfs.Work} {
			must(t, os.Chown(dir, int(b.rootfs.IDMap.Base), int(b.rootfs.IDMap.Base)))
		}
		r, w, err := os.Pipe()
		must(t, err)
		defer r.Close()
		c, err := b.create(w)
		w.Close()
		must(t, err)
		must(t, c.Start())
		if _, err := fmt.Fscan(r, &watches, &queues); err != nil {
			t.Fatal(err)
		}
		return watches, queues
	}
	watches, queues := taken(0)
	if watches == 0 || queues == 0 {
		t.Fatalf("a container got %d inotify instances and %d message queues", watches, queues)
	}
	if w, q := taken(1 << 17); w != watches || q != queues {
		t.Errorf("beside it another got %d and %d, not %d and %d", w, q, watches, queues)
	}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		t.Errorf("the host has no inotify instance left: %v", err)
	}
	_ = unix.Close(fd)
}
