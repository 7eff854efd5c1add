package image

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"

	"wherry.dev/wherry/internal/snapshot"
)

// asked notes requests for blobs.
type asked struct {
	mu   sync.Mutex
	gets []string
}

func (a *asked) wrap(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") || strings.Contains(r.URL.Path, "/uploads/") {
			a.mu.Lock()
			a.gets = append(a.gets, r.Method+" "+r.URL.Path)
			a.mu.Unlock()
		}
		h.ServeHTTP(w, r)
	})
}

func (a *asked) take() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	list := a.gets
	a.gets = nil
	return list
}

// TestLayersAreKeptUnpackedOnly: after a pull no layer's blob is here; the image resolves, is pulled again without fetching a layer, pushed where
// it is without one, pushed elsewhere and saved with one that is fetched again, and nothing of that stays.
func TestLayersAreKeptUnpackedOnly(t *testing.T) {
	for _, form := range []snapshot.Format{snapshot.Overlay, snapshot.EROFS} {
		t.Run(string(form), func(t *testing.T) { keptUnpackedOnly(t, form) })
	}
}

func keptUnpackedOnly(t *testing.T, form snapshot.Format) {
	var seen asked
	host, other := realRegistry(t, seen.wrap), realRegistry(t, nil)
	maker := open(t)
	base := imported(t, maker, host+"/team/app:1", file1("bin/a", strings.Repeat("content ", 30000)))
	if err := maker.Push(t.Context(), host+"/team/app:1", TransferOptions{}); err != nil {
		t.Fatal(err)
	}
	s := openAs(t, form)
	s.dropBlobs = true
	pull := func() *Image {
		t.Helper()
		if err := s.Pull(t.Context(), host+"/team/app:1", TransferOptions{}); err != nil {
			t.Fatal(err)
		}
		img, err := s.Resolve(t.Context(), host+"/team/app:1", nil)
		if err != nil || img.ID != base.ID {
			t.Fatalf("%v %v", img, err)
		}
		return img
	}
	img := pull()
	m, err := s.manifest(in(t.Context()), img.Manifest)
	if err != nil {
		t.Fatal(err)
	}
	gone := func(when string, d digest.Digest) {
		t.Helper()
		if err := s.sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(blobPath(s, d)); !os.IsNotExist(err) {
			t.Errorf("%s the layer's blob is here: %v", when, err)
		}
	}
	layerOf := m.Layers[0].Digest
	gone("after the pull", layerOf)
	seen.take()
	if again := pull(); again.Lower[0] != img.Lower[0] || len(seen.take()) != 0 {
		t.Errorf("pulled again: %v, %v", again.Lower, seen.gets)
	}
	if err := s.Push(t.Context(), host+"/team/app:1", TransferOptions{}); err != nil || len(seen.take()) != 0 {
		t.Errorf("pushed where it is: %v", err)
	}
	if form == snapshot.Overlay {
		loseFolder(t, s, img)
		gone("after a repair", layerOf)
		seen.take()
	}
	if err := s.Tag(t.Context(), host+"/team/app:1", other+"/copy:1"); err != nil {
		t.Fatal(err)
	}
	if err := s.Push(t.Context(), other+"/copy:1", TransferOptions{}); err != nil || len(seen.take()) != 1 {
		t.Errorf("pushed elsewhere: %v", err)
	}
	gone("after a push", layerOf)
	if r, list := checked(t, s, CheckOptions{}); len(list) != 0 || r.Unverified != 1 {
		t.Errorf("store check: %+v %+v", r, list)
	}
	var archive bytes.Buffer
	if err := s.Save(t.Context(), []string{host + "/team/app:1"}, SaveOptions{}, &archive); err != nil {
		t.Fatal(err)
	}
	gone("after a save", layerOf)
	fresh := open(t)
	if err := fresh.Load(t.Context(), &archive, TransferOptions{}); err != nil {
		t.Fatal(err)
	}
	if got, err := fresh.Resolve(t.Context(), host+"/team/app:1", nil); err != nil || got.ID != base.ID {
		t.Errorf("what was saved: %v %v", got, err)
	}
	if err := fresh.Pull(t.Context(), other+"/copy:1", TransferOptions{}); err != nil {
		t.Errorf("what was pushed elsewhere: %v", err)
	}
	// Of what is made here a layer so small stays as it came until a registry has it: its record would be as large.
	if _, err := s.Commit(t.Context(), layer(t, file1("etc/b", "small")), CommitOptions{Parent: img, Ref: other + "/child:1", Config: img.Config.Config}); err != nil {
		t.Fatal(err)
	}
	c, err := Compact(t.Context(), s)
	if err != nil || c.Kept != 1 || c.Layers != 0 {
		t.Errorf("%+v %v", c, err)
	}
	if err := s.Push(t.Context(), other+"/child:1", TransferOptions{}); err != nil {
		t.Errorf("a child of it: %v", err)
	}
	if err := fresh.Pull(t.Context(), other+"/child:1", TransferOptions{}); err != nil {
		t.Errorf("a child of it: %v", err)
	}
	if u, err := s.DiskUsage(t.Context()); err != nil || u.Unused != 0 {
		t.Errorf("%+v %v", u, err)
	}
}

// loseFolder: a repair fetches the layer again for its folder.
func loseFolder(t *testing.T, s *Service, img *Image) {
	t.Helper()
	if err := os.RemoveAll(img.Lower[0]); err != nil {
		t.Fatal(err)
	}
	if r, list := checked(t, s, CheckOptions{Repair: true}); r.Damaged != 1 || r.Mended != 1 {
		t.Errorf("a folder that is gone: %+v %+v", r, list)
	}
	if b, err := os.ReadFile(img.Lower[0] + "/bin/a"); err != nil || len(b) != 240000 {
		t.Errorf("%d bytes %v", len(b), err)
	}
}

// pulledOnly is an image whose layers are kept unpacked only, and its layer's digest.
func pulledOnly(t *testing.T) (s *Service, name string, layerOf digest.Digest) {
	t.Helper()
	name = realRegistry(t, nil) + "/team/app:1"
	maker := open(t)
	imported(t, maker, name, file1("bin/a", strings.Repeat("content ", 30000)))
	if err := maker.Push(t.Context(), name, TransferOptions{}); err != nil {
		t.Fatal(err)
	}
	s = open(t)
	s.dropBlobs = true
	if err := s.Pull(t.Context(), name, TransferOptions{}); err != nil {
		t.Fatal(err)
	}
	img, err := s.Resolve(t.Context(), name, nil)
	if err != nil {
		t.Fatal(err)
	}
	m, err := s.manifest(in(t.Context()), img.Manifest)
	if err != nil {
		t.Fatal(err)
	}
	return s, name, m.Layers[0].Digest
}

// meddling runs something at the first byte that is written.
type meddling struct {
	bytes.Buffer
	once sync.Once
	do   func()
}

func (m *meddling) Write(b []byte) (int, error) {
	m.once.Do(m.do)
	return m.Buffer.Write(b)
}

// TestSavesBesideEachOther: what one save has fetched again stays until another is done with it, and a pull takes nothing from under a save.
func TestSavesBesideEachOther(t *testing.T) {
	s, name, layerOf := pulledOnly(t)
	save := func(w io.Writer) {
		t.Helper()
		if err := s.Save(t.Context(), []string{name}, SaveOptions{}, w); err != nil {
			t.Error(err)
		}
	}
	for what, meddle := range map[string]func(){
		"another save": func() { save(io.Discard) },
		"a pull": func() {
			if err := s.Pull(t.Context(), name, TransferOptions{}); err != nil {
				t.Error(err)
			}
		},
		"a compaction": func() {
			if c, err := Compact(t.Context(), s); err != nil || c.Layers != 0 || c.Kept != 1 {
				t.Errorf("%+v %v", c, err)
			}
		},
	} {
		first := &meddling{do: func() {
			meddle()
			if err := s.sweep(t.Context()); err != nil {
				t.Error(err)
			}
		}}
		save(first)
		fresh := open(t)
		if err := fresh.Load(t.Context(), &first.Buffer, TransferOptions{}); err != nil {
			t.Errorf("saved beside %s: %v", what, err)
		}
		_, err := Compact(t.Context(), s)
		if err := errors.Join(err, s.sweep(t.Context())); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(blobPath(s, layerOf)); !os.IsNotExist(err) {
			t.Errorf("after %s the layer's blob is here: %v", what, err)
		}
	}
}

// TestHeldLayersStay: a layer's blob that another operation holds is left alone.
func TestHeldLayersStay(t *testing.T) {
	s, name, layerOf := pulledOnly(t)
	held, done, err := s.lease(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	img, err := s.lookup(held, name)
	if err != nil {
		t.Fatal(err)
	}
	again, err := restoreAll(held, s, img.Target)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if c, err := Compact(t.Context(), s); err != nil || c.Layers != 0 {
			t.Errorf("%+v %v", c, err)
		}
	}
	if _, err := s.content.Info(held, layerOf); err != nil {
		t.Errorf("what an operation holds: %v", err)
	}
	again()
	if _, err := s.content.Info(held, layerOf); err == nil {
		t.Error("the operation's own lease kept what it was done with")
	}
	done()
}

// TestPulledThoughNotCompacted: an image is here when it has its name.
func TestPulledThoughNotCompacted(t *testing.T) {
	s, name, _ := pulledOnly(t)
	s.dropped.path = "/dev/null/no/such"
	var mu sync.Mutex
	var said []string
	err := s.Pull(t.Context(), name, TransferOptions{Progress: func(p Progress) {
		mu.Lock()
		defer mu.Unlock()
		said = append(said, p.Status)
	}})
	if err != nil || !strings.Contains(strings.Join(said, "\n"), "could not be dropped") {
		t.Errorf("%v: %q", err, said)
	}
}
