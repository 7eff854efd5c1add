package ociruntime

import (
	"errors"
	"fmt"
	"os"
	osexec "os/exec"
	"strconv"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/threads"
)

// TestNoPivot: the container is the same as with a pivot, for its first process and for execs; and who takes its root away, which wants
// CAP_SYS_ADMIN, finds nothing below where its mounts are not copies of the host's, and nothing below that, and else a host that has lost its procfs and sysfs. That it works where a
// pivot does not is tested in test/vm.
func TestNoPivot(t *testing.T) {
	for name, users := range map[string]func(*box) *box{"ids of its own": func(b *box) *box { return b }, "the host's ids": (*box).hostUsers} {
		script := "ls /; cut -d' ' -f5 /proc/self/mountinfo | sort -u; cat /proc/1/comm; mkdir /tmp/d && cd / && busybox chroot /tmp/d /bin/true; ls /.."
		run := func(change func(*box)) (string, string) {
			b := users(newBox(t))
			change(b)
			for _, a := range []string{"cut", "sort", "mkdir"} {
				must(t, os.Symlink("busybox", b.image+"/bin/"+a))
			}
			b.spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: []string{"CAP_SYS_CHROOT"}, Permitted: []string{"CAP_SYS_CHROOT"}, Effective: []string{"CAP_SYS_CHROOT"}}
			c := b.sleeper()
			out, status, err := b.exec(c, &specs.Process{Args: []string{"sh", "-c", script}})
			if err != nil || status.Code != 0 {
				t.Fatalf("%s: %q, %+v, %v", name, out, status, err)
			}
			return out, rootBelow(t, c.Pid())
		}
		with, _ := run(func(b *box) { b.mounts = nil })
		bare, below := run(func(*box) {})
		if bare != with {
			t.Errorf("%s: with a pivot\n%s\nin a bare namespace\n%s", name, with, bare)
		}
		if strings.TrimSpace(below) != "cover proc sys" {
			t.Errorf("%s: below the root of a bare namespace: %q", name, below)
		}
		without, below := run(func(b *box) { b.noPivot = true })
		if with != without || !strings.Contains(with, "/dev/pts\n") {
			t.Errorf("%s: with a pivot\n%s\nwithout\n%s", name, with, without)
		}
		if strings.TrimSpace(below) != "host" {
			t.Errorf("%s: below the root: %q", name, below)
		}
	}
}

// rootBelow says what is seen in a mount namespace whose topmost root has been unmounted by the host's root: the host's programs, its procfs and
// sysfs where they are.
func rootBelow(t *testing.T, pid int) string {
	t.Helper()
	ns := "/proc/" + strconv.Itoa(pid) + "/ns/mnt"
	cmd := osexec.Command("nsenter", "--mount="+ns, "--", "/bin/busybox", "umount", "-l", "/")
	if out, err := cmd.CombinedOutput(); err != nil {
		return string(out)
	}
	var bare []string
	must(t, threads.Apart(func() error { // there is no program in there
		f, err := os.Open(ns)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return err
		}
		if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNS); err != nil {
			return err
		}
		if _, err := os.Stat("/bin"); err == nil {
			return nil
		}
		for range 2 {
			if err := unix.Unmount("/", unix.MNT_DETACH); !errors.Is(err, unix.EINVAL) {
				return fmt.Errorf("what lies below the bare root is reached: %v", err)
			}
		}
		for _, dir := range []string{"/", "/proc", "/sys"} {
			list, err := os.ReadDir(dir)
			if err != nil {
				return err
			}
			for _, e := range list {
				bare = append(bare, e.Name())
			}
		}
		return nil
	}))
	if bare != nil {
		return strings.Join(bare, " ")
	}
	out, err := osexec.Command("nsenter", "--mount="+ns, "--", "/bin/sh", "-c", "test -d /usr/bin && echo -n 'host '; ls /proc /sys | grep -v :").CombinedOutput()
	if err != nil && len(out) == 0 {
		return err.Error()
	}
	return string(out)
}

// TestMasksHoldInside: a user namespace of a container's own may mount no procfs, which would show what is masked: in the container's namespace none
// is seen as a whole, also not below the root.
func TestMasksHoldInside(t *testing.T) {
	for name, mounts := range map[string]func(*box){"bare": func(*box) {}, "pivot": func(b *box) { b.mounts = nil }} {
		b := newBox(t, "sh", "-c", "unshare -Urmpf sh -c 'mount -t proc none /tmp; mount -t sysfs none /tmp'; umount /proc/keys && unshare -Urmpf mount -t proc none /tmp && echo unmasked")
		mounts(b)
		for _, a := range []string{"unshare", "umount"} {
			must(t, os.Symlink("busybox", b.image+"/bin/"+a))
		}
		all := []string{"CAP_SYS_ADMIN", "CAP_SETUID", "CAP_SETGID", "CAP_SETFCAP"}
		b.spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: all, Permitted: all, Effective: all}
		b.spec.Linux.MaskedPaths = []string{"/proc/keys"}
		b.spec.Linux.ReadonlyPaths = nil
		out, status, err := b.run()
		if err != nil || strings.Count(out, "permission denied") != 2 || !strings.HasSuffix(out, "unmasked\n") {
			t.Errorf("%s: %q, %+v, %v", name, out, status, err)
		}
	}
}
