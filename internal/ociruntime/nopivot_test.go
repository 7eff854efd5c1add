package ociruntime

import (
	"os"
	osexec "os/exec"
	"strconv"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// TestNoPivot: the container is the same as with a pivot, for its first process and for execs; and who takes its root away, which wants
// CAP_SYS_ADMIN, finds a host below that has lost its procfs and sysfs. That it works where a pivot does not is tested in test/vm.
func TestNoPivot(t *testing.T) {
	for name, users := range map[string]func(*box) *box{"ids of its own": func(b *box) *box { return b }, "the host's ids": (*box).hostUsers} {
		script := "ls /; cut -d' ' -f5 /proc/self/mountinfo | sort -u; cat /proc/1/comm; mkdir /tmp/d && cd / && busybox chroot /tmp/d /bin/true; ls /.."
		run := func(noPivot bool) (string, string) {
			b := users(newBox(t))
			b.noPivot = noPivot
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
		with, _ := run(false)
		without, below := run(true)
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
	out, err := osexec.Command("nsenter", "--mount="+ns, "--", "/bin/sh", "-c", "test -d /usr/bin && echo -n 'host '; ls /proc /sys | grep -v :").CombinedOutput()
	if err != nil && len(out) == 0 {
		return err.Error()
	}
	return string(out)
}
