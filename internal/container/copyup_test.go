package container

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"
)

// TestCopyUpBesideOthers: class 3: a volume can mount a folder which another container has too. What the image's content is copied into there
// first is nobody's that a container could be, closed to all others, and what was made meanwhile is not written through.
func TestCopyUpBesideOthers(t *testing.T) {
	image := rootWith(t, map[string]string{"data/file": "content", "data/sub/deep": "deep"})
	outside := rootWith(t, map[string]string{"file": "canary", "deep": "canary"})
	shared, volume := t.TempDir(), t.TempDir()
	if err := unix.Mount(shared, volume, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Unmount(volume, unix.MNT_DETACH) }()
	beside, remove, err := makeBeside(volume)
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(beside.Fd()), &st); err != nil || st.Uid != nobodys || st.Gid != nobodys || st.Mode != unix.S_IFDIR|0o700 {
		t.Errorf("the copy's folder: %d:%d, mode %o, %v", st.Uid, st.Gid, st.Mode, err)
	}
	remove()
	for name, to := range map[string]string{"sub": outside, "file": outside + "/file"} {
		if err := os.Symlink(to, filepath.Join(shared, name)); err != nil {
			t.Fatal(err)
		}
	}
	r := &Record{HostConfig: &container.HostConfig{}}
	r.Image.Lower = []string{image}
	if err := copyUp(r, "/data", volume); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"file", "deep"} {
		if b, err := os.ReadFile(filepath.Join(outside, name)); err != nil || string(b) != "canary" {
			t.Errorf("%s outside: %q %v", name, b, err)
		}
	}
	if list, err := os.ReadDir(shared); err != nil || len(list) != 2 {
		t.Errorf("left: %v %v", list, err)
	}
}

// TestFilesOfEtcAreBounded: class 14: what a container writes to the files that the engine has made for it does not fill the
// host's /run, and keeps nobody else from starting.
func TestFilesOfEtcAreBounded(t *testing.T) {
	e := newEngine(t)
	id := e.run(request{name: "fills", cmd: []string{"sh", "-c", "dd if=/dev/zero of=/etc/hosts bs=1M count=100; dd if=/dev/zero of=/etc/resolv.conf bs=1M count=100; echo filled; sleep 1000"}})
	e.eventually("it has filled them", func() bool { return strings.Contains(e.output(id), "filled") })
	var size int64
	for _, name := range []string{"hosts", "hostname", "resolv.conf"} {
		fi, err := os.Stat(filepath.Join(e.o.etcDir(id), name))
		if err != nil {
			t.Fatal(err)
		}
		size += fi.Size()
	}
	if size > 64<<20 || size < 32<<20 || !strings.Contains(e.output(id), "No space left") {
		t.Errorf("%d bytes: %s", size, e.output(id))
	}
	other := e.create(request{name: "other", cmd: []string{"true"}})
	e.start(other) // and the one that has filled them loses what it put there
	again := e.run(request{name: "again", cmd: sh("while true; do cat /dev/zero >>/etc/hosts; done 2>/dev/null")})
	for range 5 {
		if code := e.exitOf(request{cmd: sh("grep -q localhost /etc/hosts")}); code != 0 {
			t.Errorf("another's /etc/hosts is not whole: exit code %d", code)
		}
	}
	if err := e.Remove(t.Context(), again, RemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	e.again()
	if err := e.Remove(t.Context(), id, RemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	e.start(other)
}
