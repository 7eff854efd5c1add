package logs

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestLimitsOfInotify: they are told by their names, and not as a lack of descriptors or of room on the disk.
func TestLimitsOfInotify(t *testing.T) {
	for err, name := range map[unix.Errno]string{unix.EMFILE: "max_user_instances", unix.ENOSPC: "max_user_watches"} {
		if got := limited(fmt.Errorf("it: %w", err)); errors.Is(got, err) || !strings.Contains(got.Error(), "fs.inotify."+name) {
			t.Errorf("%v: %v", err, got)
		}
	}
	if got := limited(unix.EACCES); got != unix.EACCES {
		t.Error(got)
	}
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	none := before
	none.Cur = 3
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	got := limited(unix.EMFILE)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	if got != unix.EMFILE {
		t.Errorf("without descriptors: %v", got)
	}
}

// withoutInotify names what is run once more below.
const withoutInotify = "^(TestFollowEndsWithTheLife|TestSlowReaderLosesNothing|TestFollowStopsWithItsContext|TestRotationWaitsForFollowers|TestReaderFarBehind|TestNoInotify)$"

// TestFollowersLookByThemselves: where the kernel gives no inotify instance, followers miss nothing either. A user namespace has a limit of its own.
func TestFollowersLookByThemselves(t *testing.T) {
	cmd := exec.Command("sh", "-c", `echo 0 >/proc/sys/user/max_inotify_instances && exec "$0" "$@"`, os.Args[0], "-test.v", "-test.timeout=5m", "-test.run="+withoutInotify)
	cmd.Env = append(os.Environ(), "NO_INOTIFY=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: []syscall.SysProcIDMap{{Size: 1}}, GidMappings: []syscall.SysProcIDMap{{Size: 1}}}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestNoInotify") || strings.Count(string(out), "--- PASS") != 6 {
		t.Errorf("%v: %s", err, out)
	}
}

// TestNoInotify runs in the one above only: there is none, and it is told once.
func TestNoInotify(t *testing.T) {
	if os.Getenv("NO_INOTIFY") == "" {
		return
	}
	if _, err := unix.InotifyInit1(0); err == nil {
		t.Fatal("there is inotify")
	}
	told := 0
	w := follow(t)
	w.Log = func(err error) {
		if told++; !strings.Contains(err.Error(), "ten times a second") || !strings.Contains(err.Error(), "fs.inotify.max_user_instances") {
			t.Error(err)
		}
	}
	for range 3 {
		r, err := Open(t.TempDir(), ReadOptions{Follow: w})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
	}
	if told != 1 {
		t.Errorf("told %d times", told)
	}
}
