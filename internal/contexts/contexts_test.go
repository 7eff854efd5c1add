package contexts

import (
	"archive/tar"
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestContextsAreKept(t *testing.T) {
	s := Store{t.TempDir()}
	if list, err := s.List(); err != nil || len(list) != 0 {
		t.Fatalf("an empty store: %v %v", list, err)
	}
	c := Context{Name: "far", Description: "of it", Host: "tcp://h:2376", TLS: map[string][]byte{"key.pem": []byte("secret"), "ca.pem": []byte("ca")}}
	if err := s.Put(c); err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(s.TLSDir("far"), "docker/key.pem")
	if st, err := os.Stat(key); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the key: %v %v", st, err)
	}
	got, err := s.Get("far")
	if err != nil || got.Host != c.Host || got.Description != "of it" || string(got.TLS["key.pem"]) != "secret" {
		t.Errorf("%+v %v", got, err)
	}
	if _, err := s.Get("nowhere"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what is not there: %v", err)
	}
	var archive bytes.Buffer
	if err := s.Export("far", &archive); err != nil {
		t.Fatal(err)
	}
	if err := s.Import("far", bytes.NewReader(archive.Bytes())); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second of the name: %v", err)
	}
	if err := s.Import("near", &archive); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Get("near"); err != nil || got.Host != c.Host || string(got.TLS["ca.pem"]) != "ca" {
		t.Errorf("imported: %+v %v", got, err)
	}
	if err := s.Remove("far"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(key); err == nil {
		t.Error("the key outlives its context")
	}
}

func TestNamesOfContexts(t *testing.T) {
	for _, name := range []string{"", "a", "default", "a b", "../x", ".x", "-x", "a/b"} {
		if CheckName(name) == nil {
			t.Errorf("%q is taken", name)
		}
	}
	if err := CheckName("Prod_1.eu+west-2"); err != nil {
		t.Error(err)
	}
}

// FuzzImport: archives come from strangers. What is taken is kept below the store, nowhere else.
func FuzzImport(f *testing.F) {
	entry := func(name, text string) []byte {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		_ = w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(text))})
		_, _ = w.Write([]byte(text))
		w.Close()
		return b.Bytes()
	}
	f.Add(entry("meta.json", `{"Name":"x","Metadata":{"Description":"d"},"Endpoints":{"docker":{"Host":"unix:///x"}}}`))
	f.Add(entry("tls/docker/../../../../evil", "x"))
	f.Add(entry("meta.json", `{"Name":"x","Endpoints":{"docker":7}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		dir := t.TempDir()
		s := Store{filepath.Join(dir, "config")}
		if err := s.Import("taken", bytes.NewReader(b)); err == nil {
			if _, err := s.Get("taken"); err != nil {
				t.Errorf("taken, and then not there: %v", err)
			}
		}
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) > 1 || len(entries) == 1 && !strings.HasSuffix(entries[0].Name(), "config") {
			t.Errorf("beside the store: %v %v", entries, err)
		}
	})
}
