package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// shifted is a map of ids as a container has it.
type shifted int

func (s shifted) Host(id int) int   { return id + int(s) }
func (s shifted) Inside(id int) int { return id - int(s) }

func openDir(t *testing.T, dir string) *os.File {
	t.Helper()
	f, err := os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// tarOf makes an archive of headers; a file's content stands in Gname.
func tarOf(t testing.TB, headers ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		content := h.Gname
		h.Gname = ""
		if h.Typeflag == 0 || h.Typeflag == tar.TypeReg {
			h.Typeflag, h.Size = tar.TypeReg, int64(len(content))
		}
		if h.Mode == 0 {
			h.Mode = 0o755
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, content); err != nil && h.Typeflag == tar.TypeReg {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func put(t *testing.T, root, dir string, o ReadOptions, headers ...tar.Header) error {
	t.Helper()
	if o.IDs == nil {
		o.IDs = shifted(0)
	}
	return Read(t.Context(), bytes.NewReader(tarOf(t, headers...)), openDir(t, root), dir, o)
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// headersOf reads an archive by name.
func headersOf(t *testing.T, b []byte) (map[string]*tar.Header, []string) {
	t.Helper()
	out := map[string]*tar.Header{}
	var order []string
	for r := tar.NewReader(bytes.NewReader(b)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out, order
		}
		must(t, err)
		out[h.Name] = h
		order = append(order, h.Name)
	}
}

func TestRoundTrip(t *testing.T) {
	const base = 300000
	from, to := t.TempDir(), t.TempDir()
	in := func(name string) string { return filepath.Join(from, name) }
	must(t,
		os.MkdirAll(in("d/empty"), 0o750), os.WriteFile(in("d/set"), []byte("set-id"), 0o755), os.Chmod(in("d/set"), 0o755|os.ModeSetuid),
		os.WriteFile(in("d/zero"), nil, 0o600), os.Link(in("d/set"), in("hard")), os.Symlink("/etc/passwd", in("link")),
		unix.Mkfifo(in("fifo"), 0o640), unix.Mknod(in("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))), os.Chmod(in("null"), 0o666),
		os.WriteFile(in("d/long"+strings.Repeat("x", 200)), []byte(strings.Repeat("ab", 100000)), 0o644),
		os.WriteFile(in("newline\n\xff"), []byte("odd"), 0o644),
		unix.Setxattr(in("d/set"), "user.note", []byte("a\x00b"), 0),
		unix.Setxattr(in("d/set"), capability, []byte("\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), 0),
		os.Lchown(in("link"), 5, 6), os.Chown(in("d/empty"), 33, 44), os.Chtimes(in("d"), time.Unix(1000, 0), time.Unix(1000, 0)),
	)
	sparse, err := os.Create(in("sparse"))
	must(t, err, sparse.Truncate(10<<20))
	_, err = sparse.WriteAt([]byte("end"), 9<<20)
	must(t, err, sparse.Close())

	var b bytes.Buffer
	w := NewWriter(&b, shifted(0))
	must(t, w.Tree(t.Context(), openDir(t, from), "top", WalkOptions{}), w.Close())
	headers, order := headersOf(t, b.Bytes())
	if order[0] != "top/" || !slices.Contains(order, "top/d/empty/") {
		t.Errorf("order %q", order)
	}
	if h := headers["top/hard"]; h.Typeflag != tar.TypeLink && headers["top/d/set"].Typeflag != tar.TypeLink {
		t.Errorf("the second name of a file: %+v", h)
	}

	must(t, Read(t.Context(), &b, openDir(t, to), "/", ReadOptions{IDs: shifted(base)}))
	stat := func(name string) (st unix.Stat_t) {
		must(t, unix.Lstat(filepath.Join(to, "top", name), &st))
		return st
	}
	if a, b := stat("hard"), stat("d/set"); a.Ino != b.Ino || a.Mode != unix.S_IFREG|unix.S_ISUID|0o755 {
		t.Errorf("hard link: %+v %+v", a, b)
	}
	for name, want := range map[string][3]uint32{
		"d/empty": {unix.S_IFDIR | 0o750, base + 33, base + 44}, "link": {unix.S_IFLNK | 0o777, base + 5, base + 6},
		"fifo": {unix.S_IFIFO | 0o640, base, base}, "null": {unix.S_IFCHR | 0o666, base, base}, "newline\n\xff": {unix.S_IFREG | 0o644, base, base},
	} {
		if st := stat(name); st.Mode != want[0] || st.Uid != want[1] || st.Gid != want[2] {
			t.Errorf("%q: mode %o, owner %d:%d", name, st.Mode, st.Uid, st.Gid)
		}
	}
	if st := stat("d"); st.Mtim.Sec != 1000 {
		t.Errorf("time of a directory that was filled later: %d", st.Mtim.Sec)
	}
	if st := stat("sparse"); st.Size != 10<<20 || st.Blocks*512 > 1<<20 {
		t.Errorf("sparse file: size %d, %d bytes on the disk", st.Size, st.Blocks*512)
	}
	if st := stat("null"); st.Rdev != unix.Mkdev(1, 3) {
		t.Errorf("device %x", st.Rdev)
	}
	value := make([]byte, 100)
	n, err := unix.Getxattr(filepath.Join(to, "top/d/set"), "user.note", value)
	if err != nil || string(value[:n]) != "a\x00b" {
		t.Errorf("user.note is %q, %v", value[:n], err)
	}
	n, err = unix.Getxattr(filepath.Join(to, "top/d/set"), capability, value)
	if err != nil || n != size3 || value[3] != 3 || value[5] != 4 || int(value[20])|int(value[21])<<8|int(value[22])<<16 != base {
		t.Errorf("the capability does not belong to the container's root: %x, %v", value[:n], err)
	}

	b.Reset()
	w = NewWriter(&b, shifted(base))
	must(t, w.Tree(t.Context(), openDir(t, filepath.Join(to, "top")), "", WalkOptions{}), w.Close())
	back, _ := headersOf(t, b.Bytes())
	h := back["d/set"]
	if h.Typeflag == tar.TypeLink {
		h = back["hard"]
	}
	if h.Uid != 0 || len(h.PAXRecords[paxAttribute+capability]) != size2 || h.PAXRecords[paxAttribute+"user.note"] != "a\x00b" {
		t.Errorf("read back: %+v", h)
	}
	if h := back["d/empty/"]; h.Uid != 33 || h.Gid != 44 {
		t.Errorf("read back: %+v", h)
	}
}

func TestNamesInArchives(t *testing.T) {
	dir := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(dir, "a"), 0o755), os.WriteFile(filepath.Join(dir, "a/b"), nil, 0o644))
	for name, want := range map[string][]string{
		"": {"a/", "a/b"}, "x": {"x/", "x/a/", "x/a/b"}, "/": {"/", "/a/", "/a/b"}, ".": {"./", "./a/", "./a/b"},
	} {
		var b bytes.Buffer
		w := NewWriter(&b, shifted(0))
		must(t, w.Tree(t.Context(), openDir(t, dir), name, WalkOptions{}), w.Close())
		if _, order := headersOf(t, b.Bytes()); !slices.Equal(order, want) {
			t.Errorf("%q: %q", name, order)
		}
	}
}

// TestNothingLeavesTheRoot has the ways in which archives have broken out of other engines.
func TestNothingLeavesTheRoot(t *testing.T) {
	dirTo := func(name, target string) tar.Header {
		return tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target}
	}
	file := func(name string) tar.Header { return tar.Header{Name: name, Gname: "evil"} }
	for _, row := range []struct {
		name    string
		headers []tar.Header
		made    string // what has to be there then, inside
	}{
		{"dot dot", []tar.Header{file("../../../CANARY")}, "CANARY"},
		{"absolute", []tar.Header{file("OUTSIDE/CANARY")}, ""},
		{"absolute link as a parent", []tar.Header{dirTo("l", "OUTSIDE"), file("l/CANARY")}, ""},
		{"relative link as a parent", []tar.Header{dirTo("l", "../../../../../../../../OUTSIDE"), file("l/CANARY")}, ""},
		{"link to the top", []tar.Header{dirTo("l", "/"), file("l/CANARY")}, "CANARY"},
		{"link with the file's name", []tar.Header{dirTo("CANARY", "OUTSIDE/CANARY"), file("CANARY")}, "CANARY"},
		{"hard link to the outside", []tar.Header{{Typeflag: tar.TypeLink, Name: "h", Linkname: "../../../../OUTSIDE/CANARY"}, file("h")}, ""},
		{"hard link through a link", []tar.Header{dirTo("l", "OUTSIDE"), {Typeflag: tar.TypeLink, Name: "h", Linkname: "l/CANARY"}, file("h")}, ""},
		{"directory in place of a link", []tar.Header{dirTo("l", "OUTSIDE"), {Typeflag: tar.TypeDir, Name: "l", Mode: 0o777}, file("l/CANARY")}, "l/CANARY"},
		{"whiteout", []tar.Header{file(".wh..wh..opq"), dirTo("l", "OUTSIDE"), file("l/.wh.CANARY")}, ".wh..wh..opq"},
		{"magic link", []tar.Header{dirTo("l", "/proc/self/root"), file("l/CANARY")}, ""},
		{"FIFO, then a file", []tar.Header{{Typeflag: tar.TypeFifo, Name: "f"}, file("f")}, "f"},
		{"owner through a link", []tar.Header{dirTo("l", "OUTSIDE/CANARY"), {Typeflag: tar.TypeSymlink, Name: "l", Linkname: "OUTSIDE/CANARY", Uid: 7}}, ""},
	} {
		outside, root := t.TempDir(), t.TempDir()
		canary := filepath.Join(outside, "CANARY")
		must(t, os.WriteFile(canary, []byte("alive"), 0o640), os.Mkdir(filepath.Join(root, "sub"), 0o755))
		for i := range row.headers {
			h := &row.headers[i]
			h.Name, h.Linkname = strings.ReplaceAll(h.Name, "OUTSIDE", outside), strings.ReplaceAll(h.Linkname, "OUTSIDE", outside)
		}
		at := "/"
		if row.name == "hard link to the outside" || row.name == "dot dot" {
			at = "/sub"
		}
		err := put(t, root, at, ReadOptions{}, row.headers...)
		b, readErr := os.ReadFile(canary)
		var st unix.Stat_t
		must(t, unix.Stat(canary, &st))
		if left, _ := os.ReadDir(outside); readErr != nil || string(b) != "alive" || len(left) != 1 || st.Uid != 0 || st.Mode != unix.S_IFREG|0o640 || st.Nlink != 1 {
			t.Errorf("%s: the outside has changed: %q %v %+v", row.name, b, left, st)
		}
		if row.made != "" {
			if b, e := os.ReadFile(filepath.Join(root, at, row.made)); !strings.HasPrefix(string(b), "evil") {
				t.Errorf("%s: %v, %q %v", row.name, err, b, e)
			}
		}
	}
}

func TestKinds(t *testing.T) {
	root := t.TempDir()
	reset := func() {
		must(t, os.RemoveAll(filepath.Join(root, "x")), os.MkdirAll(filepath.Join(root, "x/dir/deep/er"), 0o755), os.WriteFile(filepath.Join(root, "x/file"), nil, 0o644))
	}
	file, dir := tar.Header{Name: "dir", Gname: "new"}, tar.Header{Typeflag: tar.TypeDir, Name: "file"}
	reset()
	if err := put(t, root, "x", ReadOptions{KeepKind: true}, file); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "cannot overwrite directory") {
		t.Errorf("file over directory: %v", err)
	}
	if err := put(t, root, "x", ReadOptions{KeepKind: true}, dir); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "cannot overwrite non-directory") {
		t.Errorf("directory over file: %v", err)
	}
	must(t, put(t, root, "x", ReadOptions{}, file, dir))
	if b, err := os.ReadFile(filepath.Join(root, "x/dir")); err != nil || string(b) != "new" {
		t.Errorf("%q %v", b, err)
	}
	if st, err := os.Stat(filepath.Join(root, "x/file")); err != nil || !st.IsDir() {
		t.Errorf("%v %v", st, err)
	}
	reset()
	must(t, put(t, root, "x", ReadOptions{Owner: &Owner{7, 8}}, tar.Header{Typeflag: tar.TypeDir, Name: "dir", Uid: 1}, tar.Header{Name: "made/too/f", Uid: 1}))
	for _, name := range []string{"x/dir", "x/made", "x/made/too", "x/made/too/f"} {
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(root, name), &st); err != nil || st.Uid != 7 || st.Gid != 8 {
			t.Errorf("%s belongs to %d:%d, %v", name, st.Uid, st.Gid, err)
		}
	}
	if _, err := os.Stat(filepath.Join(root, "x/dir/deep/er")); err != nil {
		t.Errorf("a directory was not merged: %v", err)
	}
}

func TestBadArchives(t *testing.T) {
	root := t.TempDir()
	whole := tarOf(t, tar.Header{Name: "a", Gname: strings.Repeat("x", 5000)})
	for name, b := range map[string][]byte{"cut in a file": whole[:2000], "cut in a header": whole[:300], "garbage": bytes.Repeat([]byte("nonsense"), 200)} {
		if err := Read(t.Context(), bytes.NewReader(b), openDir(t, root), "/", ReadOptions{IDs: shifted(0)}); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, h := range map[string]tar.Header{
		"device": {Typeflag: tar.TypeChar, Name: "c", Devmajor: 5000}, "negative device": {Typeflag: tar.TypeBlock, Name: "c", Devminor: -1},
		"owner": {Name: "f", Uid: 1 << 33}, "type": {Typeflag: 'Q', Name: "q"}, "empty link": {Typeflag: tar.TypeSymlink, Name: "l"},
	} {
		if err := put(t, root, "/", ReadOptions{}, h); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := put(t, root, "/", ReadOptions{}, tar.Header{Name: strings.Repeat("d/", 3000) + "f"}); !errors.Is(err, unix.ENAMETOOLONG) {
		t.Errorf("a path of 6000 bytes: %v", err)
	}
	must(t, Read(t.Context(), bytes.NewReader(nil), openDir(t, root), "/", ReadOptions{IDs: shifted(0)}))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Read(ctx, bytes.NewReader(whole), openDir(t, root), "/", ReadOptions{IDs: shifted(0)}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestWalkIsBounded(t *testing.T) {
	root := t.TempDir()
	f := openDir(t, root)
	fd := int(f.Fd())
	const deep = 3000 // 6000 bytes of path: more than any call takes
	for range deep {
		must(t, unix.Mkdirat(fd, "d", 0o755))
		next, err := unix.Openat(fd, "d", unix.O_PATH|unix.O_CLOEXEC, 0)
		must(t, err)
		if fd != int(f.Fd()) {
			unix.Close(fd)
		}
		fd = next
	}
	unix.Close(fd)
	n := 0
	must(t, Walk(t.Context(), f, WalkOptions{}, func(e *Entry) (bool, error) { n++; return true, nil }))
	if n < 1000 || n > deep {
		t.Errorf("%d entries", n)
	}
}

func TestWalkLeavesOutKernelFileSystems(t *testing.T) {
	var seen []string
	must(t, Walk(t.Context(), openDir(t, "/"), WalkOptions{NoPseudo: true}, func(e *Entry) (bool, error) {
		seen = append(seen, e.Path)
		return e.Path == "proc" || e.Path == "sys", nil
	}))
	if !slices.Contains(seen, "proc") || slices.ContainsFunc(seen, func(p string) bool { return strings.HasPrefix(p, "proc/") || strings.HasPrefix(p, "sys/") }) {
		t.Errorf("%q", seen)
	}
}

func TestStreamEndsWithItsReader(t *testing.T) {
	done := make(chan struct{})
	s := Stream(t.Context(), func(ctx context.Context, w io.Writer) error {
		for {
			if _, err := w.Write(make([]byte, 1000)); err != nil {
				return err
			}
		}
	}, func() { close(done) })
	if _, err := io.ReadFull(s, make([]byte, 5000)); err != nil {
		t.Fatal(err)
	}
	must(t, s.Close())
	<-done
	s = Stream(t.Context(), func(context.Context, io.Writer) error { return errors.New("broke off") }, func() {})
	if _, err := io.ReadAll(s); err == nil || err.Error() != "broke off" {
		t.Errorf("read %v", err)
	}
	must(t, s.Close())
}

// TestStreamEndsWithItsContext: in the middle of a file, too. A program makes one of 8 TiB in a moment, and who has it read may leave.
func TestStreamEndsWithItsContext(t *testing.T) {
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, "holes"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(8 << 40); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	closed := false
	s := Stream(ctx, func(ctx context.Context, w io.Writer) error {
		_, err := io.Copy(w, f)
		return err
	}, func() { closed = true })
	if _, err := io.CopyN(io.Discard, s, 1<<20); err != nil {
		t.Fatal(err)
	}
	gone := errors.New("the client has gone")
	cancel(gone)
	if _, err := io.Copy(io.Discard, s); !errors.Is(err, gone) {
		t.Errorf("%v", err)
	}
	if s.Close(); !closed {
		t.Error("the file is still being read")
	}
}
