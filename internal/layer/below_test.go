package layer

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

func wh(name string) tar.Header { return reg(name, "") }

// stack unpacks layers on each other, lowest first, and returns what an overlay of them shows.
func stack(t *testing.T, tars ...[]byte) string {
	t.Helper()
	var below []string // topmost first
	for i, b := range tars {
		at, d, err := unpack(t, b, DirOptions{Base: i == 0})
		if err != nil {
			t.Fatal(err)
		}
		if err := Inherit(d, below); err != nil {
			t.Fatal(err)
		}
		below = append([]string{at}, below...)
	}
	at := t.TempDir()
	if err := unix.Mount("overlay", at, "overlay", unix.MS_RDONLY, "lowerdir="+strings.Join(append(below, t.TempDir()), ":")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(at, 0) })
	return lines(t, at)
}

// TestWhatLayersTakeAway: by each form of a mark, in whatever order it comes, and never more than the specification says.
func TestWhatLayersTakeAway(t *testing.T) {
	base := entries(t, dir("./"), dir("d/"), reg("d/a", "1"), reg("d/b", "2"), dir("d/e/"), reg("d/e/f", "3"), reg("x", "4"), wh(".wh.nothing"), wh("d/.wh..wh..opq"))
	const root, d = "/ drwxr-xr-x 0:0 @\n", "/d drwxr-xr-x 0:0 @\n"
	const a, b, e, f, x = `/d/a -rw-r--r-- 0:0 "1" links 1 @` + "\n", `/d/b -rw-r--r-- 0:0 "2" links 1 @` + "\n", "/d/e drwxr-xr-x 0:0 @\n", `/d/e/f -rw-r--r-- 0:0 "3" links 1 @` + "\n", `/x -rw-r--r-- 0:0 "4" links 1 @` + "\n"
	const n = `/d/n -rw-r--r-- 0:0 "new" links 1 @` + "\n"
	rows := []struct {
		name string
		top  []tar.Header
		want string
	}{
		{"nothing", []tar.Header{reg("d/n", "new")}, root + d + a + b + e + f + n + x},
		{"a file", []tar.Header{wh("d/.wh.a"), wh(".wh.x")}, root + d + b + e + f},
		{"a directory", []tar.Header{wh(".wh.d")}, root + x},
		{"a directory that is made again", []tar.Header{wh(".wh.d"), dir("d/"), reg("d/n", "new")}, root + d + n + x},
		{"a directory that is made again before", []tar.Header{dir("d/"), reg("d/n", "new"), wh(".wh.d")}, root + d + n + x},
		{"a directory that is made again unnamed", []tar.Header{wh(".wh.d"), reg("d/n", "new")}, root + "/d drwxr-xr-x 0:0\n" + n + x},
		{"a file that is made again", []tar.Header{wh("d/.wh.a"), reg("d/a", "1")}, root + d + a + b + e + f + x},
		{"a file that is made again before", []tar.Header{reg("d/a", "1"), wh("d/.wh.a")}, root + d + a + b + e + f + x},
		{"all in a directory", []tar.Header{wh("d/.wh..wh..opq"), reg("d/n", "new")}, root + d + n + x},
		{"all in a directory that is told last", []tar.Header{dir("d/"), reg("d/n", "new"), wh("d/.wh..wh..opq")}, root + d + n + x},
		{"all in a directory and files of it", []tar.Header{wh("d/.wh..wh..opq"), wh("d/.wh.a"), reg("d/n", "new")}, root + d + n + x},
		{"all", []tar.Header{wh(".wh..wh..opq"), reg("d/n", "new")}, root + "/d drwxr-xr-x 0:0\n" + n},
		{"everything where directories are named", []tar.Header{dir("./"), dir("d/"), reg("d/n", "new"), wh(".wh..wh..opq")}, root + d + n},
		{"what is in no layer", []tar.Header{dir("new/"), wh("new/.wh.a"), wh("d/e/f/.wh.x"), wh("x/deep/.wh.b")}, root + d + a + b + "/d/e drwxr-xr-x 0:0 @\n/d/e/f drwxr-xr-x 0:0\n/new drwxr-xr-x 0:0 @\n/x drwxr-xr-x 0:0\n/x/deep drwxr-xr-x 0:0\n"},
		{"a device as overlay has it", []tar.Header{{Name: "d/a", Typeflag: tar.TypeChar}}, root + d + b + e + f + x},
		{"aufs' own files", []tar.Header{dir(".wh..wh.plnk/"), reg(".wh..wh.plnk/1", ""), reg(".wh..wh.aufs", "")}, root + d + a + b + e + f + x},
		{"files with several names as aufs has them", []tar.Header{dir(".wh..wh.plnk/"), reg(".wh..wh.plnk/1.2", "new"), reg(".wh..wh.plnk/3.4", "idle"), hardlink("d/n", ".wh..wh.plnk/1.2"), hardlink("x", "./.wh..wh.plnk/1.2")},
			root + d + a + b + e + f + strings.Replace(n, "links 1", "links 2", 1) + `/x -rw-r--r-- 0:0 "new" links 2 @` + "\n"},
		{"a directory that becomes a file", []tar.Header{reg("d", "file")}, root + `/d -rw-r--r-- 0:0 "file" links 1 @` + "\n" + x},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			got := stack(t, base, entries(t, row.top...))
			if row.name == "all" || strings.HasSuffix(row.name, "unnamed") {
				got = strings.ReplaceAll(got, "/d drwxr-xr-x 0:0 @", "/d drwxr-xr-x 0:0")
			}
			if got != row.want {
				t.Errorf("got\n%s\nnot\n%s", got, row.want)
			}
		})
	}
}

// TestUnnamedDirectoriesAreThoseBelow: owner, mode, time and attributes come from the nearest layer that has the directory, the root's too.
func TestUnnamedDirectoriesAreThoseBelow(t *testing.T) {
	base := entries(t, tar.Header{Name: "./", Typeflag: tar.TypeDir, Mode: 0o711, Uid: 9, Gid: 9},
		tar.Header{Name: "home/", Typeflag: tar.TypeDir, Mode: 0o750, Uid: 1000, Gid: 100, PAXRecords: map[string]string{pax + "user.note": "kept"}},
		tar.Header{Name: "srv/", Typeflag: tar.TypeDir, Mode: 0o2770, Uid: 5}, reg("tmp", "a file"))
	middle := entries(t, tar.Header{Name: "srv/", Typeflag: tar.TypeDir, Mode: 0o700, Uid: 6}, wh(".wh.tmp"))
	top := entries(t, reg("home/user/f", "x"), reg("srv/f", "x"), reg("tmp/f", "x"))
	want := `/ drwx--x--x 9:9 @
/home drwxr-x--- 1000:100 user.note="kept" @
/home/user drwxr-xr-x 0:0
/home/user/f -rw-r--r-- 0:0 "x" links 1 @
/srv drwx------ 6:0 @
/srv/f -rw-r--r-- 0:0 "x" links 1 @
/tmp drwxr-xr-x 0:0
/tmp/f -rw-r--r-- 0:0 "x" links 1 @
`
	if got := stack(t, base, middle, top); got != want {
		t.Errorf("got\n%s\nnot\n%s", got, want)
	}
}

// TestLinksAmongDirectories: a file goes where its parent leads within the layer.
func TestLinksAmongDirectories(t *testing.T) {
	b := entries(t, dir("usr/"), dir("usr/lib/"), symlink("lib", "usr/lib"), reg("lib/a", "1"), symlink("usr/up", "../lib/../lib"), reg("usr/up/b", "2"),
		symlink("abs", "/usr/new"), reg("abs/c", "3"), hardlink("h", "lib/a"), wh("lib/.wh.gone"))
	at, d, err := unpack(t, b, DirOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"usr/lib/a": "1", "usr/lib/b": "2", "usr/new/c": "3", "h": "1"} {
		if got, err := os.ReadFile(filepath.Join(at, name)); err != nil || string(got) != want {
			t.Errorf("%s: %q %v", name, got, err)
		}
	}
	if fi, err := os.Lstat(filepath.Join(at, "usr/lib/gone")); err != nil || fi.Mode()&os.ModeCharDevice == 0 {
		t.Errorf("the whiteout: %v %v", fi, err)
	}
	if got := d.Implicit(); len(got) != 2 {
		t.Errorf("not named: %q", got)
	}
}

// TestDefaultACLsComeLast: files of a directory that has one do not begin with it, as they did not where the layer was made.
func TestDefaultACLsComeLast(t *testing.T) {
	acl := "\x02\x00\x00\x00\x01\x00\x07\x00\xff\xff\xff\xff\x04\x00\x00\x00\xff\xff\xff\xff\x20\x00\x00\x00\xff\xff\xff\xff"
	at, _, err := unpack(t, entries(t, tar.Header{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o755, PAXRecords: map[string]string{pax + defaultACL: acl}}, reg("d/f", "x")), DirOptions{})
	if err != nil {
		t.Fatal(err)
	}
	value := make([]byte, 256)
	if n, err := unix.Lgetxattr(filepath.Join(at, "d"), defaultACL, value); err != nil || string(value[:n]) != acl {
		t.Errorf("%q %v", value[:max(n, 0)], err)
	}
	if fi, err := os.Stat(filepath.Join(at, "d/f")); err != nil || fi.Mode() != 0o644 {
		t.Errorf("%v %v", fi.Mode(), err)
	}
}

// sparseTar is a GNU tar with a file of which only its last bytes are data (form 1.0).
func sparseTar(t *testing.T, size int64, tail string) []byte {
	t.Helper()
	record := func(key, value string) string {
		n := len(key) + len(value) + 3
		for len(fmt.Sprint(n))+len(key)+len(value)+3 != n {
			n = len(fmt.Sprint(n)) + len(key) + len(value) + 3
		}
		return fmt.Sprintf("%d %s=%s\n", n, key, value)
	}
	records := record("GNU.sparse.major", "1") + record("GNU.sparse.minor", "0") + record("GNU.sparse.name", "f") + record("GNU.sparse.realsize", fmt.Sprint(size))
	pad := func(s string) []byte { return append([]byte(s), make([]byte, (512-len(s)%512)%512)...) }
	header := func(name string, kind byte, n int) []byte {
		b := entries(t, tar.Header{Name: name, Gname: strings.Repeat("x", n), ModTime: when.Truncate(1e9), Format: tar.FormatUSTAR})[:512]
		b[156] = kind
		copy(b[148:156], "        ")
		sum := 0
		for _, c := range b {
			sum += int(c)
		}
		copy(b[148:156], fmt.Sprintf("%06o\x00 ", sum))
		return b
	}
	ranges := pad(fmt.Sprintf("1\n%d\n%d\n", size-int64(len(tail)), len(tail)))
	return bytes.Join([][]byte{header("x", 'x', len(records)), pad(records), header("f", '0', len(ranges)+len(tail)), ranges, pad(tail), make([]byte, 1024)}, nil)
}

// TestHolesStay: a file of 64 MiB takes a block of the disk.
func TestHolesStay(t *testing.T) {
	at, _, err := unpack(t, sparseTar(t, 64<<20, "end"), DirOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(at, "f"), &st); err != nil || st.Size != 64<<20 || st.Blocks > 64 {
		t.Errorf("%d bytes in %d blocks, %v", st.Size, st.Blocks, err)
	}
	b, err := os.ReadFile(filepath.Join(at, "f"))
	if err != nil || !bytes.HasSuffix(b, []byte("\x00end")) {
		t.Errorf("%v", err)
	}
}

// TestWhatNoLayerHas is refused with the entry's name, before anything of it is written.
func TestWhatNoLayerHas(t *testing.T) {
	long := strings.Repeat("a", 256)
	rows := map[string][]byte{
		"a long name":                     entries(t, reg("d/"+long, "")),
		"a long path":                     entries(t, reg(strings.Repeat("d/", 2100)+"f", "")),
		"a long link":                     entries(t, symlink("l", strings.Repeat("d/", 2100))),
		"a link to nothing":               entries(t, symlink("l", "")),
		"a hard link to the root":         entries(t, hardlink("h", "/")),
		"a hard link to a directory":      entries(t, dir("d"), hardlink("h", "d")),
		"a hard link to what comes later": entries(t, hardlink("h", "f"), reg("f", "")),
		"a whiteout of no name":           entries(t, wh(".wh.")),
		"a whiteout of itself":            entries(t, wh("d/.wh..")),
		"a whiteout that is a directory":  entries(t, dir(".wh.d")),
		"a file in a whiteout":            entries(t, reg(".wh.d/f", "")),
		"a device that is none":           entries(t, tar.Header{Name: "c", Typeflag: tar.TypeChar, Devmajor: 4096}),
		"a user that is none":             entries(t, tar.Header{Name: "f", Uid: 1<<32 - 1, Format: tar.FormatPAX, ModTime: when}),
		"a large attribute":               entries(t, tar.Header{Name: "f", PAXRecords: map[string]string{pax + "user.a": strings.Repeat("x", 64<<10+1)}}),
		"a file below a file":             entries(t, reg("f", ""), reg("f/g", "")),
		"holes without end":               sparseTar(t, 1<<50, "x"),
		"no tar":                          bytes.Repeat([]byte("no tar"), 1000),
	}
	for name, b := range rows {
		at, _, err := unpack(t, b, DirOptions{})
		if !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v", name, err)
		}
		if strings.Contains(lines(t, at), long) {
			t.Errorf("%s was written", name)
		}
	}
}

// TestManyFiles: memory does not grow with the number of files.
func TestManyFiles(t *testing.T) {
	r, w := io.Pipe()
	go func() {
		tw := tar.NewWriter(w)
		for i := range 50000 {
			if tw.WriteHeader(&tar.Header{Name: fmt.Sprintf("d%d/f%d", i/100, i), Mode: 0o644, ModTime: when.Truncate(1e9)}) != nil {
				return
			}
		}
		_ = w.CloseWithError(tw.Close())
	}()
	n := 0
	if _, err := Unpack(t.Context(), r, counting{&n}); err != nil || n != 50000 {
		t.Errorf("%d files, %v", n, err)
	}
}

type counting struct{ n *int }

func (c counting) Add(*Entry, io.Reader) error { *c.n++; return nil }
