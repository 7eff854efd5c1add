package main

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// TestBareMounts: what is no mount namespace is somebody else's descriptor, and stays as it is.
func TestBareMounts(t *testing.T) {
	for name, want := range map[string]bool{"/proc/self/ns/mnt": true, "/proc/self/ns/uts": false, os.DevNull: false} {
		fd, err := unix.Open(name, unix.O_RDONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		f := bareMounts(fd)
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if (f != nil) != want || err != nil || (flags&unix.FD_CLOEXEC != 0) != want {
			t.Errorf("%s: %v, flags %d, %v", name, f, flags, err)
		}
		if f != nil {
			f.Close()
		} else {
			unix.Close(fd)
		}
	}
	if f := bareMounts(1 << 20); f != nil {
		t.Errorf("%v of a descriptor that is not there", f)
	}
}
