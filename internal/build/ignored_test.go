package build

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"io"
	"slices"
	"strings"
	"testing"
)

// archived is an archive of files, in the order of the list: name, content.
func archived(t testing.TB, files ...string) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for i := 0; i < len(files); i += 2 {
		if err := w.WriteHeader(&tar.Header{Name: files[i], Mode: 0o644, Size: int64(len(files[i+1]))}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, files[i+1]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func section(b []byte) *io.SectionReader {
	return io.NewSectionReader(bytes.NewReader(b), 0, int64(len(b)))
}

// TestFilesOfTheBuilderAlone: of what .dockerignore names, only the Dockerfile and itself were sent all the same.
func TestFilesOfTheBuilderAlone(t *testing.T) {
	for _, row := range []struct {
		patterns, dockerfile string
		want                 []string
	}{
		{"Dockerfile\n.dockerignore\nother\n", "", []string{".dockerignore", "Dockerfile"}},
		{"*\n!Dockerfile\n", "", []string{".dockerignore", "dockerfile"}},
		{"# nothing\n\nsrc\n", "", nil},
		{"deep\n", "deep/Docker.file", []string{"deep/Docker.file"}},
		{"Dockerfile\n", "deep/Docker.file", nil},
	} {
		plain := archived(t, "a/b", strings.Repeat("x", 2000), "./.dockerignore", row.patterns, "Dockerfile", "FROM scratch")
		var small bytes.Buffer
		z := gzip.NewWriter(&small)
		if _, err := z.Write(plain); err != nil || z.Close() != nil {
			t.Fatal(err)
		}
		for name, b := range map[string][]byte{"plain": plain, "gzip": small.Bytes()} {
			if got, err := ignored(section(b), row.dockerfile); err != nil || !slices.Equal(got, row.want) {
				t.Errorf("%q, %s: %v, %v; want %v", row.patterns, name, got, err, row.want)
			}
		}
	}
	if got, err := ignored(section([]byte("FROM scratch\n")), ""); got != nil || err != nil {
		t.Errorf("no archive: %v, %v", got, err)
	}
	for name, patterns := range map[string]string{"it may have": strings.Repeat("x", ignoreLimit+1), "syntax error": "a[\n"} {
		if _, err := ignored(section(archived(t, ".dockerignore", patterns)), ""); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzIgnored: whatever is sent, it is read or refused.
func FuzzIgnored(f *testing.F) {
	f.Add(archived(f, ".dockerignore", "Dockerfile\n!x\n[", "Dockerfile", "FROM scratch"))
	f.Add([]byte("FROM scratch\n"))
	f.Add([]byte("\x1f\x8b\x08rest"))
	f.Fuzz(func(t *testing.T, b []byte) {
		files, err := ignored(section(b), "")
		if err == nil && len(files) > 3 {
			t.Fatal(files)
		}
	})
}
