package erofs

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestKernelSeesWhatTarUnpacks: a mounted image is the same as what GNU tar makes of the same layer.
func TestKernelSeesWhatTarUnpacks(t *testing.T) {
	layer := sample(t)
	dir := t.TempDir()
	cmd := exec.Command("tar", "-x", "-p", "--delay-directory-restore", "--same-owner", "--numeric-owner", "--xattrs", "--xattrs-include=*", "-C", dir)
	cmd.Stdin = bytes.NewReader(layer)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	want := describe(t, dir)
	for _, bits := range []uint8{9, 10, 12} {
		file := image(t, layer, Options{BlockBits: bits})
		same(t, describe(t, mounted(t, file)), want)
	}
}

// TestToolsAcceptImages holds images against erofs-utils, as far as Debian's know the format.
func TestToolsAcceptImages(t *testing.T) {
	file := image(t, sample(t), Options{BlockBits: 12})
	for _, args := range [][]string{{"fsck.erofs", "--extract", file}, {"dump.erofs", "-s", "-S", file}} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil || bytes.Contains(out, []byte("<E>")) {
			t.Errorf("%v: %v\n%s", args, err, out)
		}
	}
}

func TestRemovedAndFixedLater(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "i"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := NewWriter(f, Options{})
	must := func(ino Ino, err error) Ino {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return ino
	}
	file := &Attr{Mode: typeRegular | 0o644}
	a := must(w.Add(0, "a", &Attr{Mode: typeDir | 0o700}))
	kept := must(w.AddFile(a, "kept", 0, file))
	must(w.AddFile(a, "below", 0, file))
	if err := w.Link(0, "other", kept); err != nil {
		t.Fatal(err)
	}
	w.Remove(0, "a") // what is linked from elsewhere stays
	must(w.Add(0, "a", &Attr{Mode: typeDir | 0o700}))
	implicit, _ := w.Lookup(0, "a")
	got, err := w.Attr(implicit)
	if err != nil || got.Mode != typeDir|0o700 {
		t.Errorf("%+v %v", got, err)
	}
	if err := w.SetAttr(implicit, &Attr{Mode: typeDir | 0o711, UID: 5, Sec: 77, Xattrs: []Xattr{{"user.x", []byte("y")}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Finish(); err != nil {
		t.Fatal(err)
	}
	root := mounted(t, f.Name())
	lines := strings.Join(describe(t, root), "\n")
	for _, want := range []string{`"a" 40711 5:0 77.000000000 user.x="y"`, `links 1 same as "other"`} {
		if !strings.Contains(lines, want) {
			t.Errorf("%q is not in\n%s", want, lines)
		}
	}
	if strings.Count(lines, "\n") != 2 {
		t.Errorf("names:\n%s", lines)
	}
}

func TestRefusals(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "i"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	dir, file := &Attr{Mode: typeDir}, &Attr{Mode: typeRegular}
	rows := map[string]func(w *Writer) error{
		"name with a slash": func(w *Writer) error { _, err := w.Add(0, "a/b", dir); return err },
		"empty name":        func(w *Writer) error { _, err := w.Add(0, "", dir); return err },
		"dots":              func(w *Writer) error { _, err := w.Add(0, "..", dir); return err },
		"long name":         func(w *Writer) error { _, err := w.Add(0, strings.Repeat("x", 256), dir); return err },
		"name twice": func(w *Writer) error {
			_, _ = w.Add(0, "a", dir)
			_, err := w.Add(0, "a", dir)
			return err
		},
		"below a file": func(w *Writer) error {
			ino, _ := w.AddFile(0, "a", 0, file)
			_, err := w.Add(ino, "b", dir)
			return err
		},
		"a directory's second name": func(w *Writer) error {
			ino, _ := w.Add(0, "a", dir)
			return w.Link(0, "b", ino)
		},
		"long target": func(w *Writer) error {
			_, err := w.AddLink(0, "a", strings.Repeat("x", 4096), &Attr{Mode: typeLink})
			return err
		},
		"strange xattr": func(w *Writer) error { return w.SetAttr(0, &Attr{Mode: typeDir, Xattrs: []Xattr{{"other.x", nil}}}) },
		"another type":  func(w *Writer) error { return w.SetAttr(0, file) },
		"data too much": func(w *Writer) error { _, err := w.Write([]byte("x")); return err },
		"data too few": func(w *Writer) error {
			_, _ = w.AddFile(0, "a", 5, file)
			_, err := w.Finish()
			return err
		},
		"data cut off": func(w *Writer) error {
			_, _ = w.AddFile(0, "a", 5, file)
			_, err := w.ReadFrom(strings.NewReader("abc"))
			return err
		},
	}
	for name, do := range rows {
		if err := do(NewWriter(f, Options{})); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// holes is a file that long runs of zeros are not written to.
type holes struct{ f *os.File }

func (h holes) WriteAt(p []byte, at int64) (int, error) {
	if bytes.Count(p, []byte{0}) == len(p) {
		return len(p), h.f.Truncate(at + int64(len(p)))
	}
	return h.f.WriteAt(p, at)
}

// TestLargeFile: sizes and places beyond 4 GiB.
func TestLargeFile(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "i"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := NewWriter(holes{f}, Options{})
	const size = 4<<30 + 5
	if _, err := w.AddFile(0, "large", size, &Attr{Mode: typeRegular | 0o644}); err != nil {
		t.Fatal(err)
	}
	if err := w.out.zeros(size - 5); err != nil {
		t.Fatal(err)
	}
	w.left = 5
	if _, err := w.Write([]byte("endof")); err != nil {
		t.Fatal(err)
	}
	if _, err := w.AddFile(0, "behind", 2, &Attr{Mode: typeRegular | 0o644}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("it")); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Finish(); err != nil {
		t.Fatal(err)
	}
	root := mounted(t, f.Name())
	large, err := os.Open(root + "large")
	if err != nil {
		t.Fatal(err)
	}
	defer large.Close()
	buf := make([]byte, 10)
	n, _ := large.ReadAt(buf, size-6)
	behind, _ := os.ReadFile(root + "behind")
	if string(buf[:n]) != "\x00endof" || string(behind) != "it" {
		t.Errorf("%q %q", buf[:n], behind)
	}
}

// TestManyNames: a directory of 100,000 names, each found by the kernel, and what the writer keeps of each.
func TestManyNames(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "i"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := NewWriter(f, Options{})
	dir, _ := w.Add(0, "d", &Attr{Mode: typeDir | 0o755})
	const n = 100_000
	for i := range n {
		if _, err := w.AddFile(dir, fmt.Sprintf("file-%d.txt", i*7919%n), 0, &Attr{Mode: typeRegular | 0o644}); err != nil {
			t.Fatal(err)
		}
	}
	kept := len(w.tree.table)*4 + len(w.tree.inodes.list)*perPage*64 + len(w.tree.names.list)*perPage*12 + len(w.tree.text.list)*arenaPage
	if kept/n > 128 {
		t.Errorf("%d bytes are kept of each name", kept/n)
	}
	if _, err := w.Finish(); err != nil {
		t.Fatal(err)
	}
	root := mounted(t, f.Name())
	list, err := os.ReadDir(root + "d")
	if err != nil || len(list) != n {
		t.Fatalf("%d names, %v", len(list), err)
	}
	for i := 0; i < n; i += 997 {
		if _, err := os.Lstat(root + "d/" + list[i].Name()); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Lstat(root + "d/file-x"); !os.IsNotExist(err) {
		t.Error(err)
	}
}

func BenchmarkWriter(b *testing.B) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<20/16)
	for i := range 9000 {
		n := 1000 + i*7919%40000
		_ = w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("f%d", i), Mode: 0o644, Size: int64(n), ModTime: time.Unix(1, 0), Format: tar.FormatUSTAR})
		_, _ = w.Write(data[:n])
	}
	_ = w.Close()
	b.SetBytes(int64(buf.Len()))
	f, err := os.Create(filepath.Join(b.TempDir(), "i"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	for b.Loop() {
		w := NewWriter(f, Options{})
		if err := fromTar(w, bytes.NewReader(buf.Bytes())); err != nil {
			b.Fatal(err)
		}
		if _, err := w.Finish(); err != nil {
			b.Fatal(err)
		}
	}
}

// TestMakerNamesTheBytes: who changes what a Writer makes of the same files gives Maker another name, and the new sum here. `store check` compares
// images of other makers file by file.
func TestMakerNamesTheBytes(t *testing.T) {
	b, err := os.ReadFile(image(t, sample(t), Options{UUID: [16]byte{1}}))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprintf("%s %x", Maker, sha256.Sum256(b)), "wherry-1 20c8567dbf98a291cc41c53f452211dca567361ff4a87e1d94302c8634a597f3"; got != want {
		t.Errorf("%s, not %s", got, want)
	}
}

// TestRootsOfEveryLength: the root's inode stands at the first place, or at the next block where what is behind it would be torn.
func TestRootsOfEveryLength(t *testing.T) {
	for n := range 120 {
		file := filepath.Join(t.TempDir(), "image")
		f, err := os.Create(file)
		if err != nil {
			t.Fatal(err)
		}
		w := NewWriter(f, Options{})
		for i := range n {
			if _, err := w.Add(w.Root(), fmt.Sprintf("%03d", i), &Attr{Mode: typeDir | 0o755}); err != nil {
				t.Fatal(err)
			}
		}
		size, err := w.Finish()
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Truncate(size); err != nil {
			t.Fatal(err)
		}
		r, err := NewReader(f, size)
		if err != nil {
			t.Fatal(err)
		}
		names := 0
		if err := r.Walk(t.Context(), func(string, *Node) error { names++; return nil }); err != nil || names != n+1 {
			t.Errorf("%d names in the root became %d, %v", n, names-1, err)
		}
		f.Close()
		if n%8 != 0 && n != 27 {
			continue
		}
		at := mounted(t, file)
		if list, err := os.ReadDir(at); err != nil || len(list) != n {
			t.Errorf("the kernel finds %d of %d names, %v", len(list), n, err)
		}
	}
}

// TestMemoryIsBounded: by names, by their length, by targets, by attributes, and by names that are taken away again.
func TestMemoryIsBounded(t *testing.T) {
	ways := map[string]func(w *Writer, i int) error{
		"files": func(w *Writer, i int) error {
			_, err := w.AddFile(0, fmt.Sprint(i), 0, &Attr{Mode: typeRegular})
			return err
		},
		"links": func(w *Writer, i int) error { return w.Link(0, fmt.Sprint("l", i), 1) },
		"targets": func(w *Writer, i int) error {
			_, err := w.AddLink(0, fmt.Sprint(i), strings.Repeat("x", 4000), &Attr{Mode: typeLink})
			return err
		},
		"attributes": func(w *Writer, i int) error {
			return w.SetAttr(0, &Attr{Mode: typeDir, Xattrs: []Xattr{{"user.x", []byte(fmt.Sprintf("%60000d", i))}}})
		},
		"removed": func(w *Writer, _ int) error {
			w.Remove(0, "f")
			_, err := w.AddFile(0, "f", 0, &Attr{Mode: typeRegular})
			return err
		},
	}
	for way, add := range ways {
		f, err := os.Create(filepath.Join(t.TempDir(), "image"))
		if err != nil {
			t.Fatal(err)
		}
		w := NewWriter(f, Options{Kept: 4 << 20})
		if _, err := w.AddFile(0, "first", 0, &Attr{Mode: typeRegular}); err != nil {
			t.Fatal(err)
		}
		n := 0
		for err = nil; err == nil && n < 1e6; n++ {
			err = add(w, n)
		}
		if !errors.Is(err, ErrTooMany) || !errors.Is(err, ErrInvalid) || n < 50 {
			t.Errorf("%s: %d, %v", way, n, err)
		}
		_ = f.Close()
	}
}
