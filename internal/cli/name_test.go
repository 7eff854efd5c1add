package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
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

// FuzzConfig: a config.json of whatever kind gives logins or an error, and what is written is read again.
func FuzzConfig(f *testing.F) {
	f.Add(`{"auths":{"r.example":{"auth":"dTpw"}},"x":[1]}`)
	f.Add(`{"auths":{"https://r.example/v1/":{"auth":"%"}},"credsStore":""}`)
	f.Add(`{"auths":null}`)
	f.Add(`[`)
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, text string) {
		path := filepath.Join(dir, "config.json")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := readConfig(dir)
		if err != nil || c.credsStore != "" || len(c.credHelpers) > 0 {
			return // helpers are programs: nothing that a fuzzer may choose
		}
		_, _ = c.credentials("r.example")
		if err := c.set("r.example", authEntry{Auth: "dTpw"}); err != nil {
			t.Fatal(err)
		}
		c, err = readConfig(dir)
		if err != nil {
			data, _ := os.ReadFile(path)
			t.Fatalf("%v: %s", err, data)
		}
		a, err := c.credentials("r.example")
		if err != nil || a == nil || a.Username != "u" || a.Password != "p" {
			t.Errorf("%+v %v", a, err)
		}
		var before, after map[string]json.RawMessage
		data, _ := os.ReadFile(path)
		if json.Unmarshal([]byte(text), &before) == nil && json.Unmarshal(data, &after) == nil {
			for name := range before {
				if _, ok := after[name]; !ok && name != "auths" {
					t.Errorf("field %q is lost", name)
				}
			}
		}
	})
}
