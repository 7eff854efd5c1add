package secret

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"wherry.dev/wherry/internal/event"
)

func open(t *testing.T, dir string, kind Kind) (*Service, *[]error) {
	t.Helper()
	var told []error
	s, err := Open(dir, kind, event.New(), func(err error) { told = append(told, err) })
	if err != nil {
		t.Fatal(err)
	}
	return s, &told
}

func TestSecretsAreKept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "secrets")
	s, _ := open(t, dir, Secret)
	value := []byte("the value\x00\xff")
	id, err := s.Create(t.Context(), CreateOptions{Name: "one", Labels: map[string]string{"a": "b"}}, bytes.NewReader(value))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Create(t.Context(), CreateOptions{Name: "one"}, strings.NewReader("x")); !errdefs.IsAlreadyExists(err) {
		t.Errorf("a second of the name: %v", err)
	}
	for name, want := range map[string]os.FileMode{"": 0o700, id + ".data": 0o600, id + ".json": 0o600} {
		if st, err := os.Stat(filepath.Join(dir, name)); err != nil || st.Mode().Perm() != want {
			t.Errorf("%q: %v %v, want %v", name, st.Mode(), err, want)
		}
	}
	s, _ = open(t, dir, Secret) // another life
	for _, name := range []string{"one", id, id[:5]} {
		i, err := s.Inspect(name)
		if err != nil || i.ID != id || i.Spec.Labels["a"] != "b" || i.Spec.Data != nil {
			t.Errorf("%s: %+v %v", name, i, err)
		}
	}
	if got, err := s.Value(id); err != nil || !bytes.Equal(got, value) {
		t.Errorf("value %q %v", got, err)
	}
	again, err := s.Create(t.Context(), CreateOptions{Name: "one", Replace: true}, strings.NewReader("new"))
	if got, _ := s.Value(id); err != nil || again != id || string(got) != "new" {
		t.Errorf("replaced: %s %v %q", again, err, got)
	}
	if _, err := s.Acquire("one", "c1"); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove("one"); !errdefs.IsConflict(err) || !strings.Contains(err.Error(), "c1") {
		t.Errorf("removed while in use: %v", err)
	}
	s.Release("c1")
	if err := s.Remove(id); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	if _, err := s.Inspect("one"); !errdefs.IsNotFound(err) {
		t.Errorf("removed: %v", err)
	}
}

func TestConfigsMayBeReadAgain(t *testing.T) {
	s, _ := open(t, filepath.Join(t.TempDir(), "configs"), Config)
	if _, err := s.Create(t.Context(), CreateOptions{Name: "c"}, strings.NewReader("text")); err != nil {
		t.Fatal(err)
	}
	if i, err := s.Inspect("c"); err != nil || string(i.Spec.Data) != "text" {
		t.Errorf("%+v %v", i, err)
	}
}

func TestWhatIsRefused(t *testing.T) {
	s, _ := open(t, filepath.Join(t.TempDir(), "secrets"), Secret)
	for _, name := range []string{"", "a/b", "../x", ".x", "a,b", "a=b", "a b", strings.Repeat("x", 254)} {
		if _, err := s.Create(t.Context(), CreateOptions{Name: name}, strings.NewReader("v")); !errdefs.IsInvalidArgument(err) {
			t.Errorf("name %q: %v", name, err)
		}
	}
	const value = "the-value-that-no-error-names"
	for _, v := range []string{"", strings.Repeat(value, Largest/len(value)+1)} {
		_, err := s.Create(t.Context(), CreateOptions{Name: "x"}, strings.NewReader(v))
		if !errdefs.IsInvalidArgument(err) || strings.Contains(err.Error(), value) {
			t.Errorf("%d bytes: %v", len(v), err)
		}
	}
	if _, err := s.List(map[string]map[string]bool{"colour": {"red": true}}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("an unknown filter: %v", err)
	}
}

// TestWhatAKilledEngineLeft: a value without its other half goes, a half that cannot be read is told and stays.
func TestWhatAKilledEngineLeft(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "secrets")
	s, _ := open(t, dir, Secret)
	id, err := s.Create(t.Context(), CreateOptions{Name: "whole"}, strings.NewReader("v"))
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"half.data": "v", ".new-1": "v", "damaged.json": "{", "damaged.data": "v"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s, told := open(t, dir, Secret)
	if len(*told) != 1 || !strings.Contains((*told)[0].Error(), "damaged.json") {
		t.Errorf("told: %v", *told)
	}
	list, err := s.List(nil)
	if err != nil || len(list) != 1 || list[0].ID != id {
		t.Errorf("%+v %v", list, err)
	}
	left, _ := filepath.Glob(filepath.Join(dir, "*"))
	hidden, _ := filepath.Glob(filepath.Join(dir, ".*"))
	if len(left) != 4 || len(hidden) != 0 {
		t.Errorf("left: %v %v", left, hidden)
	}
}

func TestFilters(t *testing.T) {
	s, _ := open(t, filepath.Join(t.TempDir(), "secrets"), Secret)
	for name, labels := range map[string]map[string]string{"web-key": {"tier": "web"}, "web-cert": {"tier": "web", "public": ""}, "db": nil} {
		if _, err := s.Create(t.Context(), CreateOptions{Name: name, Labels: labels}, strings.NewReader("v")); err != nil {
			t.Fatal(err)
		}
	}
	for _, row := range []struct{ filter, value, want string }{
		{"name", "web", "web-cert web-key"}, {"name", "db", "db"}, {"name", "none", ""}, {"label", "tier=web", "web-cert web-key"},
		{"label", "public", "web-cert"}, {"label", "tier=db", ""},
	} {
		list, err := s.List(map[string]map[string]bool{row.filter: {row.value: true}})
		var names []string
		for _, i := range list {
			names = append(names, i.Spec.Name)
		}
		if got := strings.Join(names, " "); err != nil || got != row.want {
			t.Errorf("%s=%s: %q %v, want %q", row.filter, row.value, got, err, row.want)
		}
	}
}
