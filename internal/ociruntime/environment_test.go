package ociruntime

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// TestUsersThatAreNoFile: what an image has in the place of /etc/passwd is opened only where it is a file. To open a device does something
// with it, outside of the container's rules about devices.
func TestUsersThatAreNoFile(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "etc"), 0o755))
	root, err := os.Open(dir)
	must(t, err)
	defer root.Close()
	s := &start{spec: &specs.Spec{Process: &specs.Process{}}, layout: layout{root: root}}
	for kind, want := range map[string]struct {
		home   string
		opened bool
	}{"file": {"HOME=/home/first", true}, "pipe": {"HOME=/", false}} {
		name := filepath.Join(dir, passwdFile)
		if kind == "file" {
			must(t, os.WriteFile(name, []byte("first:x:0:0::/home/first:/bin/sh\n"), 0o644))
		} else {
			must(t, unix.Mkfifo(name, 0o644))
		}
		watch, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
		must(t, err)
		_, err = unix.InotifyAddWatch(watch, name, unix.IN_OPEN)
		must(t, err)
		if env := s.ownEnvironment().Env; !slices.Equal(env, []string{want.home}) {
			t.Errorf("%s: %q", kind, env)
		}
		_, err = unix.Read(watch, make([]byte, 4096))
		if opened := !errors.Is(err, unix.EAGAIN); opened != want.opened {
			t.Errorf("%s: opened %v, %v", kind, opened, err)
		}
		unix.Close(watch)
		must(t, os.Remove(name))
	}
}
