package threads

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// TestApartLeavesTheFirstThread: whoever looks at the process in /proc sees what its first thread has. Of few threads that one has its turn soon.
func TestApartLeavesTheFirstThread(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may make a namespace")
	}
	before, err := os.Readlink("/proc/self/ns/uts")
	if err != nil {
		t.Fatal(err)
	}
	first := false
	for range 100 {
		err := Apart(func() error {
			first = first || unix.Gettid() == unix.Getpid()
			return unix.Unshare(unix.CLONE_NEWUTS)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if now, err := os.Readlink("/proc/self/ns/uts"); err != nil || now != before {
		t.Errorf("the process is in %s, %v; it was in %s", now, err, before)
	}
	if first {
		t.Error("the first thread was used")
	}
}
