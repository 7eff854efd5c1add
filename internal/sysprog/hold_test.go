package sysprog

import (
	"os"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A holder holds nothing but its place: of its maker's descriptors only the pipe, and it is gone when it is released.
func TestHold(t *testing.T) {
	h, err := Hold()
	if err != nil {
		t.Fatal(err)
	}
	proc := "/proc/" + strconv.Itoa(h.Pid)
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		fds, err := os.ReadDir(proc + "/fd")
		if err != nil {
			t.Fatal(err)
		}
		if len(fds) == 1 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("it has %d descriptors", len(fds))
		}
	}
	if err := unix.Kill(h.Pid, 0); err != nil {
		t.Errorf("it has ended by itself: %v", err)
	}
	h.Release()
	if _, err := os.Stat(proc); !os.IsNotExist(err) {
		t.Errorf("it is left: %v", err)
	}
}
