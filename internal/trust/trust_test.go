package trust

import (
	"os"
	"path/filepath"
	"testing"
)

// A link that leads nowhere is a policy that cannot be read, and is seen as soon as it is there.
func TestPolicyByLink(t *testing.T) {
	dir := t.TempDir()
	path, target := filepath.Join(dir, "policy.toml"), filepath.Join(dir, "other.toml")
	c := New(Options{})
	c.places = []string{path}
	if p, err := c.Policy(); p != nil || err != nil {
		t.Fatalf("there is no policy: %+v %v", p, err)
	}
	if err := os.Symlink("other.toml", path); err != nil {
		t.Fatal(err)
	}
	if p, err := c.Policy(); err == nil {
		t.Errorf("a link that leads nowhere is taken for %+v", p)
	}
	for _, action := range []string{"reject", "accept"} {
		if err := os.WriteFile(target+".new", []byte("default = \""+action+"\""), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(target+".new", target); err != nil {
			t.Fatal(err)
		}
		if p, err := c.Policy(); err != nil || string(p.Default.Action) != action {
			t.Errorf("%+v %v", p, err)
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if p, err := c.Policy(); p != nil || err != nil {
		t.Errorf("there is no policy any more: %+v %v", p, err)
	}
}
