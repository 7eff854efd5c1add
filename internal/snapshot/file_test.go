package snapshot

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/erofs"
)

// cached is how many of a file's pages are in the page cache.
func cached(t *testing.T, f *os.File, size int64) (n int) {
	t.Helper()
	m, err := unix.Mmap(int(f.Fd()), 0, int(size), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Munmap(m) }()
	in := make([]byte, (size+pageSize-1)/pageSize)
	if err := mincore(m, in); err != nil {
		t.Fatal(err)
	}
	for _, b := range in {
		n += int(b & 1)
	}
	return n
}

// begun is an image in a file of its own.
func begun(t *testing.T) (*os.File, *File) {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "image"))
	if err != nil {
		t.Fatal(err)
	}
	out := NewFile(f)
	t.Cleanup(func() {
		out.Close()
		f.Close()
	})
	return f, out
}

// TestImageDataPassesTheCache: what is written of files is on the disk and not in memory, names and inodes are in both.
func TestImageDataPassesTheCache(t *testing.T) {
	f, out := begun(t)
	if !out.direct {
		t.Fatal("the file system of the test's folder writes through the page cache only")
	}
	w := erofs.NewWriter(out, erofs.Options{})
	data := make([]byte, 9<<20+777)
	rand.NewChaCha8([32]byte{1}).Read(data)
	clear(data[3<<20 : 5<<20]) // becomes a hole
	if _, err := w.AddFile(w.Root(), "data", uint64(len(data)), &erofs.Attr{Mode: unix.S_IFREG | 0o644}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.ReadFrom(bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	if n := cached(t, f, 8<<20); n > 0 {
		t.Errorf("%d pages of data are in the cache", n)
	}
	if err := out.Finish(w); err != nil {
		t.Fatal(err)
	}
	fi, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if n := cached(t, f, fi.Size()); n == 0 || n > 4 {
		t.Errorf("%d pages are in the cache, names and inodes take one or two", n)
	}
	if taken := fi.Sys().(*syscall.Stat_t); taken.Blocks*512 > 8<<20 {
		t.Errorf("%d bytes are taken of the disk: the hole too", taken.Blocks*512)
	}
	got := make([]byte, len(data))
	if _, err := f.ReadAt(got, pageSize); err != nil || !bytes.Equal(got, data) {
		t.Errorf("other data, error %v", err)
	}
}

// TestImageWithoutDirectWrites: a piece that cannot be written past the cache goes through it.
func TestImageWithoutDirectWrites(t *testing.T) {
	f, out := begun(t)
	odd := bytes.Repeat([]byte("x"), 700)
	for _, at := range []int64{1, 1000} {
		if err := out.put(odd, at); err != nil {
			t.Fatal(err)
		}
	}
	if b, err := io.ReadAll(io.NewSectionReader(f, 0, 1700)); err != nil || !bytes.Equal(b[1:701], odd) || !bytes.Equal(b[1000:], odd) {
		t.Errorf("%q %v", b, err)
	}
}

// TestImageOnFullDisk: a piece that has no room fails the image, and nobody waits for it.
func TestImageOnFullDisk(t *testing.T) {
	f, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	out := NewFile(f)
	defer out.Close()
	w := erofs.NewWriter(out, erofs.Options{})
	if _, err := w.AddFile(w.Root(), "data", 64<<20, &erofs.Attr{Mode: unix.S_IFREG | 0o644}); err != nil {
		t.Fatal(err)
	}
	_, err = w.ReadFrom(io.LimitReader(rand.NewChaCha8([32]byte{1}), 64<<20))
	if err == nil {
		err = out.Finish(w)
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Error(err)
	}
}
