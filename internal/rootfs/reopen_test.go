package rootfs

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestReopen reads files and directories. Devices and pipes are told by their type, without opening them: the device here has a number
// that no driver has, so that an open would fail in another way (ENXIO). What procfs has is told by its file system.
func TestReopen(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, err := range []error{os.WriteFile(at("file"), []byte("text"), 0o600), os.Mkdir(at("dir"), 0o700), unix.Mkfifo(at("pipe"), 0o600),
		os.WriteFile(at("empty"), nil, 0o600), unix.Mknod(at("device"), unix.S_IFCHR|0o600, int(unix.Mkdev(4000, 7))), os.Symlink("file", at("link"))} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]error{"file": nil, "dir": nil, "pipe": ErrSpecial, "device": ErrSpecial, "link": ErrSpecial, "empty": nil,
		"/proc/kmsg": ErrSpecial, "/proc/self/mountinfo": ErrSpecial, "/proc": nil} {
		if !filepath.IsAbs(name) {
			name = at(name)
		}
		fd, err := unix.Open(name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		path := os.NewFile(uintptr(fd), name)
		f, err := Reopen(path)
		path.Close()
		if !errors.Is(err, want) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if name == at("file") {
			if b, err := io.ReadAll(f); err != nil || string(b) != "text" {
				t.Errorf("%q %v", b, err)
			}
		}
		if f != nil {
			f.Close()
		}
	}
}
