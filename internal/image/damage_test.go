package image

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/event"
)

// reopen opens a store again after change has done something to its files.
func reopen(t *testing.T, root string, said *[]string) *Service {
	t.Helper()
	s, err := Open(t.Context(), Options{Root: root, Events: event.New(), Log: func(err error) { *said = append(*said, err.Error()) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// TestDamagedDatabases: whichever database is damaged, and however, the store opens, says what it did, and has the images.
func TestDamagedDatabases(t *testing.T) {
	zero := func(b []byte) []byte { return make([]byte, len(b)) }
	rows := map[string]func([]byte) []byte{
		"zeroed":    zero,
		"emptied":   func([]byte) []byte { return nil },
		"cut":       func(b []byte) []byte { return b[:len(b)/2] },
		"gone":      nil,
		"cut short": func(b []byte) []byte { return b[:5000] },
		"text":      func([]byte) []byte { return bytes.Repeat([]byte("text "), 2000) },
		"data zeroed": func(b []byte) []byte {
			return append(append([]byte(nil), b[:2*os.Getpagesize()]...), make([]byte, len(b)-2*os.Getpagesize())...)
		},
	}
	for name, spoil := range rows {
		for _, file := range []string{"images.db", "snapshots/metadata.db"} {
			t.Run(name+" "+file, func(t *testing.T) {
				root := filepath.Join(t.TempDir(), "root")
				s, err := Open(t.Context(), Options{Root: root, Events: event.New()})
				if err != nil {
					t.Fatal(err)
				}
				img := imported(t, s, "team/app:1", file1("bin/a", "program"))
				_ = imported(t, s, "team/app:2", file1("bin/a", "other"))
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				path := filepath.Join(root, file)
				b, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.Remove(path); err != nil {
					t.Fatal(err)
				}
				if spoil != nil {
					if err := os.WriteFile(path, spoil(b), 0o600); err != nil {
						t.Fatal(err)
					}
				}
				var said []string
				s = reopen(t, root, &said)
				if len(said) == 0 || !strings.Contains(said[0], "damaged") || !strings.Contains(said[0], filepath.Base(file)) {
					t.Errorf("the damage is not named: %q", said)
				}
				again, err := s.Resolve(t.Context(), "team/app:1", nil)
				if err != nil || again.ID != img.ID {
					t.Fatal(err)
				}
				if b, err := os.ReadFile(filepath.Join(again.Lower[0], "bin/a")); err != nil || string(b) != "program" {
					t.Errorf("%q %v", b, err)
				}
				if _, err := os.Stat(filepath.Join(img.Lower[0], "bin/a")); err != nil {
					t.Errorf("the folder that containers stand on has gone: %v", err)
				}
				if list, err := s.List(t.Context(), ListOptions{}); err != nil || len(list) != 2 {
					t.Errorf("%v %v", list, err)
				}
			})
		}
	}
}

func file1(name, content string) file { return file{name: name, content: content} }

func TestSoundDatabasesStay(t *testing.T) {
	root := filepath.Join(t.TempDir(), "root")
	var said []string
	s, err := Open(t.Context(), Options{Root: root, Events: event.New()})
	if err != nil {
		t.Fatal(err)
	}
	img := imported(t, s, "a", file1("a", "b"))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = reopen(t, root, &said)
	again, err := s.Resolve(t.Context(), "a", nil)
	if err != nil || again.Lower[0] != img.Lower[0] || len(said) != 0 {
		t.Fatalf("%v %v %v", again, err, said)
	}
}

func blobPath(s *Service, d digest.Digest) string {
	return filepath.Join(s.root, "content", "blobs", "sha256", d.Encoded())
}

func spoilBlob(t *testing.T, s *Service, d digest.Digest, change func([]byte) []byte) {
	t.Helper()
	path := blobPath(s, d)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, change(b), 0o600); err != nil {
		t.Fatal(err)
	}
}

func half(b []byte) []byte { return b[:len(b)/2] }

func flip(b []byte) []byte { c := bytes.Clone(b); c[len(c)/2] ^= 0xff; return c }

// TestDamagedBlobsAreNamedAndMended: one image's damage is that image's only, and a pull brings what is missing.
func TestDamagedBlobsAreNamedAndMended(t *testing.T) {
	host := realRegistry(t, nil)
	origin := open(t)
	imported(t, origin, host+"/team/app:1", file1("bin/a", strings.Repeat("program ", 100)))
	if err := origin.Push(t.Context(), host+"/team/app:1", TransferOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"manifest", "config", "layer"} {
		for name, change := range map[string]func([]byte) []byte{"cut": half, "flipped": flip, "gone": nil} {
			t.Run(part+" "+name, func(t *testing.T) {
				s := open(t)
				if err := s.Pull(t.Context(), host+"/team/app:1", TransferOptions{}); err != nil {
					t.Fatal(err)
				}
				imported(t, s, "sound", file1("x", "y"))
				img, err := s.Resolve(t.Context(), host+"/team/app:1", nil)
				if err != nil {
					t.Fatal(err)
				}
				m, err := s.manifest(in(t.Context()), img.Manifest)
				if err != nil {
					t.Fatal(err)
				}
				d := map[string]digest.Digest{"manifest": img.ID, "config": m.Config.Digest, "layer": m.Layers[0].Digest}[part]
				if change == nil {
					if err := os.Remove(blobPath(s, d)); err != nil {
						t.Fatal(err)
					}
				} else {
					spoilBlob(t, s, d, change)
				}
				s.forgetLayers()
				if _, err := s.Resolve(t.Context(), host+"/team/app:1", nil); part != "layer" && err == nil {
					t.Error("nobody noticed")
				}
				if list, err := s.List(t.Context(), ListOptions{}); err != nil || len(list) != 2 {
					t.Errorf("%d images are listed: %v", len(list), err)
				}
				if _, err := s.Resolve(t.Context(), "sound", nil); err != nil {
					t.Errorf("another image suffers: %v", err)
				}
				if err := s.Pull(t.Context(), host+"/team/app:1", TransferOptions{}); err != nil {
					t.Fatalf("pull again: %v", err)
				}
				if part == "layer" && name == "flipped" {
					return // its layer is unpacked already; the file is looked at when it is needed again
				}
				if err := s.verify(t.Context(), ocispec.Descriptor{Digest: d, Size: sizeOf(t, s, d)}); err != nil {
					t.Errorf("not mended: %v", err)
				}
				if _, err := s.Resolve(t.Context(), host+"/team/app:1", nil); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

func sizeOf(t *testing.T, s *Service, d digest.Digest) int64 {
	t.Helper()
	i, err := s.backend.Info(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	return i.Size
}

// TestDamagedLayerIsDropped: a layer file that has changed on disk since it came is told from one that came so.
func TestDamagedLayerIsDropped(t *testing.T) {
	s := open(t)
	img := imported(t, s, "app", file1("bin/a", strings.Repeat("program ", 100)))
	m, err := s.manifest(in(t.Context()), img.Manifest)
	if err != nil {
		t.Fatal(err)
	}
	spoilBlob(t, s, m.Layers[0].Digest, flip)
	other := digest.FromString("a layer that is not unpacked yet")
	_, err = s.newUnpacking(nil, m.Layers[:1], []digest.Digest{other}).run(in(t.Context()))
	if err == nil || !strings.Contains(err.Error(), "damaged and is dropped") {
		t.Fatal(err)
	}
	if _, err := s.content.Info(in(t.Context()), m.Layers[0].Digest); !errors.Is(err, errdefs.ErrNotFound) {
		t.Error("it is still there")
	}
}

// TestNamesGoFromAFullDisk: there is not one inode left for a new copy of the names.
func TestNamesGoFromAFullDisk(t *testing.T) {
	s := open(t)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k,nr_inodes=8"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	s.images.(*copiedNames).path = filepath.Join(dir, namesFile)
	imported(t, s, "app:1", file1("a", "a"))
	imported(t, s, "app:2", file1("a", "b"))
	full := false
	for i := range 20 {
		full = full || os.WriteFile(filepath.Join(dir, fmt.Sprint("filler", i)), nil, 0o600) != nil
	}
	if !full {
		t.Fatal("the disk is not full")
	}
	if _, err := s.Remove(t.Context(), "app:1", RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(dir, namesFile)); err != nil || strings.Contains(string(b), "app:1") || !strings.Contains(string(b), "app:2") {
		t.Errorf("%s %v", b, err)
	}
}
