package image

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// TestUnusedIsLookedAtAgain: what has become of an image since it was found to be unused counts.
func TestUnusedIsLookedAtAgain(t *testing.T) {
	rows := map[string]struct {
		do   func(s *Service, a *Image) error
		left string
	}{
		"nothing":               {func(*Service, *Image) error { return nil }, "b:1"},
		"its tag has moved":     {func(s *Service, _ *Image) error { return s.Tag(t.Context(), "b:1", "a:1") }, "a:1 b:1"},
		"it has another tag":    {func(s *Service, _ *Image) error { return s.Tag(t.Context(), "a:1", "a:2") }, "a:1 a:2 b:1"},
		"it is pinned":          {func(s *Service, _ *Image) error { return Pin(t.Context(), s, "a:1", true) }, "a:1 b:1"},
		"a container uses it":   {func(s *Service, a *Image) error { return s.Acquire(t.Context(), a.ID, a.Manifest.Digest, "c1") }, "a:1 b:1"},
		"it is used, says more": {func(s *Service, a *Image) error { s.uses.note(a.ID, time.Now().Add(time.Hour)); return nil }, "a:1 b:1"},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			a := imported(t, s, "a:1", file1("f", "a"))
			imported(t, s, "b:1", file1("f", "b"))
			was, err := s.entryOf(in(t.Context()), a.ID)
			if err != nil {
				t.Fatal(err)
			}
			used := s.uses.of(was)
			if err := row.do(s, a); err != nil {
				t.Fatal(err)
			}
			r := &removal{s: s}
			gone, err := r.unused(in(t.Context()), was, func(is *entry) bool { return !s.uses.of(is).After(used) })
			if err != nil || gone != (name == "nothing") || gone != r.went || here(t, s) != row.left {
				t.Errorf("%v %v; there is %s", gone, err, here(t, s))
			}
			if _, err := s.entryOf(in(t.Context()), a.ID); gone != errdefs.IsNotFound(err) {
				t.Errorf("its record: %v", err)
			}
		})
	}
}

// TestConcurrentNamesKeepEveryImage: a name that many give to images of their own at once leaves each image its record.
func TestConcurrentNamesKeepEveryImage(t *testing.T) {
	s := open(t)
	var ids []digest.Digest
	for i := range 6 {
		id, err := s.Import(t.Context(), layerOf(file1("f", fmt.Sprint(i))), ImportOptions{})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	var wg sync.WaitGroup
	for i, id := range ids {
		wg.Go(func() {
			for n := range 20 {
				if err := s.Tag(t.Context(), id.String(), fmt.Sprintf("app:%d", (i+n)%2)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for _, id := range ids {
		if e, err := s.entryOf(in(t.Context()), id); err != nil || len(e.names) > 1 && isFullID(e.names[len(e.names)-1]) {
			t.Errorf("%s: %+v %v", id, e, err)
		}
	}
}

// TestPruneBesideAMovingTag: a tag that has come to mean an image which a container uses stays, whatever it meant when the prune began.
func TestPruneBesideAMovingTag(t *testing.T) {
	s := open(t)
	used := imported(t, s, "used:1", file1("f", "used"))
	if err := s.Acquire(t.Context(), used.ID, used.Manifest.Digest, "c1"); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	pruned, turns := 0, make(chan struct{})
	wg.Go(func() {
		for ctx.Err() == nil {
			r, err := s.Prune(t.Context(), map[string]map[string]bool{"dangling": {"false": true}})
			if err != nil {
				t.Error("prune:", err)
			}
			pruned += len(r.ImagesDeleted)
			select {
			case turns <- struct{}{}:
			default:
			}
		}
	})
	for i := range 40 {
		if _, err := s.Import(t.Context(), layerOf(file1("f", fmt.Sprint(i))), ImportOptions{Ref: "moving:1"}); err != nil {
			t.Fatal(err)
		}
		if i%4 == 0 {
			<-turns // it has seen the image
		}
		if err := s.Tag(t.Context(), "used:1", "moving:1"); err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 {
			<-turns // whatever it had begun with is done
		}
		if id, err := s.Means(t.Context(), "moving:1"); err != nil || id != used.ID {
			t.Errorf("round %d: it means %q: %v", i, id, err)
		}
	}
	stop()
	wg.Wait()
	if pruned == 0 {
		t.Error("nothing was pruned beside")
	}
	if got := here(t, s); got != "moving:1 used:1" {
		t.Error(got)
	}
}

// TestNamesOfWhatIsGone: an image whose names went meanwhile is neither tagged nor noted as known.
func TestNamesOfWhatIsGone(t *testing.T) {
	s := open(t)
	a := imported(t, s, "a:1", file1("f", "a"))
	was, err := s.find(in(t.Context()), "a:1")
	if err != nil {
		t.Fatal(err)
	}
	imported(t, s, "a:1", file1("f", "b"))
	if err := s.mark(in(t.Context()), was, labelPushed); err != nil {
		t.Error(err)
	}
	if m, err := MeaningOf(t.Context(), s, "a:1", MeaningOptions{}); err != nil || m.Pushed != nil {
		t.Errorf("noted of another image: %+v %v", m, err)
	}
	if _, err := s.Prune(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if err := nameAgain(in(t.Context()), s.store, "a:2", was.Target); !errdefs.IsNotFound(err) || here(t, s) != "a:1" {
		t.Errorf("%s of what is gone was tagged: %v; there is %s", a.ID, err, here(t, s))
	}
}

// TestRecordsThatAKillLeft: an image that has its nameless record still goes with its last tag.
func TestRecordsThatAKillLeft(t *testing.T) {
	s := open(t)
	a := imported(t, s, "a:1", file1("f", "a"))
	img, err := s.find(in(t.Context()), "a:1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.images.Create(in(t.Context()), images.Image{Name: a.ID.String(), Target: img.Target}); err != nil {
		t.Fatal(err)
	}
	if out, err := s.Remove(t.Context(), "a:1", RemoveOptions{}); err != nil || said(out) != "-a:1 deleted" {
		t.Errorf("%q %v", said(out), err)
	}
}

// TestOneCollection: however many images go, what nobody needs is collected once.
func TestOneCollection(t *testing.T) {
	s, c := cleaner(t, marks(1, 1))
	before := s.sweeps
	if out, err := c.CleanUp(t.Context(), CleanUpOptions{}); err != nil || len(out.Removed) != 4 {
		t.Fatalf("%+v %v", out, err)
	}
	// Each makes the store forget its layers twice. A clean-up begins with one.
	if n := s.sweeps - before; n != 4 {
		t.Errorf("a clean-up collected %d times", n/2)
	}
	for i := range 4 {
		imported(t, s, fmt.Sprintf("app:%d", i), file1("f", fmt.Sprint(i)))
	}
	before = s.sweeps
	r, err := s.Prune(t.Context(), map[string]map[string]bool{"dangling": {"false": true}})
	if n := s.sweeps - before; err != nil || len(r.ImagesDeleted) != 8 || r.SpaceReclaimed == 0 || n != 2 {
		t.Errorf("%+v %v: a prune collected %d times", r, err, n/2)
	}
	if left, err := filepath.Glob(filepath.Join(s.root, "content", "blobs", "*", "*")); err != nil || len(left) > 0 {
		t.Errorf("%v %v", left, err)
	}
}

// TestPlatformsUnderRemoval: nobody begins to use a platform while it goes; others of the image can be used.
func TestPlatformsUnderRemoval(t *testing.T) {
	c := &claims{of: map[string]use{}, going: map[use]int{}}
	done, user := c.beginRemoval(use{"index", "arm"})
	if user != "" {
		t.Fatal(user)
	}
	if err := c.take("c1", use{"index", "arm"}); !errdefs.IsNotFound(err) {
		t.Error(err)
	}
	if err := c.take("c1", use{"index", "amd"}); err != nil {
		t.Error(err)
	}
	if _, user := c.beginRemoval(use{id: "index"}); user != "c1" {
		t.Errorf("the whole image: %q", user)
	}
	done()
	if err := c.take("c2", use{"index", "arm"}); err != nil {
		t.Error(err)
	}
	if _, user := c.beginRemoval(use{"index", "arm"}); user != "c2" {
		t.Errorf("%q", user)
	}
}

// TestPruneNames: of an image that containers use those names go by which none of them was created, and one stays in any case.
func TestPruneNames(t *testing.T) {
	for name, row := range map[string]struct{ tags, asked, want string }{
		"by a tag":                 {"app:1 app:2 b:1", "app:1", "-app:2 -b:1"},
		"without a tag":            {"app:latest app:2", "app", "-app:2"},
		"by two":                   {"app:1 app:2 b:1", "app:1 b:1", "-app:2"},
		"by its only name":         {"app:1", "app:1", ""},
		"by its id":                {"app:a app:z app:m", "ID", "-app:a -app:m"},
		"by tag and digest":        {"app:1 app:2", "app:1@sha256:FULL", "-app:2"},
		"by digest":                {"app:1 app:2", "app@sha256:FULL", "-app:1"},
		"by a name that it lost":   {"app:1 app:2", "old:1", "-app:1"},
		"by one that nobody knows": {"app:1 app:2", "UNKNOWN", ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			tags := strings.Fields(row.tags)
			img := imported(t, s, tags[0], file1("a", name))
			for _, tag := range tags[1:] {
				if err := s.Tag(t.Context(), tags[0], tag); err != nil {
					t.Fatal(err)
				}
			}
			asked := map[string]string{}
			for i, by := range strings.Fields(row.asked) {
				id := "c" + string(rune('0'+i))
				asked[id] = strings.NewReplacer("ID", img.ID.Encoded()[:12], "FULL", img.ID.Encoded(), "UNKNOWN", "").Replace(by)
				if err := s.Acquire(t.Context(), img.ID, img.Manifest.Digest, id); err != nil {
					t.Fatal(err)
				}
			}
			for _, filters := range []map[string]map[string]bool{nil, {"dangling": {"false": true}}} {
				report, err := PruneNames(t.Context(), s, filters, func(id string) string { return asked[id] })
				want := row.want
				if filters == nil {
					want = ""
				}
				if err != nil || said(report.ImagesDeleted) != want {
					t.Errorf("%v: %q, not %q: %v", filters, said(report.ImagesDeleted), want, err)
				}
			}
			if err := s.Acquire(t.Context(), img.ID, img.Manifest.Digest, "c0@/mnt"); err != nil {
				t.Fatal(err)
			}
			if err := s.Tag(t.Context(), img.ID.String(), "more:1"); err != nil {
				t.Fatal(err)
			}
			if report, err := PruneNames(t.Context(), s, map[string]map[string]bool{"dangling": {"false": true}}, func(id string) string { return asked[id] }); err != nil || len(report.ImagesDeleted) != 0 {
				t.Errorf("of one that is mounted: %v, %v", report, err)
			}
		})
	}
}
