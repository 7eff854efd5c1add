package archive

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// TestRacingLinks has a directory and a link to the outside change places all the time, as a container's process can, while files are put
// below and read from there (CVE-2018-15664).
func TestRacingLinks(t *testing.T) {
	outside, root := t.TempDir(), t.TempDir()
	canary := filepath.Join(outside, "file")
	must(t, os.WriteFile(canary, []byte("secret of the host"), 0o600),
		os.MkdirAll(filepath.Join(root, "a/real"), 0o755), os.WriteFile(filepath.Join(root, "a/real/file"), []byte("inside"), 0o644),
		os.Symlink(outside, filepath.Join(root, "a/swap")))
	stop := make(chan struct{})
	var wg sync.WaitGroup
	swaps := 0
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				if unix.Renameat2(unix.AT_FDCWD, filepath.Join(root, "a/real"), unix.AT_FDCWD, filepath.Join(root, "a/swap"), unix.RENAME_EXCHANGE) == nil {
					swaps++
				}
			}
		}
	})
	dir := openDir(t, root)
	stream := tarOf(t, tar.Header{Typeflag: tar.TypeDir, Name: "real/sub"}, tar.Header{Name: "real/file", Gname: "put there"},
		tar.Header{Name: "real/sub/file", Gname: "put there"}, tar.Header{Typeflag: tar.TypeLink, Name: "real/hard", Linkname: "real/file"})
	through := 0
	for range 2000 {
		if Read(t.Context(), bytes.NewReader(stream), dir, "/a", ReadOptions{IDs: shifted(0)}) == nil {
			through++
		}
		var b bytes.Buffer
		w := NewWriter(&b, shifted(0))
		_ = w.Tree(t.Context(), dir, "x", WalkOptions{})
		if f, err := Open(dir, "a/real/file", unix.O_RDONLY); err == nil {
			_, _ = io.Copy(&b, f)
			f.Close()
		}
		if strings.Contains(b.String(), "secret") {
			t.Fatal("the host's file was read")
		}
		belowLinks(t, b.Bytes())
	}
	close(stop)
	wg.Wait()
	if b, err := os.ReadFile(canary); err != nil || string(b) != "secret of the host" {
		t.Errorf("the host's file is %q now, %v", b, err)
	}
	if left, _ := os.ReadDir(outside); len(left) != 1 {
		t.Errorf("made outside: %v", left)
	}
	if swaps < 100 || through == 0 {
		t.Errorf("%d swaps, %d archives unpacked: nothing was tried", swaps, through)
	}
}

// belowLinks fails where an archive has a link and then something below it: whoever unpacks it writes through the link.
func belowLinks(t *testing.T, b []byte) {
	t.Helper()
	links := map[string]bool{}
	for r := tar.NewReader(bytes.NewReader(b)); ; {
		h, err := r.Next()
		if err != nil {
			return
		}
		for dir := path.Dir(path.Clean(h.Name)); dir != "."; dir = path.Dir(dir) {
			if links[dir] {
				t.Fatalf("%s follows %s, which is a link", h.Name, dir)
			}
		}
		if h.Typeflag == tar.TypeSymlink {
			links[path.Clean(h.Name)] = true
		}
	}
}

// FuzzRead: whatever an archive holds, only what is below the root changes.
func FuzzRead(f *testing.F) {
	f.Add(tarOf(f, tar.Header{Name: "a", Gname: "x"}, tar.Header{Typeflag: tar.TypeDir, Name: "d/"}, tar.Header{Typeflag: tar.TypeSymlink, Name: "d/l", Linkname: "/"}))
	f.Add(tarOf(f, tar.Header{Name: "../../etc/x", Gname: "x"}, tar.Header{Typeflag: tar.TypeLink, Name: "h", Linkname: "../a"}))
	f.Add(tarOf(f, tar.Header{Name: strings.Repeat("long/", 60), Typeflag: tar.TypeDir}, tar.Header{Typeflag: tar.TypeFifo, Name: "f"}))
	f.Add([]byte("\x1f\x8b\x08\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 1<<20 {
			return
		}
		top := t.TempDir()
		root := filepath.Join(top, "in/root")
		must(t, os.MkdirAll(root, 0o755), os.WriteFile(filepath.Join(top, "canary"), []byte("alive"), 0o600))
		r, err := Decompress(bytes.NewReader(b))
		if err == nil {
			_ = Read(t.Context(), io.LimitReader(r, 4<<20), openDir(t, root), "/", ReadOptions{IDs: shifted(0)})
			r.Close()
		}
		if c, err := os.ReadFile(filepath.Join(top, "canary")); err != nil || string(c) != "alive" {
			t.Errorf("canary: %q, %v", c, err)
		}
		if left, _ := os.ReadDir(top); len(left) != 2 {
			t.Errorf("made outside: %v", left)
		}
	})
}
