package task

import (
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestReapNeedsNoThreadEach: many children that live take no thread each, and none stays a zombie.
func TestReapNeedsNoThreadEach(t *testing.T) {
	threads := func() int {
		b, err := os.ReadFile("/proc/self/status")
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(b), "Threads:")
		n, _ := strconv.Atoi(strings.Fields(rest)[0])
		return n
	}
	before := threads()
	var wg sync.WaitGroup
	var children []*os.Process
	for range 40 {
		pidfd := -1
		p, err := os.StartProcess("/bin/busybox", []string{"sleep", "1000"}, &os.ProcAttr{Sys: &unix.SysProcAttr{PidFD: &pidfd}})
		if err != nil {
			t.Fatal(err)
		}
		children = append(children, p)
		wg.Go(func() {
			if err := reap(pidfd); err != nil {
				t.Error(err)
			}
		})
	}
	time.Sleep(50 * time.Millisecond) // for those that would block to do so
	if now := threads(); now > before+20 {
		t.Errorf("%d threads, %d before 40 children", now, before)
	}
	for _, p := range children {
		if err := unix.Kill(p.Pid, unix.SIGKILL); err != nil {
			t.Error(err)
		}
	}
	wg.Wait()
	for _, p := range children {
		if _, err := os.Stat("/proc/" + strconv.Itoa(p.Pid)); err == nil {
			t.Errorf("process %d is still there", p.Pid)
		}
		_ = p.Release()
	}
}
