package main

import (
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestFormats: directories that a later engine has written are left as they are; a note of the format that says nothing keeps nobody out.
func TestFormats(t *testing.T) {
	for text, want := range map[string]string{"": "", "1\n": "", "\x00\x00": "", "0\n": "", "2\n": "later wherryd, in format 2"} {
		dir := t.TempDir()
		path := filepath.Join(dir, "format")
		if text != "" {
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		lock, err := prepare(dir)
		after, _ := os.ReadFile(path)
		if want != "" {
			if err == nil || !strings.Contains(err.Error(), want) || string(after) != text {
				t.Errorf("%q: %v, then %q", text, err, after)
			}
			if lock, err := acquire(dir); err != nil { // it is not held by who was refused
				t.Error(err)
			} else {
				lock.Close()
			}
			continue
		}
		if err != nil || string(after) != "1\n" {
			t.Errorf("%q: %v, then %q", text, err, after)
			continue
		}
		lock.Close()
	}
}

// TestStartHeedsFormats: an engine starts on neither directory of a later format, and makes nothing in it.
func TestStartHeedsFormats(t *testing.T) {
	for _, later := range []string{"root", "state"} {
		dir := t.TempDir()
		o := options{root: filepath.Join(dir, "root"), state: filepath.Join(dir, "state")}
		at := filepath.Join(dir, later)
		if err := os.Mkdir(at, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(at, "format"), []byte("2\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := run(t.Context(), o, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), at+" was written by a later wherryd") {
			t.Errorf("%s: %v", later, err)
		}
		if entries, err := os.ReadDir(at); err != nil || len(entries) != 2 { // and the lock's file
			t.Errorf("%s: it has %v now, %v", later, entries, err)
		}
	}
}

// TestReadOnlyDirectory: a start on a file system that takes nothing says what to do.
func TestReadOnlyDirectory(t *testing.T) {
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "ro", "none", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	defer func() { _ = exec.Command("umount", dir).Run() }()
	if _, err := prepare(dir); err == nil || !strings.Contains(err.Error(), "remount,rw") {
		t.Errorf("%v", err)
	}
}
