package login

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/registry"
)

func writeFile(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

func TestServerKeys(t *testing.T) {
	for server, want := range map[string]string{
		"docker.io": HubAddress, "index.docker.io": HubAddress, "https://index.docker.io/v1/": HubAddress, "registry-1.docker.io": HubAddress,
		"localhost:5000": "localhost:5000", "http://localhost:5000/v2/": "localhost:5000", "https://r.example/": "r.example", "[::1]:5000": "[::1]:5000",
		"evil.example/docker.io": "evil.example", "docker.io.evil.example": "docker.io.evil.example",
	} {
		if got := ServerKey(server); got != want {
			t.Errorf("%s: %s, want %s", server, got, want)
		}
	}
}

func TestConfigCredentials(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "config.json"), `{
		"auths": {
			"https://index.docker.io/v1/": {"auth": "aHViOnM6M2NyZXQ="},
			"https://old.example/v1/": {"auth": "b2xkOnB3"},
			"plain.example:5000": {"username": "u", "password": "p"},
			"token.example": {"auth": "dTo=", "identitytoken": "tok"},
			"bad.example": {"auth": "%%%"}
		},
		"HttpHeaders": {"X": "y"}
	}`, 0o600)
	c, err := Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	for server, want := range map[string]*registry.AuthConfig{
		"docker.io":           {Username: "hub", Password: "s:3cret", ServerAddress: HubAddress},
		"old.example":         {Username: "old", Password: "pw", ServerAddress: "old.example"},
		"plain.example:5000":  {Username: "u", Password: "p", ServerAddress: "plain.example:5000"},
		"plain.example":       nil, // another port is another server
		"plain.example:5001":  nil,
		"token.example":       {Username: "u", IdentityToken: "tok", ServerAddress: "token.example"},
		"other.old.example":   nil,
		"old.example.evil.io": nil,
	} {
		got, err := c.Credentials(ServerKey(server))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v %v, want %+v", server, got, err, want)
		}
	}
	if _, err := c.Credentials("bad.example"); err == nil || !strings.Contains(err.Error(), "wherry login bad.example") {
		t.Errorf("a damaged login: %v", err)
	}
}

func TestConfigIsKeptWhole(t *testing.T) {
	dir, elsewhere := t.TempDir(), t.TempDir()
	real := filepath.Join(elsewhere, "docker.json")
	writeFile(t, real, `{"auths":{"http://r.example/v1/":{"auth":"b2xkOnB3"}},"psFormat":"table {{.ID}}","plugins":{"x":{"y":"z"}}}`, 0o644)
	if err := os.Symlink(real, filepath.Join(dir, "config.json")); err != nil {
		t.Fatal(err)
	}
	c, err := Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := c.Keep(registry.AuthConfig{Username: "u", Password: "p", ServerAddress: "r.example"})
	if err != nil || !plain {
		t.Fatal(plain, err)
	}
	st, err := os.Stat(real)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v %v", st.Mode(), err)
	}
	if _, err := os.Readlink(filepath.Join(dir, "config.json")); err != nil {
		t.Error("the link is gone")
	}
	var got map[string]any
	data, _ := os.ReadFile(real)
	if err := json.Unmarshal(data, &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"auths": map[string]any{"r.example": map[string]any{"auth": "dTpw"}}, "psFormat": "table {{.ID}}",
		"plugins": map[string]any{"x": map[string]any{"y": "z"}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	for _, d := range []string{dir, elsewhere} {
		if entries, _ := os.ReadDir(d); len(entries) != 1 {
			t.Errorf("left in %s: %v", d, entries)
		}
	}
	if known, err := c.Forget("r.example"); !known || err != nil {
		t.Error(known, err)
	}
	if known, err := c.Forget("r.example"); known || err != nil {
		t.Error(known, err)
	}
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
		c, err := Read(dir)
		if err != nil || c.credsStore != "" || len(c.credHelpers) > 0 {
			return // helpers are programs: nothing that a fuzzer may choose
		}
		_, _ = c.Credentials("r.example")
		if err := c.set("r.example", authEntry{Auth: "dTpw"}); err != nil {
			t.Fatal(err)
		}
		c, err = Read(dir)
		if err != nil {
			data, _ := os.ReadFile(path)
			t.Fatalf("%v: %s", err, data)
		}
		a, err := c.Credentials("r.example")
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
