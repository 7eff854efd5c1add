package volume

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/volume"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/event"
)

func open(t *testing.T, root string) *Service {
	t.Helper()
	s, err := Open(Options{Root: root, Events: event.New()})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func create(t *testing.T, s *Service, r volume.CreateRequest) *volume.Volume {
	t.Helper()
	v, err := s.Create(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func names(t *testing.T, s *Service, filters map[string]map[string]bool) []string {
	t.Helper()
	list, err := s.List(t.Context(), filters)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, v := range list {
		out = append(out, v.Name)
	}
	return out
}

// ownMounts gives the test's thread a mount namespace, which ends with the test.
func ownMounts(t *testing.T) {
	t.Helper()
	runtime.LockOSThread() // never unlocked: the thread ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
}

func TestVolumesOutliveTheService(t *testing.T) {
	root := filepath.Join(t.TempDir(), "volumes")
	s := open(t, root)
	made := create(t, s, volume.CreateRequest{Name: "data", Labels: map[string]string{"a": "b"}, Driver: "local"})
	if made.Mountpoint != filepath.Join(root, "data/_data") || made.Scope != "local" || made.Driver != "local" {
		t.Errorf("made %+v", made)
	}
	if st, err := os.Stat(made.Mountpoint); err != nil || st.Mode().Perm() != 0o755 {
		t.Errorf("the folder: %v, %v", st, err)
	}
	if err := os.WriteFile(filepath.Join(made.Mountpoint, "f"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	again := create(t, s, volume.CreateRequest{Name: "data", Labels: map[string]string{"other": ""}})
	if again.CreatedAt != made.CreatedAt || again.Labels["a"] != "b" {
		t.Errorf("a second creation gave %+v", again)
	}
	other := volume.CreateRequest{Name: "data", DriverOpts: map[string]string{"type": "tmpfs", "device": "tmpfs"}}
	if _, err := s.Create(t.Context(), other); !errdefs.IsConflict(err) {
		t.Errorf("the same name with other options: %v", err)
	}
	s = open(t, root)
	v, err := s.Inspect(t.Context(), "data")
	if err != nil || v.Labels["a"] != "b" || v.CreatedAt != made.CreatedAt {
		t.Errorf("after reopening: %+v, %v", v, err)
	}
	if err := s.Remove(t.Context(), "data", false); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(root); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if err := s.Remove(t.Context(), "data", false); !errdefs.IsNotFound(err) || !strings.Contains(err.Error(), "no such volume") {
		t.Errorf("removing it twice: %v", err)
	}
	if err := s.Remove(t.Context(), "data", true); err != nil {
		t.Errorf("removing it by force: %v", err)
	}
}

func TestWhatCannotBeCreated(t *testing.T) {
	s := open(t, t.TempDir())
	long := strings.Repeat("x", 256)
	for _, row := range []struct {
		name, text string
		r          volume.CreateRequest
		is         func(error) bool
	}{
		{"one character", "too short", volume.CreateRequest{Name: "x"}, errdefs.IsInvalidArgument},
		{"long", "255", volume.CreateRequest{Name: long}, errdefs.IsInvalidArgument},
		{"slash", "invalid characters", volume.CreateRequest{Name: "a/b"}, errdefs.IsInvalidArgument},
		{"dots", "invalid characters", volume.CreateRequest{Name: ".."}, errdefs.IsInvalidArgument},
		{"scratch name", "invalid characters", volume.CreateRequest{Name: ".new"}, errdefs.IsInvalidArgument},
		{"newline", "invalid characters", volume.CreateRequest{Name: "ab\n"}, errdefs.IsInvalidArgument},
		{"driver", "plugin", volume.CreateRequest{Name: "ab", Driver: "rexray"}, errdefs.IsNotFound},
		{"option", `invalid option: "foo"`, volume.CreateRequest{Name: "ab", DriverOpts: map[string]string{"foo": "1"}}, errdefs.IsInvalidArgument},
		{"no device", `missing required option: "device"`, volume.CreateRequest{Name: "ab", DriverOpts: map[string]string{"type": "tmpfs"}}, errdefs.IsInvalidArgument},
		{"no type", `missing required option: "type"`, volume.CreateRequest{Name: "ab", DriverOpts: map[string]string{"device": "tmpfs"}}, errdefs.IsInvalidArgument},
		{"quota", "quota", volume.CreateRequest{Name: "ab", DriverOpts: map[string]string{"size": "1g"}}, errdefs.IsInvalidArgument},
		{"relative bind", "absolute", volume.CreateRequest{Name: "ab", DriverOpts: map[string]string{"type": "none", "device": "x", "o": "bind"}}, errdefs.IsInvalidArgument},
		{"nothing to mount", "o=bind", volume.CreateRequest{Name: "ab", DriverOpts: map[string]string{"type": "none", "device": "/x"}}, errdefs.IsInvalidArgument},
		{"remount", "remount", volume.CreateRequest{Name: "ab", DriverOpts: map[string]string{"type": "tmpfs", "device": "x", "o": "remount"}}, errdefs.IsInvalidArgument},
	} {
		if _, err := s.Create(t.Context(), row.r); !row.is(err) || !strings.Contains(err.Error(), row.text) {
			t.Errorf("%s: %v", row.name, err)
		}
	}
	if left, _ := os.ReadDir(s.root); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	create(t, s, volume.CreateRequest{Name: strings.Repeat("y", 255)})
}

func TestVolumesInUseStay(t *testing.T) {
	s := open(t, t.TempDir())
	dir, fresh, err := s.Acquire(t.Context(), "made", "container1")
	if err != nil || !fresh || dir != s.data("made") {
		t.Fatalf("Acquire: %s, %v, %v", dir, fresh, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "f"), []byte("some text"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, fresh, err = s.Acquire(t.Context(), "made", "container2"); err != nil || fresh {
		t.Fatalf("second Acquire: fresh %v, %v", fresh, err)
	}
	err = s.Remove(t.Context(), "made", true)
	if !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "volume is in use - [container1, container2]") {
		t.Errorf("removal in use: %v", err)
	}
	s.Release(t.Context(), "made", "container1")
	s.Release(t.Context(), "made", "container1")
	usage, err := s.Usage(t.Context())
	if err != nil || len(usage) != 1 || usage[0].UsageData.RefCount != 1 || usage[0].UsageData.Size < 9 {
		t.Errorf("usage %+v, %v", usage, err)
	}
	if err := s.Remove(t.Context(), "made", false); err == nil {
		t.Error("removed while the second container has it")
	}
	s.Release(t.Context(), "made", "container2")
	s.Release(t.Context(), "unknown", "container2")
	if err := s.Remove(t.Context(), "made", false); err != nil {
		t.Error(err)
	}
}

func TestFilters(t *testing.T) {
	s := open(t, t.TempDir())
	create(t, s, volume.CreateRequest{Name: "alpha", Labels: map[string]string{"env": "prod", "x": ""}})
	create(t, s, volume.CreateRequest{Name: "beta", Labels: map[string]string{"env": "test"}})
	if _, _, err := s.Acquire(t.Context(), "gamma", "c"); err != nil {
		t.Fatal(err)
	}
	type f = map[string]map[string]bool
	for _, row := range []struct {
		filters f
		want    []string
	}{
		{nil, []string{"alpha", "beta", "gamma"}},
		{f{"name": {"a": true}}, []string{"alpha", "beta", "gamma"}},
		{f{"name": {"et": true, "gam": true}}, []string{"beta", "gamma"}},
		{f{"name": {"^beta$": true, "^alph$": true}}, []string{"beta"}},
		{f{"label": {"env": true}}, []string{"alpha", "beta"}},
		{f{"label": {"env=prod": true, "x": true}}, []string{"alpha"}},
		{f{"label": {"env": true, "y": true}}, nil},
		{f{"driver": {"local": true}}, []string{"alpha", "beta", "gamma"}},
		{f{"driver": {"other": true}}, nil},
		{f{"dangling": {"true": true}}, []string{"alpha", "beta"}},
		{f{"dangling": {"0": true}}, []string{"gamma"}},
	} {
		if got := names(t, s, row.filters); !slices.Equal(got, row.want) {
			t.Errorf("%v: %v, want %v", row.filters, got, row.want)
		}
	}
	for _, bad := range []f{{"foo": {"1": true}}, {"dangling": {"maybe": true}}, {"name": {"[": true}}, {"all": {"1": true}}} {
		if _, err := s.List(t.Context(), bad); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%v: %v", bad, err)
		}
	}
}

func TestPrune(t *testing.T) {
	s := open(t, t.TempDir())
	anonymous := create(t, s, volume.CreateRequest{})
	if len(anonymous.Name) != 64 {
		t.Errorf("anonymous volume %q", anonymous.Name)
	}
	if err := os.WriteFile(filepath.Join(anonymous.Mountpoint, "f"), make([]byte, 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	create(t, s, volume.CreateRequest{Name: "named"})
	create(t, s, volume.CreateRequest{Name: "kept", Labels: map[string]string{"keep": ""}})
	create(t, s, volume.CreateRequest{Name: "elsewhere", DriverOpts: map[string]string{"type": "tmpfs", "device": "tmpfs"}}) // what options mount stays
	used := create(t, s, volume.CreateRequest{})
	if _, _, err := s.Acquire(t.Context(), used.Name, "c"); err != nil {
		t.Fatal(err)
	}
	report, err := s.Prune(t.Context(), nil)
	if err != nil || !slices.Equal(report.VolumesDeleted, []string{anonymous.Name}) || report.SpaceReclaimed < 1000 {
		t.Errorf("prune: %+v, %v", report, err)
	}
	report, err = s.Prune(t.Context(), map[string]map[string]bool{"all": {"true": true}, "label!": {"keep": true}})
	if err != nil || !slices.Equal(report.VolumesDeleted, []string{"named"}) {
		t.Errorf("prune of all: %+v, %v", report, err)
	}
	if got := names(t, s, nil); len(got) != 3 || !slices.Contains(got, "elsewhere") {
		t.Errorf("left: %v", got)
	}
}

func TestDamagedVolumesAreNamedAndKept(t *testing.T) {
	root := t.TempDir()
	s := open(t, root)
	for _, name := range []string{"whole", "cut", "lost", "other"} {
		v := create(t, s, volume.CreateRequest{Name: name})
		if err := os.WriteFile(filepath.Join(v.Mountpoint, "precious"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "cut/opts.json"), []byte(`{"Name":"cu`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(root, "lost/opts.json")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "other/opts.json"), []byte(`{"Name":"whole"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, half := range []string{".new", ".gone-0102"} {
		if err := os.MkdirAll(filepath.Join(root, half, "_data"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	var said []error
	s, err := Open(Options{Root: root, Events: event.New(), Log: func(err error) { said = append(said, err) }})
	if err != nil {
		t.Fatal(err)
	}
	if got := names(t, s, nil); !slices.Equal(got, []string{"cut", "lost", "other", "whole"}) {
		t.Errorf("listed: %v", got)
	}
	if len(said) != 3 {
		t.Errorf("told: %v", said)
	}
	if _, _, err := s.Acquire(t.Context(), "cut", "c"); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("a container would have begun with %v", err)
	}
	v, err := s.Inspect(t.Context(), "lost")
	if err != nil || !strings.Contains(v.Status["Error"].(string), "damaged") {
		t.Errorf("inspect: %+v, %v", v, err)
	}
	if _, err := s.Prune(t.Context(), map[string]map[string]bool{"all": {"1": true}}); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(root, "cut/_data/precious")); err != nil {
		t.Errorf("prune took what it cannot read: %v", err)
	}
	if err := s.Remove(t.Context(), "cut", false); err != nil {
		t.Error(err)
	}
	for _, half := range []string{".new", ".gone-0102", "cut"} {
		if _, err := os.Stat(filepath.Join(root, half)); !os.IsNotExist(err) {
			t.Errorf("%s is still there", half)
		}
	}
}

func TestEvents(t *testing.T) {
	bus := event.New()
	s, err := Open(Options{Root: t.TempDir(), Events: bus})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Acquire(t.Context(), "vol", "c"); err != nil {
		t.Fatal(err)
	}
	s.Tell(events.ActionMount, "vol", map[string]string{"container": "c"})
	s.Tell(events.ActionMount, "other", map[string]string{"container": "c"}) // which is not there
	s.Release(t.Context(), "vol", "c")
	if err := s.Remove(t.Context(), "vol", false); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Prune(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	var got []string
	err = bus.Subscribe(context.WithoutCancel(t.Context()), time.Unix(1, 0), time.Now(), func(m events.Message) error {
		got = append(got, string(m.Type)+" "+string(m.Action)+" "+m.Actor.ID+" "+m.Actor.Attributes["container"]+m.Actor.Attributes["reclaimed"])
		return nil
	})
	want := []string{"volume create vol ", "volume mount vol c", "volume destroy vol ", "volume prune  0"}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("events %q, %v", got, err)
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
	if left, _ := os.ReadDir(s.root); len(left) > 1 {
		t.Errorf("left: %v", left)
	}
}

// TestVolumeWithoutItsFolder: what somebody has deleted behind the engine's back can be removed, and made again; it keeps no prune from the others.
func TestVolumeWithoutItsFolder(t *testing.T) {
	root := t.TempDir()
	s, err := Open(Options{Root: root, Events: event.New()})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"one", "two"} {
		if _, err := s.Create(t.Context(), volume.CreateRequest{Name: name}); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.RemoveAll(filepath.Join(root, "one")); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(t.Context(), "one", false); err != nil {
		t.Error(err)
	}
	if _, err := s.Create(t.Context(), volume.CreateRequest{Name: "one"}); err != nil {
		t.Error(err)
	}
	if err := os.RemoveAll(filepath.Join(root, "one")); err != nil {
		t.Fatal(err)
	}
	report, err := s.Prune(t.Context(), map[string]map[string]bool{"all": {"true": true}})
	if err != nil || len(report.VolumesDeleted) != 2 {
		t.Errorf("%+v %v", report, err)
	}
}
