package erofs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// imageOf writes an image: names that end in "/" are directories, in "!/" opaque ones, "-name" is a whiteout; the date is that of all.
func imageOf(t *testing.T, date int64, names ...string) *Reader {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "image"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := NewWriter(f, Options{})
	dirs := map[string]Ino{"": w.Root()}
	for _, name := range names {
		dir, base := "", name
		if i := strings.LastIndexByte(strings.TrimRight(name, "/!"), '/'); i >= 0 {
			dir, base = name[:i], name[i+1:]
		}
		a := &Attr{Mode: typeRegular | 0o644, Sec: date}
		switch {
		case strings.HasSuffix(base, "!/"):
			a.Mode, a.Xattrs = typeDir|0o755, []Xattr{{Name: opaque, Value: []byte("y")}}
		case strings.HasSuffix(base, "/"):
			a.Mode = typeDir | 0o755
		case strings.HasPrefix(base, "-"):
			a.Mode = 0o020000
		}
		clean := strings.Trim(base, "-!/")
		var ino Ino
		if a.Mode == typeRegular|0o644 {
			ino, err = w.AddFile(dirs[dir], clean, 0, a)
		} else {
			ino, err = w.Add(dirs[dir], clean, a)
		}
		if err != nil {
			t.Fatal(err)
		}
		dirs[strings.TrimPrefix(dir+"/"+clean, "/")] = ino
	}
	if _, err := w.Finish(); err != nil {
		t.Fatal(err)
	}
	return readerOf(t, f.Name())
}

func TestCompareFiles(t *testing.T) {
	want := imageOf(t, 1, "a/", "a/x", "a/-gone", "f")
	for name, row := range map[string]struct {
		have    *Reader
		differs bool
	}{
		"the same":                         {imageOf(t, 1, "a/", "a/x", "a/-gone", "f"), false},
		"of another date":                  {imageOf(t, 2, "a/", "a/x", "a/-gone", "f"), false},
		"with an empty directory":          {imageOf(t, 1, "a/", "a/x", "a/-gone", "f", "etc/"), false},
		"with a full directory":            {imageOf(t, 1, "a/", "a/x", "a/-gone", "f", "etc/", "etc/x"), true},
		"that hides all at once":           {imageOf(t, 1, "a!/", "a/x", "f"), false},
		"that hides less":                  {imageOf(t, 1, "a/", "a/x", "f"), true},
		"without a file":                   {imageOf(t, 1, "a/", "a/x", "a/-gone"), true},
		"without a file in what hides all": {imageOf(t, 1, "a!/", "f"), true},
		"with a directory for a file":      {imageOf(t, 1, "a/", "a/x", "a/-gone", "f/"), true},
	} {
		differs, err := CompareFiles(t.Context(), want, row.have)
		if err != nil || (differs != "") != row.differs {
			t.Errorf("one %s: %q %v", name, differs, err)
		}
	}
}
