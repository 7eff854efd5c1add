package ociruntime

import (
	"encoding/json"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/mountinfo"
)

// TestConfined: a container is what its own configuration says, and less confined than each that says more.
func TestConfined(t *testing.T) {
	b := newBox(t, "sleep", "1000").hostUsers()
	bundle := filepath.Dir(b.image)
	b.rootfs = nil
	b.spec.Root.Path = b.image
	must(t, os.WriteFile(filepath.Join(b.image, "etc/file"), nil, 0o644))
	b.spec.Mounts = append(b.spec.Mounts, specs.Mount{Destination: "/etc/file", Type: "bind", Source: "/etc/hostname", Options: []string{"bind", "ro"}},
		specs.Mount{Destination: "/dev/shm", Type: "tmpfs", Options: []string{"nosuid", "nodev"}}, specs.Mount{Destination: "/sys/fs/cgroup", Type: "cgroup", Options: []string{"ro"}})
	b.spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: []string{"CAP_KILL", "CAP_CHOWN"}, Permitted: []string{"CAP_KILL"}, Effective: []string{"CAP_KILL"}}
	b.filtered(specs.ActErrno, nil)
	c, err := b.create(nil)
	must(t, err)
	must(t, c.Start())
	defer func() { _ = c.Cgroup().Kill(); _, _ = Reap(c.Pidfd()) }()
	must(t, unix.Kill(c.Pid(), unix.SIGSTOP))
	check := func(change func(*specs.Spec)) error {
		text, err := os.ReadFile(filepath.Join(bundle, "spec"))
		must(t, err)
		spec, err := DecodeSpec(text)
		must(t, err)
		change(spec)
		return Confined(OpenOptions{Spec: spec, Pid: c.Pid(), Pidfd: c.Pidfd(), Cgroup: c.Cgroup(), RootPath: b.image})
	}
	must(t, os.WriteFile(filepath.Join(bundle, "spec"), encoded(t, b.spec), 0o600))
	if err := check(func(*specs.Spec) {}); err != nil {
		t.Fatalf("by its own configuration: %v", err)
	}
	mount := func(s *specs.Spec, at string) *specs.Mount {
		for i := range s.Mounts {
			if s.Mounts[i].Destination == at {
				return &s.Mounts[i]
			}
		}
		return nil
	}
	for words, change := range map[string]func(*specs.Spec){
		"seccomp filter":                   func(s *specs.Spec) { s.Linux.Seccomp.Syscalls[0].Names = []string{"mount"} },
		"capabilities":                     func(s *specs.Spec) { s.Process.Capabilities.Bounding = []string{"CAP_KILL"} },
		"no_new_privs":                     func(s *specs.Spec) { s.Process.NoNewPrivileges = true },
		"/proc/version is not protected":   func(s *specs.Spec) { s.Linux.MaskedPaths = append(s.Linux.MaskedPaths, "/proc/version") },
		"/proc/tty is not protected":       func(s *specs.Spec) { s.Linux.ReadonlyPaths = append(s.Linux.ReadonlyPaths, "/proc/tty") },
		"the mount on /dev/shm: the conf":  func(s *specs.Spec) { *mount(s, "/dev/shm") = specs.Mount{Destination: "/else", Type: "tmpfs"} },
		"lacks the option noexec":          func(s *specs.Spec) { mount(s, "/dev/shm").Options = []string{"noexec"} },
		"it is not the host's /etc/passwd": func(s *specs.Spec) { mount(s, "/etc/file").Source = "/etc/passwd" },
		"it is a sysfs, not a tmpfs":       func(s *specs.Spec) { mount(s, "/sys").Type = "tmpfs" },
		"the network namespace":            func(s *specs.Spec) { s.Linux.Namespaces = dropNamespace(s.Linux.Namespaces, specs.NetworkNamespace) },
		"the user namespace": func(s *specs.Spec) {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
		},
		"the ipc namespace": func(s *specs.Spec) {
			s.Linux.Namespaces = append(dropNamespace(s.Linux.Namespaces, specs.IPCNamespace), specs.LinuxNamespace{Type: specs.IPCNamespace, Path: "/proc/self/ns/ipc"})
		},
	} {
		if err := check(change); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%q: %v", words, err)
		}
	}
}

// TestConfinedSeesWhatIsOnTop: mounts of an archive's making that each look like one of the configuration, but for where they lie.
func TestConfinedSeesWhatIsOnTop(t *testing.T) {
	b := newBox(t, "sleep", "1000").hostUsers()
	b.rootfs = nil
	b.spec.Root.Path = b.image
	source := t.TempDir()
	must(t, os.Mkdir(filepath.Join(source, "inner"), 0o755))
	b.spec.Mounts = append(b.spec.Mounts, specs.Mount{Destination: "/tree", Type: "bind", Source: source, Options: []string{"rbind"}})
	b.spec.Linux.MaskedPaths, b.spec.Linux.ReadonlyPaths = []string{"/proc/keys", "/proc/sys"}, []string{"/proc/sys", "/proc/irq"}
	c, err := b.create(nil)
	must(t, err)
	must(t, c.Start())
	defer func() { _ = c.Cgroup().Kill(); _, _ = Reap(c.Pidfd()) }()
	pid := strconv.Itoa(c.Pid())
	mountsAre := func() error {
		return confinedMounts(OpenOptions{Spec: b.spec, Pid: c.Pid(), RootPath: b.image, Cgroup: c.Cgroup()})
	}
	if err := mountsAre(); err != nil {
		t.Fatalf("as it was made: %v", err)
	}
	for at, words := range map[string]string{"/tree/inner": "it is not the host's", "/proc": "is not protected"} {
		enter := []string{"-t", pid, "--mount", "--pid", "--root", "--wd=/"} // with the host's rights and the container's tree
		in := func(line string) {
			t.Helper()
			if out, err := osexec.Command("nsenter", append(enter, "/bin/busybox", "sh", "-c", line)...).CombinedOutput(); err != nil {
				t.Fatalf("%s: %v, %s", line, err, out)
			}
		}
		in("busybox mount -t proc -o nosuid,nodev,noexec proc " + at)
		if err := mountsAre(); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("a procfs on %s: %v", at, err)
		}
		in("busybox umount " + at)
		if err := mountsAre(); err != nil {
			t.Fatalf("without it again: %v", err)
		}
	}
}

func encoded(t *testing.T, spec *specs.Spec) []byte {
	t.Helper()
	b, err := json.Marshal(spec)
	must(t, err)
	return b
}

func dropNamespace(list []specs.LinuxNamespace, kind specs.LinuxNamespaceType) (rest []specs.LinuxNamespace) {
	for _, ns := range list {
		if ns.Type != kind {
			rest = append(rest, ns)
		}
	}
	return rest
}

// TestConfinedStatus: sets beyond what is given are seen in each line.
func TestConfinedStatus(t *testing.T) {
	good := "CapInh:\t0\nCapPrm:\t1\nCapEff:\t1\nCapBnd:\t3\nCapAmb:\t0\nNoNewPrivs:\t1\n"
	want := capSets{bounding: 3, permitted: 1, effective: 1}
	if err := confinedStatus(good, want, true); err != nil {
		t.Error(err)
	}
	for from, to := range map[string]string{"CapInh:\t0": "CapInh:\t1", "CapPrm:\t1": "CapPrm:\t5", "CapEff:\t1": "CapEff:\t4", "CapBnd:\t3": "CapBnd:\t7", "CapAmb:\t0": "CapAmb:\t1",
		"NoNewPrivs:\t1": "NoNewPrivs:\t0", "CapBnd:\t3\n": ""} {
		if err := confinedStatus(strings.Replace(good, from, to, 1), want, true); err == nil {
			t.Errorf("%q for %q is taken", to, from)
		}
	}
}

// TestConfinedSeesDevices: a device node that nobody gave is found on a file system of the container's.
func TestConfinedSeesDevices(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "dev"), 0o755))
	root, err := os.Open(dir)
	must(t, err)
	defer root.Close()
	table := mountTable{spec: &specs.Spec{Process: &specs.Process{}, Linux: &specs.Linux{}}, root: root}
	m := mountinfo.Mount{At: "/dev", Type: "tmpfs", Flags: []string{"rw"}}
	must(t, unix.Mknod(filepath.Join(dir, "dev/null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	must(t, table.nodes(m))
	must(t, os.Mkdir(filepath.Join(dir, "dev/inner"), 0o755))
	must(t, unix.Mknod(filepath.Join(dir, "dev/inner/disk"), unix.S_IFBLK|0o666, int(unix.Mkdev(254, 0))))
	if err := table.nodes(m); err == nil || !strings.Contains(err.Error(), "/dev/inner/disk (254:0)") {
		t.Error(err)
	}
}
