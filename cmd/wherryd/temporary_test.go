package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestKeepTemporary(t *testing.T) {
	t.Setenv("TMPDIR", os.TempDir()) // and back at the end
	root, err := os.MkdirTemp("", "t")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(root)
	secret := filepath.Join(root, "tmp/buildkit-secrets1")
	if err := os.MkdirAll(secret, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for unix.Unmount(secret, unix.MNT_DETACH) == nil {
		}
	})
	for range 2 { // one above the other
		if err := unix.Mount("tmpfs", secret, "tmpfs", 0, "size=64k"); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(secret+"/word", []byte("word"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(root+"/tmp/file", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := keepTemporary(root); err != nil {
		t.Fatal(err)
	}
	if list, err := os.ReadDir(root + "/tmp"); err != nil || len(list) != 0 {
		t.Errorf("left: %v %v", list, err)
	}
	if os.TempDir() != root+"/tmp" {
		t.Errorf("temporary files are in %s", os.TempDir())
	}

	long := filepath.Join(root, strings.Repeat("x", 60))
	if err := keepTemporary(long); err != nil {
		t.Fatal(err)
	}
	if os.TempDir() != root+"/tmp" {
		t.Errorf("sockets' names are too long in %s", os.TempDir())
	}
}
