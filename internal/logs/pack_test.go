package logs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// written makes rotated segments of text lines, and returns the lines that are kept, once all complete segments are compressed.
func written(t testing.TB, dir string, lines int) string {
	t.Helper()
	w, err := Create(dir, 16<<10, 100)
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for i := range lines {
		line := fmt.Sprintf("%06d the quick brown fox jumps over the lazy dog\n", i)
		all.WriteString(line)
		if err := w.Append(Stream(1+i%2), time.Unix(0, int64(i)), []byte(line)); err != nil {
			t.Fatal(err)
		}
	}
	packedSoon(t, dir)
	if err := w.End(); err != nil {
		t.Fatal(err)
	}
	return all.String()
}

// packedSoon waits until no complete segment is plain.
func packedSoon(t testing.TB, dir string) {
	t.Helper()
	for range 2000 {
		plain, _ := filepath.Glob(filepath.Join(dir, "*.log"))
		left, _ := filepath.Glob(filepath.Join(dir, "*.new"))
		if len(plain) <= 1 && len(left) == 0 {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatal("the complete segments stay plain")
}

func TestCompleteSegmentsAreCompressed(t *testing.T) {
	dir := t.TempDir()
	all := written(t, dir, 5000)
	files, _ := filepath.Glob(filepath.Join(dir, "*.log.gz"))
	if len(files) < 10 {
		t.Fatalf("%d compressed segments", len(files))
	}
	size := int64(0)
	for _, f := range files {
		fi, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		size += fi.Size()
	}
	if size*3 > int64(len(all)) {
		t.Errorf("%d bytes take %d", len(all), size)
	}
	if got := readAll(t, dir, ReadOptions{}); got != all {
		t.Errorf("read %d bytes, written %d", len(got), len(all))
	}
	r, err := Open(dir, ReadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if skip, err := r.Last(5000); err != nil || skip != 0 {
		t.Errorf("%d lines before the last 5000, %v", skip, err)
	}
	if e, err := r.Next(t.Context()); err != nil || !strings.HasPrefix(string(e.Data), "000000 ") || e.Time.UnixNano() != 0 || e.Stream != Stdout {
		t.Errorf("the first after counting: %q %v", e.Data, err)
	}
	// A later life goes on behind them, and its followers read all.
	w := writer(t, dir, 16<<10, 100)
	if err := w.Append(Stdout, time.Now(), []byte("later\n")); err != nil {
		t.Fatal(err)
	}
	if err := w.End(); err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, dir, ReadOptions{Follow: follow(t)}); got != all+"later\n" {
		t.Errorf("a follower read %d bytes of %d", len(got), len(all)+6)
	}
	if got := readAll(t, dir, ReadOptions{FromEnd: true}); got != "" {
		t.Errorf("from the end: %q", got)
	}
}

// TestKilledCompression: what an end in the middle leaves is tidied and begun anew.
func TestKilledCompression(t *testing.T) {
	dir := t.TempDir()
	all := written(t, dir, 1000)
	files, _ := filepath.Glob(filepath.Join(dir, "*.log.gz"))
	// Killed while writing, and killed between naming the new and removing the old.
	if err := os.WriteFile(files[0]+".new", []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	whole, err := openSource(dir, 2)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(whole)
	if err != nil {
		t.Fatal(err)
	}
	whole.Close()
	if err := os.WriteFile(segment(dir, 2), plain, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, dir, ReadOptions{}); got != all {
		t.Error("both forms of a segment are read")
	}
	w := writer(t, dir, 16<<10, 100)
	packedSoon(t, dir)
	if err := w.End(); err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, dir, ReadOptions{}); got != all {
		t.Errorf("%d bytes of %d are left", len(got), len(all))
	}
}

// TestRotationRemovesCompressedSegments: the bound holds for both forms.
func TestRotationRemovesCompressedSegments(t *testing.T) {
	dir := t.TempDir()
	w := writer(t, dir, 4<<10, 3)
	for i := range 2000 {
		if err := w.Append(Stdout, time.Now(), fmt.Appendf(nil, "%06d line\n", i)); err != nil {
			t.Fatal(err)
		}
	}
	packedSoon(t, dir)
	if err := w.End(); err != nil {
		t.Fatal(err)
	}
	numbers, err := segments(dir)
	if err != nil || len(numbers) != 3 {
		t.Errorf("segments %v are kept, 3 should be: %v", numbers, err)
	}
	if got := readAll(t, dir, ReadOptions{}); !strings.HasSuffix(got, "001999 line\n") {
		t.Errorf("the newest are gone: %.40q", got)
	}
}

// TestFullDiskLosesNothingEarlier: on a file system without room, what was written stays readable, and writing goes on when there is room.
func TestFullDiskLosesNothingEarlier(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting a small file system needs root")
	}
	at := t.TempDir()
	if err := unix.Mount("tmpfs", at, "tmpfs", 0, "size=256k"); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Unmount(at, unix.MNT_DETACH) }()
	dir := filepath.Join(at, "log")
	w := writer(t, dir, 32<<10, 100)
	var kept strings.Builder
	full := 0
	random := bytes.Repeat([]byte("0123456789abcdefghijklmnopqrstuvwxyz"), 30)
	for i := range 2000 {
		line := fmt.Sprintf("%06d %x\n", i, mix(random, i))
		err := w.Append(Stdout, time.Now(), []byte(line))
		switch {
		case err == nil:
			kept.WriteString(line)
		case errors.Is(err, unix.ENOSPC):
			full++
		default:
			t.Fatal(err)
		}
	}
	if full == 0 {
		t.Fatal("the disk never was full")
	}
	if got := readAll(t, dir, ReadOptions{}); got != kept.String() {
		t.Errorf("%d bytes are read of %d that were taken", len(got), kept.Len())
	}
	if err := unix.Mount("tmpfs", at, "tmpfs", unix.MS_REMOUNT, "size=1m"); err != nil {
		t.Fatal(err)
	}
	if err := w.Append(Stdout, time.Now(), []byte("room again\n")); err != nil {
		t.Fatal(err)
	}
	if err := w.End(); err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, dir, ReadOptions{}); got != kept.String()+"room again\n" {
		t.Errorf("the end is %.60q", got[max(0, len(got)-60):])
	}
}

// mix makes bytes that do not compress.
func mix(b []byte, seed int) []byte {
	out := make([]byte, len(b)/4)
	x := uint64(seed)*2654435761 + 1
	for i := range out {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		out[i] = byte(x)
	}
	return out
}

// FuzzDamagedSegments reads segments of anything, plain and compressed: an end, no panic, no endless loop, and sound ones after it.
func FuzzDamagedSegments(f *testing.F) {
	dir := f.TempDir()
	_ = written(f, dir, 700)
	plain, err := openSource(dir, 1)
	if err != nil {
		f.Fatal(err)
	}
	whole, err := io.ReadAll(plain)
	if err != nil {
		f.Fatal(err)
	}
	gz, err := os.ReadFile(packed(dir, 1))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole[:2000], false)
	f.Add(gz, true)
	f.Add(gz[:len(gz)/2], true)
	f.Add(append(bytes.Clone(whole[:1000]), make([]byte, 100)...), false)
	f.Add([]byte{1, magic, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0}, false)
	f.Fuzz(func(t *testing.T, b []byte, compressed bool) {
		dir := t.TempDir()
		path := segment(dir, 1)
		if compressed {
			path = packed(dir, 1)
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		w, err := Create(dir, 1<<20, 3)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Append(Stdout, time.Unix(1, 0), []byte("sound\n")); err != nil {
			t.Fatal(err)
		}
		if err := w.End(); err != nil {
			t.Fatal(err)
		}
		if got := readAll(t, dir, ReadOptions{}); !strings.HasSuffix(got, "sound\n") {
			t.Fatalf("what was written behind the damage is not read: %q", got)
		}
		r, err := Open(dir, ReadOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if _, err := r.Last(1); err != nil {
			t.Fatal(err)
		}
	})
}

// TestUnreadableSegment: what cannot be opened is an error, and not output that is not there.
func TestUnreadableSegment(t *testing.T) {
	dir := t.TempDir()
	w, err := Create(dir, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.Append(Stdout, time.Now(), []byte("printed\n")), w.End()); err != nil {
		t.Fatal(err)
	}
	first := segment(dir, 1)
	if err := errors.Join(os.Remove(first), os.Symlink(first, first)); err != nil { // a loop
		t.Fatal(err)
	}
	if r, err := Open(dir, ReadOptions{}); !errors.Is(err, unix.ELOOP) {
		t.Errorf("opened: %v", err)
		r.Close()
	}
}
