package image

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"
	"github.com/opencontainers/go-digest"

	"wherry.dev/wherry/internal/event"
	"wherry.dev/wherry/internal/settings"
)

// cleaner is one over a store of four images of a MiB each, made one after the other.
func cleaner(t *testing.T, set settings.CleanUp) (*Service, *Cleaner) {
	t.Helper()
	s := open(t)
	for _, name := range []string{"a", "b", "c", "team/d"} {
		_ = imported(t, s, name, file1("bin/a", strings.Repeat(name, 1<<20/len(name))))
	}
	return s, NewCleaner(s, set, slog.New(slog.DiscardHandler))
}

func marks(high, low int64) settings.CleanUp {
	return settings.CleanUp{Measure: "store", High: settings.Bytes(high), Low: settings.Bytes(low), Every: settings.Hour}
}

func here(t *testing.T, s *Service) string {
	t.Helper()
	list, err := s.List(t.Context(), ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, i := range list {
		names = append(names, i.RepoTags...)
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

func TestCleanUpBetweenMarks(t *testing.T) {
	s, c := cleaner(t, marks(5<<20, 3<<20))
	out, err := c.CleanUp(t.Context(), CleanUpOptions{})
	if err != nil || len(out.Removed) != 0 || out.Used < 4<<20 {
		t.Fatalf("below the high mark: %+v %v", out, err)
	}
	c.set = marks(4<<20, 5<<19)
	dry, err := c.CleanUp(t.Context(), CleanUpOptions{DryRun: true})
	if err != nil || len(dry.Removed) != 2 || dry.Freed < 2<<20 || here(t, s) != "a:latest b:latest c:latest team/d:latest" {
		t.Fatalf("a dry run: %+v %v; there is %s", dry, err, here(t, s))
	}
	out, err = c.CleanUp(t.Context(), CleanUpOptions{})
	if err != nil || len(out.Removed) != 2 || out.Removed[0].Names[0] != "a:latest" || here(t, s) != "c:latest team/d:latest" {
		t.Fatalf("%+v %v; there is %s", out, err, here(t, s))
	}
	after, err := s.taken(in(t.Context()))
	if err != nil || out.Freed != dry.Freed || out.Used-after != out.Freed {
		t.Errorf("%d freed, %d foreseen, %d in truth", out.Freed, dry.Freed, out.Used-after)
	}
}

func TestCleanUpKeepsWhatItShould(t *testing.T) {
	set := marks(1, 1)
	set.Keep = []string{"team/*"}
	s, c := cleaner(t, set)
	if err := Pin(t.Context(), s, "a", true); err != nil {
		t.Fatal(err)
	}
	b, err := s.Resolve(t.Context(), "b", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Acquire(t.Context(), b.ID, b.Manifest.Digest, "c1"); err != nil {
		t.Fatal(err)
	}
	out, err := c.CleanUp(t.Context(), CleanUpOptions{})
	if err != nil || here(t, s) != "a:latest b:latest team/d:latest" || out.Kept["pinned"] != 2 || out.Kept["used by containers"] != 1 {
		t.Fatalf("%+v %v; there is %s", out, err, here(t, s))
	}
	c.set.Keep, c.set.MinAge = nil, settings.Day
	if out, err = c.CleanUp(t.Context(), CleanUpOptions{}); err != nil || len(out.Removed) != 0 || out.Kept["used in the last 1d"] != 1 {
		t.Errorf("young ones: %+v %v", out, err)
	}
}

// TestLayersOfOthersAreNotCounted: an image that shares its layers frees only what it has alone, until the last one goes.
func TestSharedLayersFreeNothing(t *testing.T) {
	s, c := cleaner(t, marks(1, 1))
	a, err := s.Resolve(t.Context(), "a", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Commit(t.Context(), layer(t, file1("x", "y")), CommitOptions{Parent: a, Ref: "child", Config: a.Config.Config}); err != nil {
		t.Fatal(err)
	}
	out, err := c.CleanUp(t.Context(), CleanUpOptions{DryRun: true})
	if err != nil || len(out.Removed) != 5 {
		t.Fatalf("%+v %v", out, err)
	}
	for _, i := range out.Removed {
		if shared := i.Names[0] == "a:latest" || i.Names[0] == "child:latest"; !shared && i.Frees < 1<<20 {
			t.Errorf("%v frees %d", i.Names, i.Frees)
		}
	}
	if out.Freed != out.Used {
		t.Errorf("all images free %d of %d", out.Freed, out.Used)
	}
}

func TestPinsLast(t *testing.T) {
	root := filepath.Join(t.TempDir(), "root")
	s, err := Open(t.Context(), Options{Root: root, Events: event.New()})
	if err != nil {
		t.Fatal(err)
	}
	img := imported(t, s, "a", file1("a", "b"))
	for _, name := range []string{"a", img.ID.String()} {
		if err := Pin(t.Context(), s, name, true); err != nil {
			t.Fatal(err)
		}
	}
	if err := Pin(t.Context(), s, "nosuch", true); !errdefs.IsNotFound(err) {
		t.Errorf("an image that is not there: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	var said []string
	s = reopen(t, root, &said)
	if got := Pins(s); !slices.Equal(got, []string{"a:latest", img.ID.String()}) {
		t.Errorf("%v", got)
	}
	if r, err := s.Prune(t.Context(), map[string]map[string]bool{"dangling": {"false": true}}); err != nil || len(r.ImagesDeleted) != 0 {
		t.Errorf("pruned although pinned: %+v %v", r, err)
	}
	if err := Pin(t.Context(), s, "a", false); err != nil || len(Pins(s)) != 0 {
		t.Errorf("%v %v", Pins(s), err)
	}
	if err := Pin(t.Context(), s, "a", false); !errdefs.IsNotFound(err) {
		t.Errorf("unpinned twice: %v", err)
	}
	if err := Pin(t.Context(), s, "a", true); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Remove(t.Context(), "a", RemoveOptions{}); err != nil || len(Pins(s)) != 0 {
		t.Errorf("the pin outlives its image: %v %v", Pins(s), err)
	}
}

// TestUsesAreHeardOf: by events of containers and of images; they are written down, and a pull begins a clean-up.
func TestUsesAreHeardOf(t *testing.T) {
	s, c := cleaner(t, marks(1<<40, 1<<39))
	img, err := s.Resolve(t.Context(), "a", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Acquire(t.Context(), img.ID, img.Manifest.Digest, "c1"); err != nil {
		t.Fatal(err)
	}
	mounted, err := s.Resolve(t.Context(), "b", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Acquire(t.Context(), mounted.ID, mounted.Manifest.Digest, "c1@/data"); err != nil {
		t.Fatal(err)
	}
	s.uses = openUses(t.TempDir())
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	c.Start(ctx)
	for _, m := range []struct {
		t      events.Type
		a      events.Action
		id     string
		counts bool
	}{
		{events.ContainerEventType, events.ActionKill, "c1", false},
		{events.ContainerEventType, events.ActionExecStart + ": sh", "c1", true},
		{events.ImageEventType, events.ActionPull, "team/d:latest", true},
	} {
		waitFor(t, func() bool { // the cleaner may not listen yet
			s.events.Publish(m.t, m.a, m.id, nil)
			s.uses.mu.Lock()
			defer s.uses.mu.Unlock()
			return !m.counts || len(s.uses.last) > 0
		})
	}
	s.uses.mu.Lock()
	for _, id := range []digest.Digest{img.ID, mounted.ID} {
		if time.Since(s.uses.last[id]) > time.Minute {
			t.Errorf("%s: %v", id, s.uses.last)
		}
	}
	s.uses.mu.Unlock()
	waitFor(t, func() bool {
		s.uses.mu.Lock()
		defer s.uses.mu.Unlock()
		return len(s.uses.last) == 3
	})
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.uses.save(nil); err != nil {
		t.Fatal(err)
	}
	if again := openUses(filepath.Dir(s.uses.path)); len(again.last) != 3 {
		t.Errorf("%v", again.last)
	}
}

func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	for limit := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal("it does not come")
		}
	}
}

// TestTreeHasEachLayerOnce: with the images that end at it and the containers of these.
func TestTreeHasEachLayerOnce(t *testing.T) {
	s := open(t)
	base := imported(t, s, "base", file1("bin/a", "x"))
	for _, name := range []string{"one", "two"} {
		if _, err := s.Commit(t.Context(), layer(t, file1("etc/"+name, name)), CommitOptions{Parent: base, Ref: name, Config: base.Config.Config}); err != nil {
			t.Fatal(err)
		}
	}
	one, err := s.Resolve(t.Context(), "one", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Acquire(t.Context(), one.ID, one.Manifest.Digest, "c1"); err != nil {
		t.Fatal(err)
	}
	list, err := Tree(t.Context(), s)
	if err != nil || len(list) != 3 {
		t.Fatalf("%+v %v", list, err)
	}
	root := list[slices.IndexFunc(list, func(l TreeLayer) bool { return l.Parent == "" })]
	if root.SharedWith != 3 || root.Images[0].Names[0] != "base:latest" || root.Size == 0 || root.BlobSize == 0 || root.CreatedBy != "import" {
		t.Errorf("%+v", root)
	}
	for _, l := range list {
		if l.ID == root.ID {
			continue
		}
		if l.Parent != root.ID || len(l.Images) != 1 || (l.Images[0].Names[0] == "one:latest") != slices.Equal(l.Images[0].Containers, []string{"c1"}) {
			t.Errorf("%+v", l)
		}
	}
}

// TestUsesThatWereCutShort: what a kill left of a write goes when the engine starts again, also where nothing is used any more.
func TestUsesThatWereCutShort(t *testing.T) {
	root := t.TempDir()
	u := openUses(root)
	id := digest.FromString("x")
	u.note(id, time.Unix(1000, 0))
	if err := u.save(nil); err != nil {
		t.Fatal(err)
	}
	left := u.path + ".new"
	if err := os.WriteFile(left, []byte(`{"sha`), 0o600); err != nil {
		t.Fatal(err)
	}
	if again := openUses(root); !again.last[id].Equal(time.Unix(1000, 0)) {
		t.Errorf("%v", again.last)
	}
	if _, err := os.Stat(left); !os.IsNotExist(err) {
		t.Errorf("it is there: %v", err)
	}
}
