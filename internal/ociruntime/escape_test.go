package ociruntime

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// canary is a tree outside of every container, with what links of a hostile image point to. At the test's end it, the program that is the
// runtime here and the host's users must be what they were.
func canary(t *testing.T) (dir string, intact func()) {
	t.Helper()
	sums := func() (out string) {
		for _, path := range []string{"/proc/self/exe", "/etc/passwd", "/proc/sys/kernel/core_pattern"} {
			b, err := os.ReadFile(path)
			must(t, err)
			out += fmt.Sprintf("%s %x\n", path, sha256.Sum256(b))
		}
		return out
	}
	were := sums()
	dir = t.TempDir()
	for _, d := range []string{"dev/pts", "proc/sys", "sys/fs", "etc", "work"} {
		must(t, os.MkdirAll(filepath.Join(dir, d), 0o755))
	}
	for _, f := range []string{"hosts", "null", "secret", "dev/null", "proc/keys"} {
		must(t, os.WriteFile(filepath.Join(dir, f), []byte("canary\n"), 0o644))
	}
	before := listing(t, dir)
	t.Cleanup(func() {
		if are := sums(); are != were {
			t.Errorf("the host has changed:\n%s\nwas\n%s", are, were)
		}
	})
	return dir, func() {
		t.Helper()
		if after := listing(t, dir); after != before {
			t.Errorf("outside has changed:\n%s\nwas\n%s", after, before)
		}
		mounts, err := os.ReadFile("/proc/self/mountinfo")
		must(t, err)
		if strings.Contains(string(mounts), dir) {
			t.Error("something is mounted outside")
		}
	}
}

// listing describes a tree: names, types, owners, sizes, content.
func listing(t *testing.T, dir string) string {
	t.Helper()
	var out strings.Builder
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		content := ""
		if d.Type().IsRegular() {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			content = string(b)
		}
		fmt.Fprintf(&out, "%s %o %d:%d %q\n", strings.TrimPrefix(path, dir), st.Mode, st.Uid, st.Gid, content)
		return nil
	}))
	return out.String()
}

// TestTargetsStayInside: class 3 of the field's escapes: where an image has links, everything that is mounted, masked, made or entered
// stays below the image's root, whether the container comes to run or is refused.
func TestTargetsStayInside(t *testing.T) {
	out, intact := canary(t)
	up := strings.Repeat("../", 30) + strings.TrimPrefix(out, "/")
	link := func(name, to string) func(*box) {
		return func(b *box) {
			must(t, os.RemoveAll(filepath.Join(b.image, name)))
			must(t, os.Symlink(to, filepath.Join(b.image, name)))
		}
	}
	file := func(destination string) func(*box) {
		return func(b *box) {
			source := filepath.Join(t.TempDir(), "source")
			must(t, os.WriteFile(source, []byte("from the host\n"), 0o644))
			b.spec.Mounts = append(b.spec.Mounts, specs.Mount{Type: "bind", Source: source, Destination: destination, Options: []string{"bind"}})
		}
	}
	rows := map[string][]func(*box){
		"/dev":                   {link("dev", out+"/dev")},
		"/dev, upwards":          {link("dev", up+"/dev")},
		"/proc":                  {link("proc", out+"/proc")},
		"/proc, upwards":         {link("proc", up+"/proc")},
		"/sys":                   {link("sys", out+"/sys")},
		"/ of proc":              {link("proc", "/proc/self/root"+out)},
		"file mount":             {link("etc/hosts", out+"/hosts"), file("/etc/hosts")},
		"file mount, upwards":    {link("etc/hosts", up+"/hosts"), file("/etc/hosts")},
		"parent of a mount":      {link("etc", out), file("/etc/hosts")},
		"parent, upwards":        {link("etc", up), file("/etc/hosts")},
		"made target":            {link("etc", out), file("/etc/new/file")},
		"dangling":               {link("etc/x", out+"/not/there"), file("/etc/x")},
		"magic link of a mount":  {link("etc/x", "/proc/1/root"+out), file("/etc/x/hosts")},
		"dots in a destination":  {file("/etc/../../../../../../.." + out + "/made")},
		"working directory":      {link("work", out+"/work"), func(b *box) { b.spec.Process.Cwd = "/work/deeper" }},
		"working directory, ../": {func(b *box) { b.spec.Process.Cwd = "/" + up + "/work/deeper" }},
		"masked path":            {link("var", out), func(b *box) { b.spec.Linux.MaskedPaths = append(b.spec.Linux.MaskedPaths, "/var/secret", "/var/etc") }},
		"read-only path":         {link("var", out), func(b *box) { b.spec.Linux.ReadonlyPaths = append(b.spec.Linux.ReadonlyPaths, "/var/etc") }},
		"device": {link("var", out), func(b *box) {
			b.spec.Linux.Devices = []specs.LinuxDevice{{Path: "/var/node", Type: "c", Major: 1, Minor: 3}, {Path: "/dev/../var/other", Type: "c", Major: 1, Minor: 3}}
		}},
		"copied up": {link("var", out), func(b *box) {
			b.spec.Mounts = append(b.spec.Mounts, specs.Mount{Type: "tmpfs", Destination: "/var/etc", Options: []string{"tmpcopyup"}})
		}},
		"terminal": {link("dev", out+"/dev"), func(b *box) { b.spec.Process.Terminal = true }},
	}
	for name, changes := range rows {
		for _, users := range []string{"own users", "host's users"} {
			t.Run(strings.ReplaceAll(name, ",", "")+" by "+users, func(t *testing.T) {
				b := newBox(t, "sh", "-c", "cat "+out+"/secret; echo inside >/written; ls /")
				if users != "own users" {
					b.hostUsers()
				}
				for _, change := range changes {
					change(b)
				}
				text, _, err := b.run()
				if strings.Contains(text, "canary") {
					t.Errorf("the container sees outside: %q (%v)", text, err)
				}
				refused := strings.HasPrefix(name, "/proc") || name == "/sys" || name == "/ of proc" // as what is trusted of them would lie elsewhere
				if (err == nil) == refused {
					t.Errorf("ran %v: %q, %v", err == nil, text, err)
				}
				intact()
			})
		}
	}
}

// TestSharedVolumeSwapsTargets: a mount below a volume whose folder somebody swaps for a link all the time stays inside.
func TestSharedVolumeSwapsTargets(t *testing.T) {
	out, intact := canary(t)
	volume := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(volume, "a/etc"), 0o777))
	must(t, os.Symlink(out, filepath.Join(volume, "b")))
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				_ = unix.Renameat2(unix.AT_FDCWD, volume+"/a", unix.AT_FDCWD, volume+"/b", unix.RENAME_EXCHANGE)
			}
		}
	}()
	source := filepath.Join(t.TempDir(), "source")
	must(t, os.WriteFile(source, []byte("from the host\n"), 0o644))
	for n := range 40 {
		b := newBox(t, "sh", "-c", "cat /vol/a/secret /vol/b/secret")
		if n%2 == 1 {
			b.hostUsers()
		}
		b.spec.Mounts = append(b.spec.Mounts, specs.Mount{Type: "bind", Source: volume, Destination: "/vol", Options: []string{"rbind"}},
			specs.Mount{Type: "bind", Source: source, Destination: "/vol/a/etc/made", Options: []string{"bind"}},
			specs.Mount{Type: "tmpfs", Destination: "/vol/b/etc", Options: []string{"tmpcopyup"}})
		b.spec.Process.Cwd = "/vol/a/etc"
		b.spec.Linux.MaskedPaths = append(b.spec.Linux.MaskedPaths, "/vol/a/secret")
		if text, _, _ := b.run(); strings.Contains(text, "canary") {
			t.Fatalf("the container sees outside: %q", text)
		}
	}
	close(stop)
	<-done
	intact()
}

// leak opens folders of the host without O_CLOEXEC, as a careless caller might.
func leak(t *testing.T) {
	t.Helper()
	for range 12 {
		fd, err := unix.Open("/", unix.O_RDONLY|unix.O_DIRECTORY, 0)
		must(t, err)
		t.Cleanup(func() { unix.Close(fd) })
	}
}

// TestOnlyThreeDescriptors: class 2 (CVE-2024-21626): a process gets 0, 1, 2 and nothing else, by run and by exec.
func TestOnlyThreeDescriptors(t *testing.T) {
	leak(t)
	want := "0 /dev/null\n1 pipe\n2 pipe\n"
	for _, users := range []bool{true, false} {
		b := newBox(t, "probe", "fds").probe()
		if !users {
			b.hostUsers()
		}
		out, status, err := b.run()
		if err != nil || status.Code != 0 || out != want {
			t.Errorf("run, own users %v: %q, %+v, %v", users, out, status, err)
		}
	}
	b := newBox(t).probe()
	c := b.sleeper()
	out, status, err := b.exec(c, &specs.Process{Args: []string{"probe", "fds"}})
	if err != nil || status.Code != 0 || out != want {
		t.Errorf("exec: %q, %+v, %v", out, status, err)
	}
}

// TestWorkingDirectoryThroughDescriptors: no working directory leads through /proc to what the runtime has open, or out of the root.
func TestWorkingDirectoryThroughDescriptors(t *testing.T) {
	leak(t)
	c := newBox(t).sleeper()
	b := newBox(t)
	var refused *ExecError
	for n := range 40 {
		for _, dir := range []string{fmt.Sprintf("/proc/self/fd/%d", n), fmt.Sprintf("/proc/self/fd/%d/../../..", n)} {
			b.t = t
			out, _, err := b.exec(c, &specs.Process{Args: []string{"pwd"}, Cwd: dir})
			if !errors.As(err, &refused) {
				t.Errorf("exec in %s: %q, %v", dir, out, err)
			}
		}
	}
	for _, dir := range []string{"/proc/self/fd/3", "/proc/self/fd/8", "/proc/1/root", "/proc/self/cwd"} {
		b := newBox(t, "pwd")
		b.spec.Process.Cwd = dir
		out, _, err := b.run()
		if !errors.As(err, &refused) {
			t.Errorf("run in %s: %q, %v", dir, out, err)
		}
	}
}

// TestMountsDoNotReachTheHost: what a container mounts below a shared mount of the host stays with it.
func TestMountsDoNotReachTheHost(t *testing.T) {
	dir := t.TempDir()
	must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, ""))
	t.Cleanup(func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	must(t, unix.Mount("", dir, "", unix.MS_SHARED, ""))
	must(t, os.MkdirAll(dir+"/vol/below", 0o777))
	b := newBox(t, "sh", "-c", "mount -t tmpfs inner /vol/below && touch /vol/below/made && cat /proc/self/mountinfo").hostUsers()
	caps := []string{"CAP_SYS_ADMIN"}
	b.spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}
	b.spec.Mounts = append(b.spec.Mounts, specs.Mount{Type: "bind", Source: dir + "/vol", Destination: "/vol", Options: []string{"rbind"}})
	out, status, err := b.run()
	if err != nil || status.Code != 0 || !strings.Contains(out, "/vol/below") {
		t.Fatalf("%q %+v %v", out, status, err)
	}
	if list, _ := os.ReadDir(dir + "/vol/below"); len(list) != 0 {
		t.Error("a mount made inside has reached the host")
	}
}

// TestSysctlsOfTheHostAreRefused: only those of namespaces that the container has for itself are set.
func TestSysctlsOfTheHostAreRefused(t *testing.T) {
	for key, ok := range map[string]bool{"net.ipv4.ip_unprivileged_port_start": true, "kernel.shm_rmid_forced": true, "kernel.panic": false, "vm.swappiness": false,
		"../../etc/passwd": false, "net..ipv4": false, "kernel.core_pattern": false, "kernel/core_pattern": false, "": false} {
		b := newBox(t, "true")
		value := "1"
		b.spec.Linux.Sysctl = map[string]string{key: value}
		if _, _, err := b.run(); (err == nil) != ok {
			t.Errorf("%q: %v", key, err)
		}
	}
	b := newBox(t, "true")
	b.spec.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "1"}
	b.spec.Linux.Namespaces = b.spec.Linux.Namespaces[:5] // the host's network
	if _, _, err := b.run(); err == nil || !strings.Contains(err.Error(), "would change the host") {
		t.Errorf("a sysctl of the host's network: %v", err)
	}
}
