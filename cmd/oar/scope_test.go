package main

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/cgroup"
)

// TestScopeOutsideOfTheSession: a user who may not write to what is above his session's control group and the scope's is told so.
func TestScopeOutsideOfTheSession(t *testing.T) {
	g, err := cgroup.Create(fmt.Sprintf("/oar-scope-%d", os.Getpid()), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Delete()
	if err := enterable(g, "a.scope"); err != nil {
		t.Errorf("root: %v", err)
	}
	told := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), 65534, ^uintptr(0)); errno != 0 {
			told <- errno
			return
		}
		told <- enterable(g, "a.scope")
	}()
	if err := <-told; err == nil || !strings.Contains(err.Error(), "a.scope (control group "+g.Path()+")") || !strings.Contains(err.Error(), "systemd-run --user --scope") {
		t.Errorf("a user: %v", err)
	}
}
