package mend

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// plant makes a tree of every kind of file.
func plant(t *testing.T, dir string) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Join(dir, "a/b/c"), 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "a/f"), []byte(strings.Repeat("content", 100000)), 0o644))
	must(t, os.WriteFile(filepath.Join(dir, "a/b/g"), []byte("g"), 0o600))
	must(t, os.Link(filepath.Join(dir, "a/b/g"), filepath.Join(dir, "a/h")))
	must(t, os.Symlink("f", filepath.Join(dir, "a/l")))
	must(t, unix.Mknod(filepath.Join(dir, "a/white"), unix.S_IFCHR, 0))
	must(t, unix.Setxattr(filepath.Join(dir, "a/b"), "trusted.overlay.opaque", []byte("y"), 0))
	must(t, unix.Mkfifo(filepath.Join(dir, "a/p"), 0o600))
	for _, d := range []string{"a/b/c", "a/b", "a", "."} {
		must(t, unix.UtimesNano(filepath.Join(dir, d), []unix.Timespec{{Sec: 1000}, {Sec: 1000}}))
	}
}

func compare(t *testing.T, want, have string, mending bool) []string {
	t.Helper()
	var out []string
	must(t, Tree(t.Context(), want, have, Options{Mend: mending, Tell: func(d Difference) { out = append(out, d.Path+" "+d.What) }}))
	slices.Sort(out)
	return out
}

// TestEveryDifferenceIsFoundAndMended: each on its own, and all together.
func TestEveryDifferenceIsFoundAndMended(t *testing.T) {
	rows := []struct {
		says   string
		damage func(dir string) error
	}{
		{"a/f other content", func(d string) error {
			f, err := os.OpenFile(filepath.Join(d, "a/f"), os.O_WRONLY, 0)
			if err == nil {
				_, err = f.WriteAt([]byte{0xff}, 500000)
				f.Close()
			}
			return err
		}},
		{"a/b/g of 0 bytes", func(d string) error { return os.Truncate(filepath.Join(d, "a/b/g"), 0) }},
		{"a/b missing", func(d string) error { return os.RemoveAll(filepath.Join(d, "a/b")) }},
		{"a/h a file of 1 names, not 2", func(d string) error {
			must(t, os.Remove(filepath.Join(d, "a/h")))
			return os.WriteFile(filepath.Join(d, "a/h"), []byte("g"), 0o600)
		}},
		{"a/l a link to elsewhere", func(d string) error {
			must(t, os.Remove(filepath.Join(d, "a/l")))
			return os.Symlink("/etc", filepath.Join(d, "a/l"))
		}},
		{"a/white missing", func(d string) error { return os.Remove(filepath.Join(d, "a/white")) }},
		{"a/white of another type", func(d string) error {
			must(t, os.Remove(filepath.Join(d, "a/white")))
			return os.Mkdir(filepath.Join(d, "a/white"), 0o755)
		}},
		{"a/b of mode 0700", func(d string) error { return os.Chmod(filepath.Join(d, "a/b"), 0o700) }},
		{"a of 7:8", func(d string) error { return os.Chown(filepath.Join(d, "a"), 7, 8) }},
		{". of mode 0711", func(d string) error { return os.Chmod(d, 0o711) }},
		{"a/b without its attribute trusted.overlay.opaque", func(d string) error {
			return unix.Removexattr(filepath.Join(d, "a/b"), "trusted.overlay.opaque")
		}},
		{"a/b/c/new added", func(d string) error { return os.WriteFile(filepath.Join(d, "a/b/c/new"), nil, 0o600) }},
		{"tree added", func(d string) error { return os.MkdirAll(filepath.Join(d, "tree/of/more"), 0o700) }},
	}
	for n := range len(rows) + 1 {
		dir := t.TempDir()
		have, copied := filepath.Join(dir, "have"), filepath.Join(dir, "copy")
		plant(t, have)
		if got := compare(t, have, have, false); got != nil {
			t.Fatalf("a tree differs from itself: %v", got)
		}
		plant(t, copied)
		list := rows
		if n < len(rows) {
			list = rows[n : n+1]
		}
		for _, row := range list {
			if n == len(rows) && strings.Contains(row.says, "missing") {
				continue // nothing else could be damaged there
			}
			must(t, row.damage(have))
		}
		got := compare(t, copied, have, false)
		if n < len(rows) && !slices.ContainsFunc(got, func(s string) bool { return strings.HasPrefix(s, rows[n].says) }) {
			t.Errorf("%q is not among %q", rows[n].says, got)
		}
		if mended := compare(t, copied, have, true); !slices.Equal(mended, got) && n < len(rows) {
			t.Errorf("%q was told, %q was mended", got, mended)
		}
		fresh := filepath.Join(dir, "fresh")
		plant(t, fresh)
		if left := compare(t, fresh, have, false); left != nil {
			t.Errorf("after mending %q: %q", got, left)
		}
		if st, err := os.Stat(filepath.Join(have, "a/b")); err != nil || st.ModTime().Unix() != 1000 {
			t.Errorf("the folder's time: %v %v", st.ModTime(), err)
		}
	}
}
