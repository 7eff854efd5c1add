package volume

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/volume"

	"wherry.dev/wherry/internal/event"
)

func open(t *testing.T, root string) *Service {
	t.Helper()
	s, err := Open(root, event.New(), func(err error) { t.Log(err) })
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestVolumeOutlivesTheEngine(t *testing.T) {
	root := t.TempDir()
	s := open(t, root)
	made, err := s.Create(t.Context(), volume.CreateRequest{Name: "data", Labels: map[string]string{"a": "b"}})
	if err != nil || made.Name != "data" || made.Driver != "local" || made.Scope != "local" || made.Labels["a"] != "b" {
		t.Fatalf("%+v %v", made, err)
	}
	dir, fresh, err := s.Acquire(t.Context(), "data", "c1")
	if err != nil || !fresh || dir != made.Mountpoint {
		t.Fatalf("%s %v %v", dir, fresh, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	s = open(t, root)
	got, err := s.Inspect(t.Context(), "data")
	if err != nil || got.Labels["a"] != "b" || got.CreatedAt != made.CreatedAt {
		t.Fatalf("%+v %v, want %+v", got, err, made)
	}
	if _, fresh, err := s.Acquire(t.Context(), "data", "c1"); fresh || err != nil {
		t.Errorf("a volume with a file is fresh: %v %v", fresh, err)
	}
}

func TestUseProtects(t *testing.T) {
	s := open(t, t.TempDir())
	dir, _, err := s.Acquire(t.Context(), "used", "container-1") // made on demand
	if err != nil {
		t.Fatal(err)
	}
	err = s.Remove(t.Context(), "used", true)
	if !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "container-1") {
		t.Errorf("remove of a used volume: %v", err)
	}
	s.Release(t.Context(), "used", "container-1")
	s.Release(t.Context(), "used", "never-there")
	s.Release(t.Context(), "no-such", "container-1")
	if err := s.Remove(t.Context(), "used", false); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Dir(dir)); !os.IsNotExist(err) {
		t.Errorf("the folder stays: %v", err)
	}
	if err := s.Remove(t.Context(), "used", false); !errdefs.IsNotFound(err) {
		t.Errorf("remove again: %v", err)
	}
	if err := s.Remove(t.Context(), "used", true); err != nil {
		t.Errorf("remove again by force: %v", err)
	}
}

func TestNamesAndOptions(t *testing.T) {
	s := open(t, t.TempDir())
	for _, r := range []volume.CreateRequest{
		{Name: "../x"}, {Name: "a"}, {Name: ".x"}, {Name: "a/b"}, {Name: strings.Repeat("x", 256)},
		{Name: "ok", DriverOpts: map[string]string{"size": "1"}},
		{Name: "ok", DriverOpts: map[string]string{"o": "ro"}},
		{Name: "ok", DriverOpts: map[string]string{"type": "tmpfs"}},
		{Name: "ok", DriverOpts: map[string]string{"device": "/x"}},
	} {
		if v, err := s.Create(t.Context(), r); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%+v: %+v %v", r, v, err)
		}
	}
	if _, err := s.Create(t.Context(), volume.CreateRequest{Name: "ok", Driver: "nfs"}); !errdefs.IsNotFound(err) {
		t.Errorf("an unknown driver: %v", err)
	}
	if list, _ := s.List(t.Context(), nil); len(list) != 0 {
		t.Errorf("refused volumes are listed: %v", list)
	}
	a, err := s.Create(t.Context(), volume.CreateRequest{})
	if _, anonymous := a.Labels[anonymousLabel]; err != nil || len(a.Name) != 64 || !anonymous {
		t.Errorf("%+v %v", a, err)
	}
}

func TestFiltersAndPrune(t *testing.T) {
	s := open(t, t.TempDir())
	for _, r := range []volume.CreateRequest{{Name: "one", Labels: map[string]string{"k": "v"}}, {Name: "two"}, {Name: "three"}, {}} {
		if _, err := s.Create(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := s.Acquire(t.Context(), "two", "c"); err != nil {
		t.Fatal(err)
	}
	rows := []struct {
		filters string
		want    int
	}{{"", 4}, {"name=tw", 1}, {"label=k", 1}, {"label=k=v", 1}, {"label=k=w", 0}, {"dangling=true", 3}, {"dangling=false", 1}, {"driver=local", 4}, {"driver=x", 0}}
	for _, row := range rows {
		filters := map[string]map[string]bool{}
		if key, value, ok := strings.Cut(row.filters, "="); ok {
			filters[key] = map[string]bool{value: true}
		}
		if list, err := s.List(t.Context(), filters); err != nil || len(list) != row.want {
			t.Errorf("%s: %d, %v; want %d", row.filters, len(list), err, row.want)
		}
	}
	if _, err := s.List(t.Context(), map[string]map[string]bool{"colour": {"red": true}}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("an unknown filter: %v", err)
	}
	report, err := s.Prune(t.Context(), nil)
	if err != nil || len(report.VolumesDeleted) != 1 || len(report.VolumesDeleted[0]) != 64 {
		t.Errorf("prune takes anonymous volumes: %+v %v", report, err)
	}
	report, err = s.Prune(t.Context(), map[string]map[string]bool{"all": {"true": true}, "label!": {"k=v": true}})
	if err != nil || strings.Join(report.VolumesDeleted, " ") != "three" {
		t.Errorf("prune of all without a label: %+v %v", report, err)
	}
}

// TestDamageIsNamed: no single damaged file stops the engine or hides data.
func TestDamageIsNamed(t *testing.T) {
	for name, content := range map[string]string{"zeroed": "", "truncated": `{"Name":"vol`, "another's": `{"Name":"other","Driver":"local"}`} {
		root := t.TempDir()
		s := open(t, root)
		dir, _, err := s.Acquire(t.Context(), "vol", "c")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "precious"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, "vol", optionsFile), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		os.MkdirAll(filepath.Join(root, "cut"+newSuffix, "_data"), 0o700)
		os.MkdirAll(filepath.Join(root, "gone"+removedSuffix, "_data"), 0o700)
		var said []error
		s, err = Open(root, event.New(), func(err error) { said = append(said, err) })
		if err != nil || len(said) != 1 || !strings.Contains(said[0].Error(), "volume vol") {
			t.Errorf("%s: %v, said %v", name, err, said)
			continue
		}
		if list, _ := s.List(t.Context(), nil); len(list) != 1 || list[0].Name != "vol" {
			t.Errorf("%s: %+v", name, list)
		}
		if _, err := os.Stat(filepath.Join(dir, "precious")); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestLocalDriverMounts: a tmpfs and a bind are mounted at first use and gone after the last.
func TestLocalDriverMounts(t *testing.T) {
	source := t.TempDir()
	os.WriteFile(filepath.Join(source, "here"), nil, 0o600)
	s := open(t, t.TempDir())
	for name, options := range map[string]map[string]string{
		"memory": {"type": "tmpfs", "device": "tmpfs", "o": "size=1m,nosuid"},
		"bound":  {"type": "none", "device": source, "o": "bind,ro"},
	} {
		if _, err := s.Create(t.Context(), volume.CreateRequest{Name: name, DriverOpts: options}); err != nil {
			t.Fatal(err)
		}
		var dir string
		for _, user := range []string{"c1", "c2"} {
			var err error
			if dir, _, err = s.Acquire(t.Context(), name, user); err != nil {
				t.Fatal(err)
			}
		}
		if !isMountpoint(dir) {
			t.Errorf("%s is not mounted", name)
		}
		if name == "bound" {
			if _, err := os.Stat(filepath.Join(dir, "here")); err != nil {
				t.Error(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "x"), nil, 0o600); err == nil {
				t.Error("a read-only bind can be written")
			}
		}
		s.Release(t.Context(), name, "c1")
		if !isMountpoint(dir) {
			t.Errorf("%s is unmounted while it is used", name)
		}
		s.Release(t.Context(), name, "c2")
		if isMountpoint(dir) {
			t.Errorf("%s stays mounted", name)
		}
		if err := s.Remove(t.Context(), name, false); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(filepath.Join(source, "here")); err != nil {
		t.Errorf("removing a volume removed what it was bound to: %v", err)
	}
}

// TestConcurrentUse: acquire, release and remove never disagree about who is there.
func TestConcurrentUse(t *testing.T) {
	s := open(t, t.TempDir())
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			user := fmt.Sprint("c", i)
			for range 20 {
				dir, _, err := s.Acquire(t.Context(), "shared", user)
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := os.Stat(dir); err != nil {
					t.Errorf("a volume in use is gone: %v", err)
				}
				s.Release(t.Context(), "shared", user)
				if err := s.Remove(t.Context(), "shared", true); err != nil && !errdefs.IsFailedPrecondition(err) {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if users := s.Users("shared"); len(users) != 0 {
		t.Errorf("left: %v", users)
	}
}
