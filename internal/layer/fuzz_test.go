package layer

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// FuzzLayer unpacks foreign streams. What comes to a sink keeps what Entry promises, and nothing beside the directory changes.
func FuzzLayer(f *testing.F) {
	for _, a := range attacks() {
		f.Add(entries(f, a.tar("/canary")...))
	}
	for _, b := range compressed(f, entries(f, reg("d/.wh..wh..opq", ""), hardlink("h", "x"), tar.Header{Name: "p", Typeflag: tar.TypeFifo})) {
		f.Add(b)
	}
	top := f.TempDir()
	canary := filepath.Join(top, "canary")
	if err := os.WriteFile(canary, []byte("intact"), 0o644); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		at := filepath.Join(top, "fs")
		if err := os.Mkdir(at, 0o755); err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(at)
		d, err := NewDir(at, DirOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Unpack(t.Context(), io.NopCloser(bytes.NewReader(b)), &promised{t: t, next: d}); err == nil {
			if err := d.Finish(); err != nil {
				t.Error(err)
			}
			if err := Inherit(d, []string{top}); err != nil {
				t.Error(err)
			}
		}
		_ = d.Close()
		if got, err := os.ReadFile(canary); err != nil || string(got) != "intact" {
			t.Fatalf("%q %v", got, err)
		}
	})
}

// promised holds entries against what Entry says of them.
type promised struct {
	t     *testing.T
	next  Sink
	files int64
}

func (p *promised) Add(e *Entry, body io.Reader) error {
	path := func(s string) bool {
		for part := range strings.SplitSeq(s, "/") {
			if part == "" || part == "." || part == ".." || len(part) > maxName || strings.Contains(part, "\x00") {
				return false
			}
		}
		return len(s) <= maxPath
	}
	ok := e.Path == "" && (e.Kind == Directory || e.Kind == Opaque) || path(e.Path)
	switch e.Kind {
	case Symlink:
		ok = ok && len(e.Target) > 0 && len(e.Target) <= maxPath
	case Hardlink:
		ok = ok && path(e.Target)
	}
	if !ok || e.Mode > 0o7777 || e.Major > maxMajor || e.Minor > maxMinor || e.Size < 0 || (body != nil) != (e.Kind == File) {
		p.t.Errorf("%+v", e)
	}
	for _, x := range e.Xattrs {
		if strings.HasPrefix(x.Name, "trusted.") || strings.HasPrefix(x.Name, "user.overlay.") {
			p.t.Errorf("%q", x.Name)
		}
	}
	if p.files += e.Size; p.files > 1<<24 {
		return errors.New("enough")
	}
	return p.next.Add(e, body)
}
