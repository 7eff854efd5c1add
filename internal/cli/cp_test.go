package cli

import (
	"archive/tar"
	"bytes"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestCopySaysWhy: the answer that is asked for first has no body, so the reason comes with another one.
func TestCopySaysWhy(t *testing.T) {
	host := serveOn(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if w.WriteHeader(500); r.Method == http.MethodGet {
			io.WriteString(w, `{"message":"the disk is full"}`)
		}
	}))
	file := filepath.Join(tree(t, map[string]string{"a": "x"}), "a")
	for _, args := range [][]string{{"cp", file, "c:/tmp/a"}, {"cp", "-L", "c:/tmp/a", t.TempDir()}} {
		if got := runWherry(t, host, "", args...); got.code != 1 || !strings.Contains(got.stderr, "the disk is full") {
			t.Errorf("%q: %+v", args, got)
		}
	}
}

// tree makes files below a new directory: names that end with / are directories, contents that begin with -> are links.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range sorted(files) {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		target, link := strings.CutPrefix(files[name], "->")
		var err error
		switch {
		case strings.HasSuffix(name, "/"):
			err = os.MkdirAll(path, 0o755)
		case link:
			err = os.Symlink(target, path)
		default:
			err = os.WriteFile(path, []byte(files[name]), 0o640)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func pack(t *testing.T, path, name string) []byte {
	t.Helper()
	c := copying{source: path}
	p, err := c.packing()
	if err != nil {
		t.Fatal(err)
	}
	p.name = name
	var b bytes.Buffer
	if err := p.run(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func unpack(t *testing.T, dir string, u unpacking, archive []byte) error {
	t.Helper()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	u.root = root
	return u.run(bytes.NewReader(archive))
}

func TestPackedFilesComeBack(t *testing.T) {
	dir := tree(t, map[string]string{"d/a": "one", "d/sub/b": "two", "d/empty/": "", "d/link": "->/nowhere"})
	old := time.Unix(1_000_000_000, 0)
	if err := os.Link(filepath.Join(dir, "d/a"), filepath.Join(dir, "d/sub/same")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(dir, "d/pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"d/a", "d/sub"} {
		if err := os.Chtimes(filepath.Join(dir, name), old, old); err != nil {
			t.Fatal(err)
		}
	}
	archive := pack(t, filepath.Join(dir, "d"), "d")
	out := t.TempDir()
	if err := unpack(t, out, unpacking{name: "other"}, archive); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"a": "one", "sub/b": "two", "sub/same": "one"} {
		if got, err := os.ReadFile(filepath.Join(out, "other", name)); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if target, _ := os.Readlink(filepath.Join(out, "other/link")); target != "/nowhere" {
		t.Errorf("the link leads to %q", target)
	}
	for name, mode := range map[string]os.FileMode{"a": 0o640, "sub": os.ModeDir | 0o755, "empty": os.ModeDir | 0o755, "pipe": os.ModeNamedPipe | 0o600} {
		st, err := os.Lstat(filepath.Join(out, "other", name))
		if err != nil || st.Mode() != mode {
			t.Errorf("%s: mode %v, %v", name, st.Mode(), err)
		}
		if (name == "a" || name == "sub") && !st.ModTime().Equal(old) {
			t.Errorf("%s: time is %v", name, st.ModTime())
		}
	}
	var first, second unix.Stat_t
	if unix.Stat(filepath.Join(out, "other/a"), &first) != nil || unix.Stat(filepath.Join(out, "other/sub/same"), &second) != nil || first.Ino != second.Ino {
		t.Error("two names of one file became two files")
	}
	if err := unpack(t, out, unpacking{name: "other"}, archive); err != nil {
		t.Errorf("over what is there already: %v", err)
	}
}

func TestContentsGoIntoTheDirectory(t *testing.T) {
	dir := tree(t, map[string]string{"d/a": "one", "d/sub/b": "two"})
	archive := pack(t, filepath.Join(dir, "d"), "")
	var names []string
	for r := tar.NewReader(bytes.NewReader(archive)); ; {
		h, err := r.Next()
		if err != nil {
			break
		}
		names = append(names, h.Name)
	}
	if got := strings.Join(names, " "); got != "a sub/ sub/b" {
		t.Errorf("packed %q", got)
	}
	out := t.TempDir()
	if err := unpack(t, out, unpacking{}, pack(t, filepath.Join(dir, "d"), "whatever")); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(out, "sub/b")); err != nil || string(got) != "two" {
		t.Errorf("%q, %v", got, err)
	}
}

// TestHostileArchives: what a container sends cannot write outside the directory that was named.
func TestHostileArchives(t *testing.T) {
	for name, headers := range map[string][]tar.Header{
		"dots":            {{Name: "x/../../../escaped", Typeflag: tar.TypeReg}},
		"absolute":        {{Name: "/x/escaped", Typeflag: tar.TypeReg}},
		"through a link":  {{Name: "x", Typeflag: tar.TypeDir, Mode: 0o755}, {Name: "x/l", Typeflag: tar.TypeSymlink, Linkname: "../.."}, {Name: "x/l/escaped", Typeflag: tar.TypeReg}},
		"through the top": {{Name: "x", Typeflag: tar.TypeSymlink, Linkname: ".."}, {Name: "x/escaped", Typeflag: tar.TypeReg}},
		"hard link":       {{Name: "x", Typeflag: tar.TypeDir, Mode: 0o755}, {Name: "x/h", Typeflag: tar.TypeLink, Linkname: "x/../../secret"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := tree(t, map[string]string{"secret": "s", "to/": ""})
			var b bytes.Buffer
			w := tar.NewWriter(&b)
			for _, h := range headers {
				if err := w.WriteHeader(&h); err != nil {
					t.Fatal(err)
				}
			}
			w.Close()
			err := unpack(t, filepath.Join(dir, "to"), unpacking{name: "x"}, b.Bytes())
			list, _ := os.ReadDir(dir)
			if len(list) != 2 {
				t.Errorf("it wrote outside: %v (error %v)", list, err)
			}
			if st, err := os.Stat(filepath.Join(dir, "to/x/h")); err == nil && st.Size() > 0 {
				t.Error("it linked a file from outside")
			}
		})
	}
}

func TestSetUserIDIsKeptOnlyWhenAsked(t *testing.T) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: "x", Typeflag: tar.TypeReg, Mode: 0o4755, Uid: 12, Gid: 34}); err != nil {
		t.Fatal(err)
	}
	w.Close()
	for _, owners := range []bool{false, true} {
		dir := t.TempDir()
		if err := unpack(t, dir, unpacking{name: "x", owners: owners}, b.Bytes()); err != nil {
			t.Fatal(err)
		}
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(dir, "x"), &st); err != nil {
			t.Fatal(err)
		}
		if got := st.Mode&unix.S_ISUID != 0; got != owners || (st.Uid == 12 && st.Gid == 34) != owners {
			t.Errorf("with -a %v: mode %o, owner %d:%d", owners, st.Mode, st.Uid, st.Gid)
		}
	}
}

// TestDevicesAreForWhoCopies: class 4: a device node opens nothing in a container; its copy on the host is nobody's but root's.
func TestDevicesAreForWhoCopies(t *testing.T) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: "x", Typeflag: tar.TypeBlock, Mode: 0o666, Devmajor: 254, Uid: 12}); err != nil {
		t.Fatal(err)
	}
	w.Close()
	for owners, want := range map[bool]uint32{false: 0o600, true: 0o666} {
		dir := t.TempDir()
		if err := unpack(t, dir, unpacking{name: "x", owners: owners}, b.Bytes()); err != nil {
			t.Fatal(err)
		}
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(dir, "x"), &st); err != nil || st.Mode != unix.S_IFBLK|want || st.Rdev != unix.Mkdev(254, 0) {
			t.Errorf("with -a %v: mode %o, %v", owners, st.Mode, err)
		}
	}
}

func TestWhereACopyGoes(t *testing.T) {
	dir := endpoint{path: "/d", exists: true, dir: true}
	file := endpoint{path: "/d/f", exists: true}
	none := endpoint{path: "/d/new"}
	slash := endpoint{path: "/d/new", slash: true}
	rows := []struct {
		to                  endpoint
		sourceDir, contents bool
		dir, name           string
		fails               bool
	}{
		{dir, false, false, "/d", "base", false},
		{dir, true, false, "/d", "base", false},
		{dir, true, true, "/d", "", false},
		{file, false, false, "/d", "f", false},
		{file, true, false, "", "", true},
		{endpoint{path: "/d/f", exists: true, slash: true}, false, false, "", "", true},
		{none, false, false, "/d", "new", false},
		{none, true, false, "/d", "new", false},
		{none, true, true, "/d", "new", false},
		{slash, false, false, "", "", true},
		{slash, true, false, "/d", "new", false},
	}
	for _, row := range rows {
		dir, name, err := row.to.place("base", row.sourceDir, row.contents)
		if dir != row.dir || name != row.name || (err != nil) != row.fails {
			t.Errorf("%+v: %s, %s, %v", row, dir, name, err)
		}
	}
}

func TestSplitCopy(t *testing.T) {
	for arg, want := range map[string][2]string{
		"c:/x": {"c", "/x"}, "c:x": {"c", "x"}, "/a:b": {"", "/a:b"}, "./a:b": {"", "./a:b"}, "a": {"", "a"}, "-": {"", "-"}, "c:/x:y": {"c", "/x:y"}, "c:": {"c", ""},
	} {
		if name, path := splitCopy(arg); name != want[0] || path != want[1] {
			t.Errorf("%s: %q %q", arg, name, path)
		}
	}
}
