package ref

import (
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

const sum = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

func TestParse(t *testing.T) {
	rows := []struct{ in, full, familiar string }{
		{"debian", "docker.io/library/debian:latest", "debian:latest"},
		{"debian:12", "docker.io/library/debian:12", "debian:12"},
		{"team/app", "docker.io/team/app:latest", "team/app:latest"},
		{"localhost/app:1", "localhost/app:1", "localhost/app:1"},
		{"127.0.0.1:5000/a/b/c:x", "127.0.0.1:5000/a/b/c:x", "127.0.0.1:5000/a/b/c:x"},
		{"ghcr.io/a/b@" + sum, "ghcr.io/a/b@" + sum, "ghcr.io/a/b@" + sum},
		{"a:tag@" + sum, "docker.io/library/a@" + sum, "a@" + sum},
		{"index.docker.io/library/a", "docker.io/library/a:latest", "a:latest"},
	}
	for _, row := range rows {
		r, err := Parse(row.in)
		if err != nil || r.String() != row.full || r.Familiar() != row.familiar {
			t.Errorf("%s: %v %s %s", row.in, err, r, r.Familiar())
		}
	}
}

func TestMalformedReferencesGetAdvice(t *testing.T) {
	rows := map[string]string{"Debian": `"debian"`, "https://a/b": `"a/b"`, "a:": `"a"`, "a//b": `"a/b"`, "": "name is needed", "a@md5:1": "sha256", " a": `"a"`}
	for in, want := range rows {
		if _, err := Parse(in); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v has no %s", in, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("docker.io/library/a:b@" + sum)
	f.Fuzz(func(t *testing.T, s string) {
		r, err := Parse(s)
		if err != nil {
			return
		}
		again, err := Parse(r.String())
		if err != nil || again.String() != r.String() {
			t.Fatalf("%q → %q → %q, %v", s, r, again, err)
		}
	})
}
