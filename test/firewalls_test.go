package test

import (
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestFirewallsReload drives ufw and firewalld, as Debian has them, beside a published port.
func TestFirewallsReload(t *testing.T) {
	cmd := exec.Command(filepath.Join(repository(), "test/testdata/firewalls.sh"), shared.bin, filepath.Join(repository(), ".cache/images/busybox-1.tar"), t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS, Unshareflags: unix.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	if err != nil || strings.Count(string(out), "answers after") != 8 {
		t.Errorf("%v\n%s", err, out)
	}
}
