package task

import (
	"context"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/rootfs"
)

// spareOf waits for the spare and returns its pid.
func spareOf(t *testing.T, s *Shims) int {
	t.Helper()
	pid := 0
	until(t, "there is a spare", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.spare != nil {
			pid = waiting(t)
		}
		return pid != 0
	})
	return pid
}

// waiting is the shim of this process that has no container.
func waiting(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		b, _ := os.ReadFile("/proc/" + e.Name() + "/cmdline")
		pid, _ := strconv.Atoi(e.Name())
		if string(b) == "oar\x00shim\x00" && isChild(pid) { // others' come and go
			comm, _ := os.ReadFile("/proc/" + e.Name() + "/comm")
			if string(comm) == "oar spare\n" {
				return pid
			}
		}
	}
	return 0
}

// isChild says that a process is one of this process's.
func isChild(pid int) bool {
	status, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	return strings.Contains(string(status), "\nPPid:\t"+strconv.Itoa(os.Getpid())+"\n")
}

func gone(pid int) bool { return unix.Kill(pid, 0) == unix.ESRCH }

func TestSpareShim(t *testing.T) {
	path := oar(t)
	s := OpenShims(path, nil)
	defer s.Close()
	first := spareOf(t, s)
	o := options(t, path, "spare", "sleep", "1000")
	o.Shims, o.Oar = s, ""
	tk := run(t, o)
	if got := parent(t, tk.Pid()); got != first {
		t.Errorf("the container's shim is %d, not the spare %d", got, first)
	}
	second := spareOf(t, s)
	if second == first {
		t.Fatal("no new spare")
	}
	// One that somebody has killed is made up for.
	if err := syscall.Kill(second, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	until(t, "the spare is dead", func() bool { return gone(second) })
	o = options(t, path, "spare-2", "sh", "-c", "exit 3")
	o.Shims, o.Oar = s, ""
	if exit, err := run(t, o).Wait(t.Context()); err != nil || exit.Code != 3 {
		t.Fatalf("%v %+v", err, exit)
	}
	third := spareOf(t, s)
	s.Close()
	until(t, "the spare has ended with its owner", func() bool { return gone(third) })
	if gone(first) {
		t.Error("a shim with a container has ended as well")
	}
}

// TestSpareOfAnOldBinary: after an upgrade containers get the new binary.
func TestSpareOfAnOldBinary(t *testing.T) {
	dir := t.TempDir()
	binary, err := os.ReadFile(oar(t))
	if err != nil {
		t.Fatal(err)
	}
	replace := func() {
		if err := os.WriteFile(dir+"/new", binary, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(dir+"/new", dir+"/oar"); err != nil {
			t.Fatal(err)
		}
	}
	replace()
	s := OpenShims(dir+"/oar", nil)
	defer s.Close()
	old := spareOf(t, s)
	replace()
	o := options(t, dir+"/oar", "upgraded", "sleep", "1000")
	o.Shims = s
	tk := run(t, o)
	if got := parent(t, tk.Pid()); got == old {
		t.Error("the container's shim is of the old binary")
	}
	until(t, "the old spare is gone", func() bool { return gone(old) })
}

// TestBadBinary: what cannot be started is named.
func TestBadBinary(t *testing.T) {
	s := OpenShims("/no/such/oar", nil)
	defer s.Close()
	o := options(t, oar(t), "none", "true")
	o.Shims = s
	if _, err := Create(t.Context(), o); err == nil || !strings.Contains(err.Error(), "/no/such/oar") {
		t.Errorf("%v", err)
	}
	if _, err := os.Stat(o.Dir); err == nil {
		t.Error("the task's folder is left")
	}
}

// TestPreparedNamespaces: a container gets the namespaces that the spare shim has made for its range of ids, and is as one whose are made for
// it; one with another range, or with a namespace of somebody else, gets new ones.
func TestPreparedNamespaces(t *testing.T) {
	path := oar(t)
	s := OpenShims(path, func() rootfs.IDMap { return rootfs.IDMap{Base: 0x20000000, Size: 65536} })
	defer s.Close()
	begin := func(o CreateOptions) (*Task, bool) {
		t.Helper()
		spareOf(t, s)
		o.Shims, o.Oar = s, ""
		c, err := Begin(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		var ahead namespaceID
		early := c.Net != nil
		if early {
			ahead = identify(t, c.Net)
		}
		tk, err := c.Finish(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = tk.Delete(context.Background()) })
		if err := tk.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		net, err := tk.Namespace("net")
		if err != nil {
			t.Fatal(err)
		}
		defer net.Close()
		if early && identify(t, net) != ahead {
			t.Error("the container is in another network namespace than the one that was given out")
		}
		return tk, early
	}
	options := func(id string) CreateOptions {
		o := options(t, path, id, "sleep", "1000")
		o.Spec.Mounts = append(o.Spec.Mounts, specs.Mount{Destination: "/sys", Type: "sysfs"})
		return o
	}
	tk, early := begin(options("prepared"))
	if !early {
		t.Error("nothing was made ahead")
	}
	seen := func(tk *Task, name string) string {
		b, err := os.ReadFile("/proc/" + strconv.Itoa(tk.Pid()) + name)
		if err != nil {
			t.Error(err)
		}
		return string(b)
	}
	if got := strings.Fields(seen(tk, "/uid_map")); !slices.Equal(got, []string{"0", strconv.Itoa(0x20000000), "65536"}) {
		t.Errorf("uid_map %q", got)
	}
	if got := seen(tk, "/net/dev"); strings.Count(got, "\n") != 3 || !strings.Contains(got, "lo:") {
		t.Errorf("its interfaces: %q", got)
	}
	other := options("elsewhere")
	other.Spec.Linux.UIDMappings = []specs.LinuxIDMapping{{HostID: 0x30000000, Size: 65536}}
	other.Spec.Linux.GIDMappings, other.Rootfs.IDMap.Base = other.Spec.Linux.UIDMappings, 0x30000000
	if tk, early = begin(other); early {
		t.Error("namespaces of another range")
	}
	if got := strings.Fields(seen(tk, "/uid_map")); len(got) != 3 || got[1] != strconv.Itoa(0x30000000) {
		t.Errorf("uid_map %q", got)
	}
	host := options("host")
	host.Spec.Linux.Namespaces = slices.DeleteFunc(host.Spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.NetworkNamespace })
	if _, early = begin(host); early {
		t.Error("a network namespace for a container on the host's")
	}
}

type namespaceID struct{ device, inode uint64 }

func identify(t *testing.T, f *os.File) namespaceID {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	return namespaceID{st.Dev, st.Ino}
}
