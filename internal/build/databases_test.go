package build

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/moby/buildkit/cache/metadata"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/solver/bboltcachestorage"
	bolt "go.etcd.io/bbolt"

	"wherry.dev/wherry/internal/image"
)

func newDatabases(t *testing.T, root string) *databases {
	t.Helper()
	d, err := openDatabases(root, func(err error) { t.Log(err) })
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func isThere(name string) bool {
	_, err := os.Lstat(name)
	return err == nil
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within a minute", what)
		}
	}
}

// TestTheMarkStaysWhileBuildsWrite: from before the first write until all of it is on the disk.
func TestTheMarkStaysWhileBuildsWrite(t *testing.T) {
	root := t.TempDir()
	d := newDatabases(t, root)
	mark := filepath.Join(root, unsyncedFile)
	if isThere(mark) {
		t.Fatal("marked before anything was written")
	}
	opened, err := bolt.Open(filepath.Join(root, metadataFile), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer opened.Close()
	d.lazily(opened)
	lazy := func() (lazy bool) {
		if err := opened.View(func(tx *bolt.Tx) error { lazy = tx.DB().NoSync; return nil }); err != nil {
			t.Fatal(err)
		}
		return lazy
	}
	first, err := d.begin()
	if err != nil {
		t.Fatal(err)
	}
	second, err := d.begin()
	if err != nil || !isThere(mark) || !lazy() {
		t.Fatalf("marked %v, lazy %v: %v", isThere(mark), lazy(), err)
	}
	first()
	first() // twice is once
	if err := d.settle(); err != nil || !isThere(mark) || !lazy() {
		t.Errorf("settled while a build writes: marked %v, lazy %v: %v", isThere(mark), lazy(), err)
	}
	second()
	waitFor(t, "the end of the mark", func() bool { return !isThere(mark) })
	if lazy() {
		t.Error("nothing is built, and nothing is synced")
	}
	if err := d.touch(); err != nil || !isThere(mark) {
		t.Errorf("written outside of builds, and not marked: %v", err)
	}
	if err := errors.Join(d.stop(), d.close()); err != nil || isThere(mark) {
		t.Errorf("closed, and marked: %v", err)
	}
}

// TestPowerFailsWhileBuilding: what may have been written in part is not read again; a process that was killed has lost nothing.
func TestPowerFailsWhileBuilding(t *testing.T) {
	for name, c := range map[string]struct {
		mark   func(d *databases) string
		stayed bool
	}{
		"the process was killed": {func(d *databases) string { return d.boot }, true},
		"another boot":           {func(*databases) string { return "6a5b0b1e-0000-4000-8000-000000000000" }, false},
		"the mark is empty":      {func(*databases) string { return "" }, false},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			d := newDatabases(t, root)
			for name, content := range map[string]string{metadataFile: "m", cacheFile: "c", historyFile: "h", historyDir + "/x": "x", "workerid": "w", unsyncedFile: c.mark(d)} {
				if err := errors.Join(os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o700), os.WriteFile(filepath.Join(root, name), []byte(content), 0o600)); err != nil {
					t.Fatal(err)
				}
			}
			if err := settleLeft(root, func(error) {}); err != nil { // as the engine starts
				t.Fatal(err)
			}
			d = newDatabases(t, root)
			for name, want := range map[string]bool{metadataFile: c.stayed, cacheFile: c.stayed, historyFile: c.stayed, historyDir: c.stayed, unsyncedFile: false, "workerid": true} {
				if isThere(filepath.Join(root, name)) != want {
					t.Errorf("%s: there %v", name, !want)
				}
			}
			if d.dirty || isThere(d.path(metadataFile)) != c.stayed {
				t.Errorf("dirty %v, there %v", d.dirty, isThere(d.path(metadataFile)))
			}
		})
	}
}

// TestEveryWriteMarks: the databases that are never synced by themselves are written to outside of builds, too.
func TestEveryWriteMarks(t *testing.T) {
	for name, write := range map[string]func(t *testing.T, d *databases){
		"history": func(t *testing.T, d *databases) {
			opened, err := d.open(historyFile)
			if err != nil {
				t.Fatal(err)
			}
			defer opened.Close()
			if err := opened.Update(func(tx *bolt.Tx) error { _, err := tx.CreateBucket([]byte("b")); return err }); err != nil {
				t.Error(err)
			}
		},
		"results": func(t *testing.T, d *databases) {
			s, err := bboltcachestorage.NewStore(d.path(cacheFile))
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if err := (touchedKeys{s, d}).AddResult("key", solver.CacheResult{ID: "result", CreatedAt: time.Unix(1, 0)}); err != nil {
				t.Error(err)
			}
		},
		"a result goes": func(t *testing.T, d *databases) {
			s, err := bboltcachestorage.NewStore(d.path(cacheFile))
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			_ = (touchedKeys{s, d}).Release("result") // which is not there
		},
		"a link": func(t *testing.T, d *databases) {
			s, err := bboltcachestorage.NewStore(d.path(cacheFile))
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if err := (touchedKeys{s, d}).AddLink("key", solver.CacheInfoLink{}, "target"); err != nil {
				t.Error(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			d := newDatabases(t, root)
			write(t, d)
			if !isThere(filepath.Join(root, unsyncedFile)) {
				t.Error("not marked")
			}
			if err := errors.Join(d.stop(), d.close()); err != nil || isThere(filepath.Join(root, unsyncedFile)) {
				t.Error("marked when closed:", err)
			}
		})
	}
}

// TestHistoryIsApart: what is said of builds lies in a store of its own, by BuildKit's name for it.
func TestHistoryIsApart(t *testing.T) {
	d := newDatabases(t, t.TempDir())
	h, err := openHistory(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { h.Close() }()
	l := historyLeases{nil, h}
	ctx := namespaces.WithNamespace(t.Context(), "builds_history")
	if _, err := l.Create(ctx, leases.WithID("one")); err != nil {
		t.Fatal(err)
	}
	if list, err := h.leases.List(ctx); err != nil || len(list) != 1 || list[0].ID != "one" {
		t.Errorf("%+v: %v", list, err)
	}
	if isHistory(namespaces.WithNamespace(t.Context(), "builds")) {
		t.Error("the engine's own store was taken for the history's")
	}
	again := h.Close()
	if h, err = openHistory(t.Context(), d); errors.Join(again, err) != nil {
		t.Fatal("opened again:", errors.Join(again, err))
	}
	if list, err := h.leases.List(ctx); err != nil || len(list) != 1 {
		t.Errorf("after that %+v: %v", list, err)
	}
}

// TestWhatNoRecordHas: what was held for a build that was cut off before its cache had a record of it is let go of.
func TestWhatNoRecordHas(t *testing.T) {
	d := newDatabases(t, t.TempDir())
	h, err := openHistory(t.Context(), d) // a store of leases
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	md, err := metadata.NewStore(d.path(metadataFile))
	if err != nil {
		t.Fatal(err)
	}
	defer md.Close()
	if err := md.Update("kept", func(b *bolt.Bucket) error { return nil }); err != nil {
		t.Fatal(err)
	}
	g := image.Ground{Namespace: "builds", Leases: h.leases, Collect: h.collect}
	ctx := namespaces.WithNamespace(t.Context(), g.Namespace)
	builds := &chainLeases{h.leases}
	for _, id := range []string{"kept", "kept-view", "kept-variants", "lost", "lost-variants", "123-temporary"} {
		if _, err := builds.Create(ctx, leases.WithID(id)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := h.leases.Create(ctx, leases.WithID("another's")); err != nil {
		t.Fatal(err)
	}
	recorded, err := recordsOf(md)
	if err == nil {
		err = letGo(t.Context(), g, recorded)
	}
	list, failed := h.leases.List(ctx)
	if err := errors.Join(err, failed); err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, l := range list {
		left = append(left, l.ID)
	}
	slices.Sort(left)
	if want := []string{"another's", "kept", "kept-variants", "kept-view"}; !slices.Equal(left, want) {
		t.Errorf("%q are left, want %q", left, want)
	}
}
