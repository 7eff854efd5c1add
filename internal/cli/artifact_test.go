package cli

import (
	"archive/tar"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestEndsOfACopy(t *testing.T) {
	for arg, want := range map[string]copyEnd{
		"debian:12":                 {"", "", "debian:12"},
		"docker://localhost:5000/a": {"", "", "localhost:5000/a"},
		"oci:dir":                   {"oci", "dir", ""},
		"oci:/a/b:v1":               {"oci", "/a/b", "v1"},
		"oci:a:localhost:5000/b:1":  {"oci", "a", "localhost:5000/b:1"},
		"oci-archive:./x.tar":       {"oci-archive", "./x.tar", ""},
		"oci-archive:x.tar:team/a":  {"oci-archive", "x.tar", "team/a"},
	} {
		if got := parseEnd(arg); got != want {
			t.Errorf("%s: %+v", arg, got)
		}
	}
}

// TestFilesOfArtifacts: names are kept as far as they are below here, types follow a colon.
func TestFilesOfArtifacts(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	for _, name := range []string{"a.txt", "with:colon", "sub/b"} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(name), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	body, err := packFiles([]string{"a.txt:text/plain", "with:colon", "./sub/b", filepath.Join(dir, "sub/b") + ":x/y"}, "d/e")
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	var got []string
	for r := tar.NewReader(body); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, h.Name+" "+h.PAXRecords["WHERRY.type"])
	}
	if want := "a.txt text/plain,with:colon d/e,sub/b d/e,b x/y"; strings.Join(got, ",") != want {
		t.Errorf("%q", got)
	}
	for _, bad := range []string{"missing", "sub", "missing:text/plain"} {
		if _, err := packFiles([]string{bad}, ""); err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
}

// TestLayoutsGoBothWays: a directory is sent with its links as links, and what comes is written below the directory only.
func TestLayoutsGoBothWays(t *testing.T) {
	dir := t.TempDir()
	if err := errors.Join(os.MkdirAll(filepath.Join(dir, "in/blobs"), 0o755), os.WriteFile(filepath.Join(dir, "in/index.json"), []byte("{}"), 0o644),
		os.WriteFile(filepath.Join(dir, "secret"), []byte("secret"), 0o644), os.Symlink("../../secret", filepath.Join(dir, "in/blobs/link"))); err != nil {
		t.Fatal(err)
	}
	body, err := openImages(filepath.Join(dir, "in"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(body)
	if err != nil || strings.Contains(string(b), "\x00secret") || !strings.Contains(string(b), "../../secret") {
		t.Errorf("a link out was followed: %v", err)
	}
	if err := saveLayout(filepath.Join(dir, "out"), strings.NewReader(string(b))); err == nil || !strings.Contains(err.Error(), "is no file") {
		t.Errorf("a link was written: %v", err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "out")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("half a layout is there: %v", err)
	}
	var out strings.Builder
	w := tar.NewWriter(&out)
	if err := errors.Join(w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "../escaped"}), w.Close()); err != nil {
		t.Fatal(err)
	}
	if err := saveLayout(filepath.Join(dir, "out"), strings.NewReader(out.String())); err == nil {
		t.Error("a name that leads out was written")
	}
	if _, err := os.Lstat(filepath.Join(dir, "escaped")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("escaped: %v", err)
	}
	if err := saveLayout(filepath.Join(dir, "in"), strings.NewReader("")); err == nil || !strings.Contains(err.Error(), "already") {
		t.Errorf("over a directory with something in it: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".*")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}
