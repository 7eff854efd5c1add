package ociruntime

import (
	"testing"

	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/threads"
)

// TestHoldMounts: mounts that are held outlive the process.
func TestHoldMounts(t *testing.T) {
	b := newBox(t)
	c := b.sleeper()
	held := c.HoldMounts()
	if held == nil {
		var kernel unix.Utsname
		must(t, unix.Uname(&kernel))
		if release := unix.ByteSliceToString(kernel.Release[:]); release[:2] != "6." && release[:2] != "5." {
			t.Errorf("kernel %s gives no mount namespace of a process descriptor", release)
		}
		t.Skip("this kernel has no PIDFD_GET_MNT_NAMESPACE")
	}
	defer held.Close()
	must(t, c.Cgroup().Kill())
	if _, err := Reap(c.Pidfd()); err != nil {
		t.Fatal(err)
	}
	must(t, threads.Apart(func() error {
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return err
		}
		if err := unix.Setns(int(held.Fd()), unix.CLONE_NEWNS); err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Stat("/bin/busybox", &st); err != nil {
			return err
		}
		var fs unix.Statfs_t
		if err := unix.Statfs("/dev/pts", &fs); err != nil || fs.Type != unix.DEVPTS_SUPER_MAGIC {
			t.Errorf("/dev/pts is a file system of type %x, %v", fs.Type, err)
		}
		return nil
	}))
}
