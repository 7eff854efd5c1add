package volume

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/volume"
	"golang.org/x/sys/unix"
)

func TestTmpfsIsMountedWhileUsed(t *testing.T) {
	ownMounts(t)
	s := open(t, t.TempDir())
	create(t, s, volume.CreateRequest{Name: "ram", DriverOpts: map[string]string{"type": "tmpfs", "device": "tmpfs", "o": "size=1m,mode=1777,nosuid,uid=7"}})
	if is, err := mounted(s.data("ram")); is || err != nil {
		t.Fatalf("mounted before its use: %v", err)
	}
	dir, fresh, err := s.Acquire(t.Context(), "ram", "one")
	if err != nil || !fresh {
		t.Fatal(fresh, err)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil || fs.Type != unix.TMPFS_MAGIC || fs.Blocks*uint64(fs.Bsize) != 1<<20 {
		t.Errorf("statfs %+v, %v", fs, err)
	}
	if fs.Flags&unix.ST_NOSUID == 0 {
		t.Error("nosuid got lost")
	}
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil || st.Mode&0o7777 != 0o1777 || st.Uid != 7 {
		t.Errorf("stat %+v, %v", st, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "f"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, fresh, err = s.Acquire(t.Context(), "ram", "two"); err != nil || fresh {
		t.Errorf("the second container: fresh %v, %v", fresh, err)
	}
	s.Release(t.Context(), "ram", "one")
	if is, _ := mounted(dir); !is {
		t.Error("unmounted while the second container has it")
	}
	s = open(t, s.root) // the engine begins anew; the container goes on
	if _, fresh, err = s.Acquire(t.Context(), "ram", "two"); err != nil || fresh {
		t.Errorf("after reopening: fresh %v, %v", fresh, err)
	}
	s.Release(t.Context(), "ram", "two")
	if is, err := mounted(dir); is || err != nil {
		t.Errorf("still mounted: %v", err)
	}
}

func TestRemovalNeverEmptiesABoundFolder(t *testing.T) {
	ownMounts(t)
	s := open(t, t.TempDir())
	outside := t.TempDir()
	precious := filepath.Join(outside, "precious")
	if err := os.WriteFile(precious, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	create(t, s, volume.CreateRequest{Name: "bound", DriverOpts: map[string]string{"type": "none", "device": outside, "o": "bind,ro"}})
	dir, fresh, err := s.Acquire(t.Context(), "bound", "c")
	if err != nil || fresh {
		t.Fatal(fresh, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "x"), nil, 0o600); err == nil || !strings.Contains(err.Error(), "read-only") {
		t.Errorf("writing to the read-only bind: %v", err)
	}
	s = open(t, s.root) // knows of no container: as after a crash
	if err := s.Remove(t.Context(), "bound", false); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(precious); err != nil {
		t.Fatalf("the bound folder was emptied: %v", err)
	}
	if _, err := os.Stat(s.dir("bound")); !os.IsNotExist(err) {
		t.Errorf("the volume is still there: %v", err)
	}
}

func TestFailedMountLeavesNothing(t *testing.T) {
	ownMounts(t)
	s := open(t, t.TempDir())
	for name, options := range map[string]map[string]string{
		"gone": {"type": "none", "device": "/no/such/folder", "o": "bind"},
		"type": {"type": "nosuchfs", "device": "x"},
		"opt":  {"type": "tmpfs", "device": "x", "o": "nosuchoption=1"},
		"host": {"type": "nfs", "device": ":/x", "o": "addr=no-such-host.invalid"},
	} {
		create(t, s, volume.CreateRequest{Name: name, DriverOpts: options})
		if _, _, err := s.Acquire(t.Context(), name, "c"); err == nil || !strings.Contains(err.Error(), "volume "+name) ||
			name == "type" && !strings.Contains(err.Error(), "modprobe nosuchfs") {
			t.Errorf("%s: %v", name, err)
		}
		if err := s.Remove(t.Context(), name, false); !errdefs.IsFailedPrecondition(err) {
			t.Errorf("%s: removed while a container refers to it: %v", name, err)
		}
		s.Release(t.Context(), name, "c")
		if err := s.Remove(t.Context(), name, false); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestUsageFollowsNoLink(t *testing.T) {
	s := open(t, t.TempDir())
	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "big"), make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	v := create(t, s, volume.CreateRequest{Name: "links"})
	if err := os.Symlink(outside, filepath.Join(v.Mountpoint, "l")); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(v.Mountpoint, "a/b"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(v.Mountpoint, "a/b/f"), make([]byte, 100), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(filepath.Join(v.Mountpoint, "a/b/f"), filepath.Join(v.Mountpoint, "a/g")); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(v.Mountpoint, "a/g"), 1<<30); err != nil { // a hole
		t.Fatal(err)
	}
	du, err := exec.Command("du", "-sx", "--block-size=1", filepath.Dir(v.Mountpoint)).Output()
	if err != nil {
		t.Fatal(err)
	}
	want, _, _ := strings.Cut(string(du), "\t")
	list, err := s.Usage(t.Context())
	if err != nil || fmt.Sprint(list[0].UsageData.Size) != want {
		t.Errorf("size %d, du says %s (%v)", list[0].UsageData.Size, want, err)
	}
}
