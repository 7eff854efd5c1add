package logs

import (
	"errors"
	"fmt"
	"strings"
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
