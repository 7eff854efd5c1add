package cli

import (
	"strings"
	"testing"

	"wherry.dev/wherry/internal/ref"
)

// FuzzNames: what the engine takes for a reference, the command line takes apart in the same way.
func FuzzNames(f *testing.F) {
	for _, s := range []string{"busybox", "a/b:c", "localhost/a", "localhost:5000/a/b@sha256:" + strings.Repeat("a", 64), "r.example/a:v", "docker.io/x", "index.docker.io/a/b", "[::1]:5000/a", "UP.example/x", "a:b:c", "/", ":@"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n := splitName(s)
		_ = repository(s)
		r, err := ref.Parse(s)
		if err != nil {
			return
		}
		if n.registry != r.Domain || n.path != r.Path || n.digest != r.Digest.String() || n.tag != "" && n.tag != r.Tag {
			t.Errorf("%q: %+v, the engine says %+v", s, n, r)
		}
		if again, err := ref.Parse(n.String()); err != nil || again != r {
			t.Errorf("%q is written as %q: %+v %v", s, n, again, err)
		}
		if again, err := ref.Parse(repository(s)); err != nil || again.Name() != r.Name() {
			t.Errorf("%q has the repository %q: %v", s, repository(s), err)
		}
	})
}
