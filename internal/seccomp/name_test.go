package seccomp

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestCallName(t *testing.T) {
	for number, want := range map[int]string{unix.SYS_UNAME: "uname", unix.SYS_OPENAT2: "openat2", -1: "", 1 << 20: ""} {
		if got := CallName(number); got != want {
			t.Errorf("%d: %q, not %q", number, got, want)
		}
	}
}
