package erofs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func readerOf(t *testing.T, file string) *Reader {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	fi, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	r, err := NewReader(f, fi.Size())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestCompare: images of the same files are the same however they are written, and whatever is another in a file is told.
func TestCompare(t *testing.T) {
	layer := sample(t)
	want := readerOf(t, image(t, layer, Options{}))
	for bits := uint8(9); bits <= 12; bits++ {
		if what, err := Compare(t.Context(), want, readerOf(t, image(t, layer, Options{BlockBits: bits}))); what != "" || err != nil {
			t.Errorf("blocks of 1<<%d bytes: %s %v", bits, what, err)
		}
	}
	type files struct {
		content, target, name, second string
		attr                          Attr
		linked                        bool
	}
	plain := files{content: strings.Repeat("c", 5000), target: "to", name: "f", second: "other", attr: Attr{Mode: typeRegular | 0o644, Xattrs: []Xattr{{"user.a", []byte("b")}}}, linked: true}
	made := func(how func(f *files)) *Reader {
		f := plain
		how(&f)
		out, err := os.Create(filepath.Join(t.TempDir(), "image"))
		if err != nil {
			t.Fatal(err)
		}
		defer out.Close()
		w := NewWriter(out, Options{})
		dir, err := w.Add(0, "dir", &Attr{Mode: typeDir | 0o755})
		if err != nil {
			t.Fatal(err)
		}
		ino, err := w.AddFile(dir, f.name, uint64(len(f.content)), &f.attr)
		if err == nil {
			_, err = w.Write([]byte(f.content))
		}
		other, err2 := w.AddFile(dir, "same", 0, &Attr{Mode: typeRegular | 0o644})
		if err2 != nil || err != nil {
			t.Fatal(err, err2)
		}
		if !f.linked {
			ino, other = other, ino
		}
		_, err = w.AddLink(0, "link", f.target, &Attr{Mode: typeLink | 0o777})
		for name, to := range map[string]Ino{"z1": ino, "z2": other} {
			if err == nil {
				err = w.Link(0, name, to)
			}
		}
		if err == nil {
			_, err = w.Finish()
		}
		if err != nil {
			t.Fatal(err)
		}
		return readerOf(t, out.Name())
	}
	sound := made(func(*files) {})
	for what, how := range map[string]func(*files){
		"nothing": func(*files) {}, "content": func(f *files) { f.content = strings.Repeat("c", 4999) + "d" }, "size": func(f *files) { f.content = "c" },
		"target": func(f *files) { f.target = "no" }, "name": func(f *files) { f.name = "g" }, "mode": func(f *files) { f.attr.Mode ^= 1 },
		"owner": func(f *files) { f.attr.GID = 1 }, "time": func(f *files) { f.attr.Nsec = 1 }, "attribute": func(f *files) { f.attr.Xattrs = []Xattr{{"user.a", []byte("c")}} },
		"links": func(f *files) { f.linked = false },
	} {
		differs, err := Compare(t.Context(), sound, made(how))
		if err != nil || (differs == "") != (what == "nothing") {
			t.Errorf("%s: %q %v", what, differs, err)
		}
	}
}
