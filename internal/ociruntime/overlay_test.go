package ociruntime

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// TestOverlayOfLongNames: fsconfig(2) takes 255 bytes of a value, and Podman's images and overlay volumes have longer names.
func TestOverlayOfLongNames(t *testing.T) {
	b := newBox(t, "sh", "-c", "cat /all/a /all/b /all/c && echo new > /all/c && cat /all/c")
	dir := filepath.Join(t.TempDir(), strings.Repeat("long", 40), strings.Repeat("name", 40))
	folder := func(name, file string) string {
		t.Helper()
		must(t, os.MkdirAll(filepath.Join(dir, name), 0o755))
		if file != "" {
			must(t, os.WriteFile(filepath.Join(dir, name, file), []byte(name+"\n"), 0o644))
		}
		return filepath.Join(dir, name)
	}
	lower := folder("one", "a") + ":" + strings.ReplaceAll(folder("t:wo", "b"), ":", `\:`) + ":" + folder("three", "c")
	b.spec.Mounts = append(b.spec.Mounts, specs.Mount{Destination: "/all", Type: "overlay", Source: "overlay",
		Options: []string{"lowerdir=" + lower, "upperdir=" + folder("upper", ""), "workdir=" + folder("work", "")}})
	out, status, err := b.hostUsers().run()
	must(t, err)
	if status.Code != 0 || out != "one\nt:wo\nthree\nnew\n" {
		t.Errorf("%+v %q", status, out)
	}
}

func TestSplitLayers(t *testing.T) {
	for list, want := range map[string][]string{"/a": {"/a"}, "/a:/b": {"/a", "/b"}, `/a\:b:/c\\:/d`: {"/a:b", `/c\`, "/d"}} {
		if got := splitLayers(list); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", list, got, want)
		}
	}
}
