package snapshot

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestHeldDirectoriesStay: a reader's mount of changes goes on to show them when they become an image, and so does one that is made only then.
func TestHeldDirectoriesStay(t *testing.T) {
	s, ctx := newPlace(t).open(t, EROFS), t.Context()
	mounts, err := s.Prepare(ctx, "work", "")
	if err != nil || len(mounts) != 1 {
		t.Fatal(mounts, err)
	}
	dir := mounts[0].Source
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	at := t.TempDir()
	if err := unix.Mount(dir, at, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Unmount(at, unix.MNT_DETACH) }()
	first, second := Hold(s), Hold(s)
	if err := s.Commit(ctx, "layer", "work"); err != nil {
		t.Fatal(err)
	}
	if err := s.Cleanup(ctx); err != nil {
		t.Fatal(err)
	}
	if err := first(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{filepath.Join(at, "file"), filepath.Join(dir, "file")} {
		if got, err := os.ReadFile(name); err != nil || string(got) != "x" {
			t.Errorf("%s: %q %v", name, got, err)
		}
	}
	if err := second(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(dir); !os.IsNotExist(err) {
		t.Errorf("nobody holds %s, and it is there: %v", dir, err)
	}
	if _, err := s.Mounts(ctx, "work"); err == nil {
		t.Error("the changes are still written to")
	}
	if _, err := s.Prepare(ctx, "next", "layer"); err != nil {
		t.Error(err)
	}
}
