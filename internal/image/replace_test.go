package image

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/room"
)

// fullDisk has the files that were there before, and no room for another one.
func fullDisk(t *testing.T, before map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	for name, text := range before {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "filler"), make([]byte, 1<<20), 0o600); err == nil {
		t.Fatal("the disk is not full")
	}
	return dir
}

// TestReplacedOnAFullDisk: what fits into the room that the file has is written over it; else the file stays as it was.
func TestReplacedOnAFullDisk(t *testing.T) {
	path := filepath.Join(fullDisk(t, map[string]string{"note": "what was noted before"}), "note")
	for _, row := range []struct {
		text []byte
		fits bool
	}{{[]byte("less"), true}, {[]byte("more than was noted before"), true}, {bytes.Repeat([]byte("x"), 100<<10), false}} {
		before, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		want := row.text
		if err := replaceFile(path, row.text); (err == nil) != row.fits || err != nil && !room.Lacks(err) {
			t.Errorf("%d bytes: %v", len(row.text), err)
		}
		if !row.fits {
			want = before
		}
		if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, want) {
			t.Errorf("%d bytes: %.50q %v", len(row.text), now, err)
		}
	}
	if left, err := filepath.Glob(path + ".*"); err != nil || len(left) > 0 {
		t.Errorf("%v %v", left, err)
	}
	if err := replaceFile(path+"2", []byte("new")); !room.Lacks(err) {
		t.Errorf("a file that was not there: %v", err)
	}
}

// TestNotesOfAFullDisk: pins go, and uses that could not be written down are written later.
func TestNotesOfAFullDisk(t *testing.T) {
	dir := fullDisk(t, map[string]string{"images.pins": `["docker.io/library/a:1","docker.io/library/b:1"]`})
	p, err := openPins(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.change(false, "docker.io/library/a:1"); err != nil {
		t.Fatal(err)
	}
	if p, err = openPins(dir); err != nil || len(p.all()) != 1 {
		t.Errorf("%v %v", p.all(), err)
	}
	u := openUses(dir)
	u.note("sha256:x", time.Now())
	if err := u.save(nil); !room.Lacks(err) {
		t.Fatalf("there was room: %v", err)
	}
	if err := os.Remove(filepath.Join(dir, "filler")); err != nil {
		t.Fatal(err)
	}
	if err := u.save(nil); err != nil {
		t.Fatal(err)
	}
	if again := openUses(dir); len(again.last) != 1 {
		t.Errorf("%v", again.last)
	}
}
