package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

var when = time.Unix(1700000000, 123456789) // a time with nanoseconds, which only PAX has

// entries makes a tar.
func entries(t testing.TB, list ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range list {
		body := h.Gname // a test's files have no group names
		h.Gname = ""
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if h.Typeflag == tar.TypeReg {
			h.Size = int64(len(body))
		}
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		if h.ModTime.IsZero() {
			h.ModTime, h.Format = when, tar.FormatPAX
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := io.WriteString(w, body); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func reg(name, body string) tar.Header { return tar.Header{Name: name, Gname: body} }
func dir(name string) tar.Header       { return tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: 0o755} }
func symlink(name, to string) tar.Header {
	return tar.Header{Name: name, Linkname: to, Typeflag: tar.TypeSymlink}
}
func hardlink(name, to string) tar.Header {
	return tar.Header{Name: name, Linkname: to, Typeflag: tar.TypeLink}
}

// unpack writes a tar into a new directory.
func unpack(t testing.TB, b []byte, o DirOptions) (string, *Dir, error) {
	t.Helper()
	at := t.TempDir()
	d, err := unpackInto(t, at, b, o)
	return at, d, err
}

func unpackInto(t testing.TB, at string, b []byte, o DirOptions) (*Dir, error) {
	t.Helper()
	d, err := NewDir(at, o)
	if err != nil {
		t.Fatal(err)
	}
	sums, err := Unpack(t.Context(), io.NopCloser(bytes.NewReader(b)), d)
	if err != nil {
		return d, errors.Join(err, d.Close())
	}
	if want := digest.FromBytes(b); sums.Diff != want || sums.Size != int64(len(b)) {
		t.Errorf("it is %+v, not %s", sums, want)
	}
	return d, d.Finish()
}

// lines describes a directory's files, one a line.
func lines(t testing.TB, root string) string {
	t.Helper()
	var out []string
	err := filepath.Walk(root, func(path string, fi os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		name := "/" + strings.TrimPrefix(strings.TrimPrefix(path, root), "/")
		line := fmt.Sprintf("%s %s %d:%d", name, fi.Mode(), st.Uid, st.Gid)
		switch {
		case fi.Mode().IsRegular():
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %q links %d", b, st.Nlink)
		case fi.Mode()&os.ModeSymlink != 0:
			to, _ := os.Readlink(path)
			line += " -> " + to
		case fi.Mode()&os.ModeDevice != 0:
			line += fmt.Sprintf(" %d,%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
		}
		names := make([]byte, 4096)
		n, _ := unix.Llistxattr(path, names)
		for x := range strings.SplitSeq(strings.TrimSuffix(string(names[:n]), "\x00"), "\x00") {
			value := make([]byte, 4096)
			if n, err := unix.Lgetxattr(path, x, value); err == nil {
				line += fmt.Sprintf(" %s=%q", x, value[:n])
			}
		}
		if st.Mtim.Sec == when.Unix() && st.Mtim.Nsec == int64(when.Nanosecond()) {
			line += " @"
		}
		out = append(out, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(out, "\n") + "\n"
}

// TestFilesAreAsTheTarSays: every kind of file, with owner, mode, time to the nanosecond, attributes and links.
func TestFilesAreAsTheTarSays(t *testing.T) {
	capability := "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	b := entries(t,
		dir("./"),
		tar.Header{Name: "bin/", Typeflag: tar.TypeDir, Mode: 0o2775, Gid: 50},
		tar.Header{Name: "bin/su", Mode: 0o4755, Gname: "program"},
		tar.Header{Name: "bin/wall", Mode: 0o2755, Uid: 3, Gid: 5, Gname: "w"},
		tar.Header{Name: "bin/sub", Typeflag: tar.TypeDir, Mode: 0o755},
		hardlink("usr/su", "/bin/su"),
		symlink("lib", "usr/lib"),
		tar.Header{Name: "tmp", Typeflag: tar.TypeDir, Mode: 0o1777},
		tar.Header{Name: "secret", Typeflag: tar.TypeDir, Mode: 0o1, Uid: 1000, Gid: 1000},
		tar.Header{Name: "ping", Mode: 0o755, Uid: 7, PAXRecords: map[string]string{pax + "security.capability": capability, pax + "user.a": "b"}},
		tar.Header{Name: "dev/null", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3, Mode: 0o666},
		tar.Header{Name: "dev/sda", Typeflag: tar.TypeBlock, Devmajor: 8, Devminor: 300, Mode: 0o660, Gid: 6},
		tar.Header{Name: "dev/fifo", Typeflag: tar.TypeFifo, Mode: 0o600},
		tar.Header{Name: "none", Mode: 0o7777},
	)
	at, d, err := unpack(t, b, DirOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want := `/ drwxr-xr-x 0:0 @
/bin dgrwxrwxr-x 0:50 @
/bin/su urwxr-xr-x 0:0 "program" links 2 @
/bin/sub drwxr-xr-x 0:0 @
/bin/wall grwxr-xr-x 3:5 "w" links 1 @
/dev drwxr-xr-x 0:0
/dev/fifo prw------- 0:0 @
/dev/null Dcrw-rw-rw- 0:0 1,3 @
/dev/sda Drw-rw---- 0:6 8,300 @
/lib Lrwxrwxrwx 0:0 -> usr/lib @
/none ugtrwxrwxrwx 0:0 "" links 1 @
/ping -rwxr-xr-x 7:0 "" links 1 security.capability="` + "\\x01\\x00\\x00\\x02\\x00 " + strings.Repeat("\\x00", 14) + `" user.a="b" @
/secret d--------x 1000:1000 @
/tmp dtrwxrwxrwx 0:0 @
/usr drwxr-xr-x 0:0
/usr/su urwxr-xr-x 0:0 "program" links 2 @
`
	if got := lines(t, at); got != want {
		t.Errorf("got\n%s\nnot\n%s", got, want)
	}
	if got := d.Implicit(); len(got) != 2 || !slices.Contains(got, "dev") || !slices.Contains(got, "usr") {
		t.Errorf("not named: %q", got)
	}
}

// TestMoreDirectoriesThanAreHeldOpen: each has its own time in the end, in whatever order files come.
func TestMoreDirectoriesThanAreHeldOpen(t *testing.T) {
	const n = mostOpen + 50
	var list []tar.Header
	for i := range n {
		list = append(list, dir(fmt.Sprintf("d%d/", i)), dir(fmt.Sprintf("d%d/deep/", i)))
	}
	for i := range n {
		list = append(list, reg(fmt.Sprintf("d%d/deep/f", i), "x"), reg(fmt.Sprintf("d%d/f", i), "x"))
	}
	list = append(list, reg(strings.Repeat("n/", 1000)+"f", "deep"))
	at, d, err := unpack(t, entries(t, list...), DirOptions{})
	if err != nil {
		t.Fatal(err)
	}
	timed := strings.Count(lines(t, filepath.Join(at)), " @\n")
	if want := 4*n + 1; timed != want {
		t.Errorf("%d files have their time, not %d", timed, want)
	}
	if n := len(d.Implicit()); n != 1001 {
		t.Errorf("%d directories were not named", n)
	}
}

// TestLaterEntriesReplaceEarlierOnes, of every kind by every kind.
func TestLaterEntriesReplaceEarlierOnes(t *testing.T) {
	kinds := map[string]tar.Header{
		"file": reg("x", "new"), "directory": dir("x"), "symlink": symlink("x", "/etc"), "hardlink": hardlink("x", "other"),
		"fifo": {Name: "x", Typeflag: tar.TypeFifo}, "device": {Name: "x", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3},
	}
	for old, o := range kinds {
		for now, n := range kinds {
			list := []tar.Header{reg("other", "o"), o}
			if old == "directory" {
				list = append(list, reg("x/in", "kept?"))
			}
			at, _, err := unpack(t, entries(t, append(list, n)...), DirOptions{})
			if err != nil {
				t.Errorf("%s, then %s: %v", old, now, err)
				continue
			}
			alone, _, err := unpack(t, entries(t, reg("other", "o"), n), DirOptions{})
			if err != nil {
				t.Fatal(err)
			}
			want := lines(t, alone)
			if old == "directory" && now == "directory" {
				want = strings.Replace(want, " @\n/x", " @\n/x", 1) + "/x/in -rw-r--r-- 0:0 \"kept?\" links 1 @\n"
			}
			if got := lines(t, at); got != want {
				t.Errorf("%s, then %s:\n%s\nnot\n%s", old, now, got, want)
			}
		}
	}
}

func compressed(t testing.TB, b []byte) map[string][]byte {
	t.Helper()
	var gz bytes.Buffer
	w := gzip.NewWriter(&gz)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return map[string][]byte{"plain": b, "gzip": gz.Bytes(), "zstd": z.EncodeAll(b, nil)}
}

// TestStreams: all compressions give the same sums, a stream that is cut short is an error, and what stands behind the archive counts.
func TestStreams(t *testing.T) {
	b := append(entries(t, reg("a", strings.Repeat("0123456789", 200000)), reg("b", "")), make([]byte, 10240)...)
	for name, packed := range compressed(t, b) {
		var got []string
		sums, err := Unpack(t.Context(), io.NopCloser(bytes.NewReader(packed)), collect(&got))
		if err != nil || sums.Diff != digest.FromBytes(b) || sums.Size != int64(len(b)) || !slices.Equal(got, []string{"a 2000000", "b 0"}) {
			t.Errorf("%s: %+v %v %q", name, sums, err, got)
		}
		got = nil
		if _, err := Unpack(t.Context(), io.NopCloser(bytes.NewReader(packed[:len(packed)/2])), collect(&got)); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s, half of it: %v %q", name, err, got)
		}
		broken := errors.New("broken")
		r := io.MultiReader(bytes.NewReader(packed[:len(packed)/2]), failing{broken})
		if _, err := Unpack(t.Context(), io.NopCloser(r), collect(&got)); !errors.Is(err, broken) {
			t.Errorf("%s, a reader that fails: %v", name, err)
		}
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// collected notes what comes.
type collected struct{ to *[]string }

func collect(to *[]string) Sink { return collected{to} }

func (c collected) Add(e *Entry, body io.Reader) error {
	n := int64(0)
	if body != nil {
		var err error
		if n, err = io.Copy(io.Discard, body); err != nil {
			return err
		}
	}
	*c.to = append(*c.to, fmt.Sprint(e.Path, " ", n))
	return nil
}

// TestSinksError ends reading at once, though the stream has not ended.
func TestSinksError(t *testing.T) {
	r, w := io.Pipe()
	full := errors.New("full")
	go func() { _, _ = w.Write(entries(t, reg("a", strings.Repeat("x", 1<<20)))) }()
	if _, err := Unpack(t.Context(), r, failingSink{full}); err != full {
		t.Error(err)
	}
}

type failingSink struct{ err error }

func (f failingSink) Add(*Entry, io.Reader) error { return f.err }

// TestLargeWindowsTakeTurns: of streams that ask for much memory one is read at a time; the others wait, and end when they are told to.
func TestLargeWindowsTakeTurns(t *testing.T) {
	b := entries(t, reg("a", strings.Repeat("0123456789abcdef", 1<<20)))
	pack := func(window int) []byte {
		z, err := zstd.NewWriter(nil, zstd.WithWindowSize(window), zstd.WithSingleSegment(false))
		if err != nil {
			t.Fatal(err)
		}
		return z.EncodeAll(b, nil)
	}
	large, small := pack(64<<20), pack(4<<20)
	m := NewMemory()
	m.large <- struct{}{} // another has its turn
	if sums, err := m.Unpack(t.Context(), io.NopCloser(bytes.NewReader(small)), nil, collect(new([]string))); err != nil || sums.Diff != digest.FromBytes(b) {
		t.Errorf("a small window: %v", err)
	}
	stopped := errors.New("stopped")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(stopped)
	if _, err := m.Unpack(ctx, io.NopCloser(bytes.NewReader(large)), nil, collect(new([]string))); !errors.Is(err, stopped) {
		t.Errorf("a large window beside another: %v", err)
	}
	<-m.large
	if sums, err := m.Unpack(t.Context(), io.NopCloser(bytes.NewReader(large)), nil, collect(new([]string))); err != nil || sums.Diff != digest.FromBytes(b) {
		t.Errorf("a large window: %v", err)
	}
	if len(m.large) != 0 {
		t.Error("the turn was not given back")
	}
	// One that is still coming waits for its end before it takes its turn; others need not.
	lost := errors.New("it does not come")
	wait := func(context.Context) error {
		if len(m.large) != 0 {
			t.Error("it waits in its turn")
		}
		return lost
	}
	if _, err := m.Unpack(t.Context(), io.NopCloser(bytes.NewReader(large)), wait, collect(new([]string))); !errors.Is(err, lost) {
		t.Errorf("a large window that does not come: %v", err)
	}
	if _, err := m.Unpack(t.Context(), io.NopCloser(bytes.NewReader(small)), wait, collect(new([]string))); err != nil {
		t.Errorf("a small window that is still coming: %v", err)
	}
	// A frame that asks for more than the one before it made known.
	if _, err := m.Unpack(t.Context(), io.NopCloser(bytes.NewReader(append(slices.Clone(small), large...))), nil, collect(new([]string))); err == nil {
		t.Error("a later frame took what the first had not asked for")
	}
}
