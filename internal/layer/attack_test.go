package layer

import (
	"archive/tar"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// attack is a tar by which a stranger reaches for files outside of the directory that it is unpacked into. refused: it is an error that
// names the image's fault; otherwise its files have to be within. canary is the absolute path of a directory with a file "secret" in it.
type attack struct {
	name    string
	refused bool
	tar     func(canary string) []tar.Header
}

func attacks() []attack {
	device := func(name string, kind byte) tar.Header {
		return tar.Header{Name: name, Typeflag: kind, Devmajor: 1, Devminor: 3, Mode: 0o666}
	}
	up := "../../../../../../../../../../../.."
	return []attack{
		{"dotdot in a name", true, func(c string) []tar.Header { return []tar.Header{reg(up+c+"/secret", "evil")} }},
		{"dotdot in the middle of a name", true, func(c string) []tar.Header { return []tar.Header{dir("a"), reg("a/../.."+c+"/secret", "evil")} }},
		{"an absolute name", false, func(c string) []tar.Header { return []tar.Header{reg(c+"/secret", "evil")} }},
		{"a name that begins with many slashes", false, func(c string) []tar.Header { return []tar.Header{reg("////"+c+"/secret", "evil")} }},
		{"an absolute link as a parent", false, func(c string) []tar.Header { return []tar.Header{symlink("l", c), reg("l/secret", "evil")} }},
		{"a relative link as a parent", false, func(c string) []tar.Header { return []tar.Header{symlink("l", up+c), reg("l/secret", "evil")} }},
		{"a chain of links as a parent", false, func(c string) []tar.Header {
			return []tar.Header{dir("a"), symlink("a/b", ".."), symlink("a/c", "b/../../.."), symlink("l", "a/c/"+c), reg("l/secret", "evil")}
		}},
		{"links in a circle", true, func(string) []tar.Header {
			return []tar.Header{symlink("a", "b"), symlink("b", "a"), reg("a/x", "evil")}
		}},
		{"a file through a link of its own name", false, func(c string) []tar.Header { return []tar.Header{symlink("f", c+"/secret"), reg("f", "evil")} }},
		{"a directory in a link's place", false, func(c string) []tar.Header { return []tar.Header{symlink("d", c), dir("d"), reg("d/secret", "evil")} }},
		{"a directory's mode through a link", false, func(c string) []tar.Header {
			return []tar.Header{dir("d"), reg("d/x", ""), symlink("d2", c), {Name: "d2", Typeflag: tar.TypeDir, Mode: 0o777}}
		}},
		{"a hard link to an absolute name", true, func(c string) []tar.Header { return []tar.Header{hardlink("h", c+"/secret"), reg("h", "evil")} }},
		{"a hard link by dotdot", true, func(c string) []tar.Header { return []tar.Header{hardlink("h", up+c+"/secret"), reg("h", "evil")} }},
		{"a hard link through a link", true, func(c string) []tar.Header {
			return []tar.Header{symlink("l", c), hardlink("h", "l/secret"), reg("h", "evil")}
		}},
		{"a hard link to a link that is then written", false, func(c string) []tar.Header {
			return []tar.Header{symlink("l", c+"/secret"), hardlink("h", "l"), reg("h", "evil")}
		}},
		{"a parent that is a hard link to a link", false, func(c string) []tar.Header {
			return []tar.Header{symlink("l", c), hardlink("h", "l"), reg("h/secret", "evil")}
		}},
		{"a whiteout through a link", false, func(c string) []tar.Header { return []tar.Header{symlink("l", c), reg("l/.wh.secret", "")} }},
		{"a whiteout of dotdot", true, func(string) []tar.Header { return []tar.Header{dir("a"), reg("a/.wh...", "")} }},
		{"an opaque mark through a link", false, func(c string) []tar.Header { return []tar.Header{symlink("l", c), reg("l/.wh..wh..opq", "")} }},
		{"a file in a device's place and through it", true, func(string) []tar.Header {
			return []tar.Header{device("dev/x", tar.TypeChar), reg("dev/x/y", "evil")}
		}},
		{"the root as a link", true, func(c string) []tar.Header { return []tar.Header{symlink(".", c), reg("secret", "evil")} }},
		{"a directory that becomes a link while files come", false, func(c string) []tar.Header {
			return []tar.Header{dir("d"), reg("d/a", "1"), symlink("d", c), reg("d/secret", "evil"), reg("d/.wh.secret", "")}
		}},
		{"a parent that becomes a link below an open directory", false, func(c string) []tar.Header {
			return []tar.Header{dir("d"), dir("d/e"), reg("d/e/a", "1"), symlink("d", filepath.Dir(c)), reg("d/"+filepath.Base(c)+"/secret", "evil")}
		}},
		{"attributes through a link", false, func(c string) []tar.Header {
			return []tar.Header{{Name: "l", Linkname: c + "/secret", Typeflag: tar.TypeSymlink, Uid: 1234, PAXRecords: map[string]string{pax + "user.evil": "x", pax + "security.evil": "x"}}}
		}},
		{"a hard link out of a directory that it replaces", true, func(string) []tar.Header {
			return []tar.Header{dir("d"), reg("d/x", "1"), hardlink("d", "d/x")}
		}},
	}
}

// TestAttacks: none changes a file outside.
func TestAttacks(t *testing.T) {
	for _, a := range attacks() {
		t.Run(a.name, func(t *testing.T) {
			top := t.TempDir()
			canary, at := filepath.Join(top, "canary"), filepath.Join(top, "layers", "1", "fs")
			for _, d := range []string{canary, at} {
				if err := os.MkdirAll(d, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.WriteFile(filepath.Join(canary, "secret"), []byte("intact"), 0o600); err != nil {
				t.Fatal(err)
			}
			before := stamp(t, canary)
			_, err := unpackInto(t, at, entries(t, a.tar(canary)...), DirOptions{})
			if after := stamp(t, canary); after != before {
				t.Errorf("outside there was\n%s\nand now is\n%s", before, after)
			}
			if got, _ := os.ReadDir(top); len(got) != 2 {
				t.Errorf("outside there is %v", got)
			}
			if a.refused != (err != nil) || err != nil && !errdefs.IsInvalidArgument(err) {
				t.Errorf("%v", err)
			}
		})
	}
}

// stamp is all about a directory that a change would change.
func stamp(t *testing.T, at string) string {
	t.Helper()
	out := lines(t, at)
	for _, name := range []string{".", "secret"} {
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(at, name), &st); err != nil {
			t.Fatal(err)
		}
		out += fmt.Sprintln(name, st.Mtim, st.Ctim, st.Nlink)
	}
	return out
}
