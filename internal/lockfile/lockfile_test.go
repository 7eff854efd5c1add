package lockfile

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

func sample(path string) *File {
	l := New(path)
	l.Files = []string{"Dockerfile"}
	l.BuildArgs = map[string]string{"A": "<b>"}
	l.Images["docker.io/library/debian:12"] = Image{Digest: digest.FromString("i"), Locked: time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC),
		Platforms: map[string]digest.Digest{"linux/arm64": digest.FromString("b"), "linux/amd64": digest.FromString("a")}}
	l.Images["docker.io/library/alpine:3"] = Image{Digest: digest.FromString("j"), Listed: true}
	return l
}

// TestFormat holds the text: others read it, and version control shows it.
func TestFormat(t *testing.T) {
	path := filepath.Join(t.TempDir(), Name)
	l := sample(path)
	if changed, err := l.Write(); err != nil || !changed {
		t.Fatal(changed, err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := `{
  "version": 1,
  "files": [
    "Dockerfile"
  ],
  "buildArgs": {
    "A": "<b>"
  },
  "images": {
    "docker.io/library/alpine:3": {
      "digest": "` + digest.FromString("j").String() + `",
      "listed": true,
      "locked": "0001-01-01T00:00:00Z"
    },
    "docker.io/library/debian:12": {
      "digest": "` + digest.FromString("i").String() + `",
      "locked": "2026-11-25T12:00:00Z",
      "platforms": {
        "linux/amd64": "` + digest.FromString("a").String() + `",
        "linux/arm64": "` + digest.FromString("b").String() + `"
      }
    }
  }
}
`
	if string(text) != want {
		t.Errorf("%s", text)
	}
	again, err := Read(path)
	if err != nil {
		t.Fatal(err)
	}
	if changed, err := again.Write(); err != nil || changed {
		t.Errorf("what was read and not changed is written: %v %v", changed, err)
	}
}

func TestWriteKeepsModeAndLink(t *testing.T) {
	dir := t.TempDir()
	real, link := filepath.Join(dir, "real"), filepath.Join(dir, Name)
	if err := os.WriteFile(real, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("real", link); err != nil {
		t.Fatal(err)
	}
	if _, err := sample(link).Write(); err != nil {
		t.Fatal(err)
	}
	st, err := os.Lstat(real)
	if err != nil || st.Mode() != 0o600 || st.Size() < 100 {
		t.Errorf("%v %v", st, err)
	}
	if l, err := os.Readlink(link); err != nil || l != "real" {
		t.Error(l, err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".*")); len(left) > 0 {
		t.Error(left)
	}
}

func TestBadFiles(t *testing.T) {
	sum := digest.FromString("x").String()
	for text, want := range map[string]string{
		"":                             "unexpected end",
		"<<<<<<< HEAD":                 "line 1:",
		"{\n\n\"version\": 1,}":        "line 3:",
		`{"images": {}}`:               "no lock file of wherry",
		`{"version": 2}`:               "use a newer one",
		`{"version": 1, "version": 1}`: "twice",
		`{"version": 1, "images": {"a": {"digest": "` + sum + `"},` + "\n" + `"a": {"digest": "` + sum + `"}}}`: `line 2: "a" stands there twice`,
		`{"version": 1, "images": {"a": {"digest": "sha256:12"}}}`:                                              `image "a" has no digest`,
		`{"version": 1, "images": {"a": {"digest": "` + sum + `", "platforms": {"linux/amd64": "x"}}}}`:         "no digest for linux/amd64",
		`{"version": 1, "files": [["a", "a"]]}`:                                                                 "cannot unmarshal",
		`{"version": 1, "x": ` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`:                      "too deep",
	} {
		path := filepath.Join(t.TempDir(), Name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := Read(path); err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), path) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestFind(t *testing.T) {
	top := t.TempDir()
	deep := filepath.Join(top, "open", "a", "b")
	if err := os.MkdirAll(deep, 0o755); err != nil {
		t.Fatal(err)
	}
	find := func(want string) {
		t.Helper()
		if got, err := Find(deep); err != nil || got != want {
			t.Errorf("%s %v, not %s", got, err, want)
		}
	}
	touch := func(dir string) string {
		path := filepath.Join(dir, Name)
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	high := touch(top)
	find(high)
	open := filepath.Join(top, "open")
	touch(open)
	if err := os.Chmod(open, 0o1777); err != nil {
		t.Fatal(err)
	}
	find(high) // what anybody may have put there is not taken
	find2 := touch(filepath.Join(open, "a"))
	find(find2)
	if err := os.Chmod(deep, 0o777); err != nil {
		t.Fatal(err)
	}
	find(touch(deep)) // where one works oneself
}

func FuzzParse(f *testing.F) {
	text, _ := sample(Name).Bytes()
	f.Add(string(text))
	f.Add(`{"version":1,"images":{"a":{},"a":{}}}`)
	f.Fuzz(func(t *testing.T, text string) {
		l, err := parse([]byte(text))
		if err != nil {
			return
		}
		once, err := l.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		again, err := parse(once)
		if err != nil {
			t.Fatalf("%s: %v", once, err)
		}
		if twice, _ := again.Bytes(); string(twice) != string(once) {
			t.Errorf("%s\n%s", once, twice)
		}
	})
}
