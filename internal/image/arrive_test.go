package image

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/remotes"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/snapshot"
)

// several serves an image of several layers; serve, when not nil, sends a layer's content.
type several struct {
	layers   [][]byte
	serve    func(i int, w http.ResponseWriter, r *http.Request)
	config   []byte
	manifest []byte
}

func newSeveral(mediaType string, pack func([]byte) []byte, plain ...[]byte) *several {
	s := &several{}
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest}
	m.SchemaVersion = 2
	var diffs []string
	for _, b := range plain {
		diffs = append(diffs, sum(b))
		s.layers = append(s.layers, pack(b))
		m.Layers = append(m.Layers, descriptor(mediaType, s.layers[len(s.layers)-1]))
	}
	s.config = configFor(diffs...)
	m.Config = descriptor(ocispec.MediaTypeImageConfig, s.config)
	s.manifest, _ = json.Marshal(m)
	return s
}

func asIs(b []byte) []byte { return b }

func (s *several) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.Contains(r.URL.Path, "/manifests/") {
		w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
		w.Header().Set("Docker-Content-Digest", sum(s.manifest))
		_, _ = w.Write(s.manifest)
		return
	}
	if strings.HasSuffix(r.URL.Path, sum(s.config)) {
		_, _ = w.Write(s.config)
		return
	}
	i := slices.IndexFunc(s.layers, func(b []byte) bool { return strings.HasSuffix(r.URL.Path, sum(b)) })
	if i < 0 {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	if s.serve != nil {
		s.serve(i, w, r)
		return
	}
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(s.layers[i]))
}

// start serves it, and says under which name.
func (s *several) start(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://") + "/a/b:1"
}

// unpackedFile waits until a file stands in a layer of the store, named or not, and has its size.
func unpackedFile(t *testing.T, s *Service, name string, size int64) (path string) {
	t.Helper()
	for begun := time.Now(); time.Since(begun) < time.Minute; time.Sleep(5 * time.Millisecond) {
		found, err := filepath.Glob(filepath.Join(s.root, "snapshots", "snapshots", "*", "fs", name))
		if err != nil {
			t.Error(err)
		}
		if len(found) > 0 {
			if fi, err := os.Stat(found[0]); err == nil && fi.Size() == size {
				return found[0]
			}
		}
	}
	t.Errorf("%s was not unpacked", name)
	return ""
}

func inode(t *testing.T, path string) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Error(err)
	}
	return st.Ino
}

// TestUnpackingDoesNotWait: files are there while their layer is still on its way; a layer that does not come holds up no other; and when a
// connection breaks in the middle, the unpacking goes on where it was.
func TestUnpackingDoesNotWait(t *testing.T) {
	s := openAs(t, snapshot.Overlay)
	first := layer(t, file1("early", strings.Repeat("e", 4<<20)), file1("late", string(mixed(4<<20)))).Bytes()
	second := layer(t, file1("other", "o")).Bytes()
	h := newSeveral(ocispec.MediaTypeImageLayer, asIs, first, second)
	var mu sync.Mutex
	asked := 0
	early := ""
	h.serve = func(i int, w http.ResponseWriter, r *http.Request) {
		if i == 1 {
			_, _ = w.Write(second)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		asked++
		if asked > 1 {
			if got := inode(t, early); got == 0 {
				t.Error("what was unpacked before the connection broke is gone")
			}
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(first))
			return
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(first)))
		_, _ = w.Write(first[:6<<20])
		w.(http.Flusher).Flush()
		early = unpackedFile(t, s, "early", 4<<20)
		unpackedFile(t, s, "other", 1)
		panic(http.ErrAbortHandler)
	}
	name := h.start(t)
	if err := s.Pull(t.Context(), name, TransferOptions{}); err != nil {
		t.Fatal(err)
	}
	img, err := s.Resolve(t.Context(), name, nil)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(img.Lower[1], "late")); err != nil || !bytes.Equal(b, mixed(4<<20)) {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	if asked != 2 || early != filepath.Join(img.Lower[1], "early") {
		t.Errorf("%d requests; unpacked first in %s, now in %s", asked, early, img.Lower[1])
	}
}

// TestPartialsThatCameToHarm: what an earlier life left of a download is not what it was; the layer is fetched from its beginning.
func TestPartialsThatCameToHarm(t *testing.T) {
	s := openAs(t, snapshot.Overlay)
	l := layer(t, file1("f", string(mixed(3<<20)))).Bytes()
	h := newSeveral(ocispec.MediaTypeImageLayer, asIs, l)
	name := h.start(t)
	ctx, done, err := s.lease(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	d := descriptor(ocispec.MediaTypeImageLayer, l)
	w, err := content.OpenWriter(ctx, s.content, content.WithRef(remotes.MakeRefKey(ctx, d)), content.WithDescriptor(d))
	if err != nil {
		t.Fatal(err)
	}
	harmed := append(make([]byte, 1<<20), l[1<<20:2<<20]...)
	if _, err := w.Write(harmed); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Pull(t.Context(), name, TransferOptions{}); err != nil {
		t.Fatal(err)
	}
	done()
	img, err := s.Resolve(t.Context(), name, nil)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(img.Lower[0], "f")); err != nil || !bytes.Equal(b, mixed(3<<20)) {
		t.Errorf("%d bytes, %v", len(b), err)
	}
}

// TestPullsOfOneImage: of twenty at once each layer is fetched once, and all end well.
func TestPullsOfOneImage(t *testing.T) {
	s := openAs(t, snapshot.Overlay)
	var plain [][]byte
	for i := range 5 {
		plain = append(plain, layer(t, file1(fmt.Sprint("f", i), strings.Repeat(fmt.Sprint(i), 300000))).Bytes())
	}
	h := newSeveral(ocispec.MediaTypeImageLayerGzip, func(b []byte) []byte { return gzipped(t, b) }, plain...)
	var mu sync.Mutex
	asked := map[int]int{}
	h.serve = func(i int, w http.ResponseWriter, _ *http.Request) {
		mu.Lock()
		asked[i]++
		mu.Unlock()
		_, _ = w.Write(h.layers[i])
	}
	name := h.start(t)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if err := s.Pull(t.Context(), name, TransferOptions{}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for i, n := range asked {
		if n != 1 {
			t.Errorf("layer %d was fetched %d times", i, n)
		}
	}
	if img, err := s.Resolve(t.Context(), name, nil); err != nil || len(img.Lower) != 5 {
		t.Errorf("%+v %v", img.Lower, err)
	}
	if err := s.collect(t.Context()); err != nil {
		t.Error(err)
	}
	if left, err := filepath.Glob(filepath.Join(s.root, "snapshots", "snapshots", "*")); err != nil || len(left) != 5 {
		t.Errorf("%d layers are in the store: %v", len(left), err)
	}
}

// TestLayersAreCommittedInOrder: each stands on those below it, though the lowest comes last.
func TestLayersAreCommittedInOrder(t *testing.T) {
	s := openAs(t, snapshot.Overlay)
	base := layer(t, file{name: "etc/", kind: tar.TypeDir}, file1("etc/a", "a"), file1("etc/b", "b"), file1(".wh.nothing", "")).Bytes()
	top := layer(t, file1("etc/.wh.a", ""), file1("etc/c", "c")).Bytes()
	h := newSeveral(ocispec.MediaTypeImageLayer, asIs, base, top)
	h.serve = func(i int, w http.ResponseWriter, _ *http.Request) {
		if i == 0 {
			unpackedFile(t, s, "etc/c", 1)
		}
		_, _ = w.Write(h.layers[i])
	}
	name := h.start(t)
	if err := s.Pull(t.Context(), name, TransferOptions{}); err != nil {
		t.Fatal(err)
	}
	img, err := s.Resolve(t.Context(), name, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(filepath.Join(img.Lower[1], "nothing")); !os.IsNotExist(err) {
		t.Errorf("a mark in the lowest layer: %v", err)
	}
	at := t.TempDir()
	if err := unix.Mount("overlay", at, "overlay", unix.MS_RDONLY, "lowerdir="+strings.Join(img.Lower, ":")); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Unmount(at, 0) }()
	var names []string
	list, err := os.ReadDir(filepath.Join(at, "etc"))
	for _, e := range list {
		names = append(names, e.Name())
	}
	if err != nil || !slices.Equal(names, []string{"b", "c"}) {
		t.Errorf("%q %v", names, err)
	}
}

// TestProgressIsDockers: each layer's lines come in Docker's order.
func TestProgressIsDockers(t *testing.T) {
	s := openAs(t, snapshot.Overlay)
	l := layer(t, file1("f", string(mixed(1<<20)))).Bytes()
	name := newSeveral(ocispec.MediaTypeImageLayer, asIs, l).start(t)
	var mu sync.Mutex
	var said []string
	err := s.Pull(t.Context(), name, TransferOptions{Progress: func(p Progress) {
		mu.Lock()
		defer mu.Unlock()
		if p.ID == short(descriptor("", l)) && (len(said) == 0 || said[len(said)-1] != p.Status) {
			said = append(said, p.Status)
		}
		if p.Status == "Extracting" && (p.Total != int64(len(l)) || p.Current > p.Total) {
			t.Errorf("%+v", p)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	said = slices.DeleteFunc(said, func(s string) bool { return s == "Downloading" }) // it may be over before
	if !slices.Equal(said, []string{"Pulling fs layer", "Download complete", "Extracting", "Pull complete"}) {
		t.Errorf("%q", said)
	}
}

// TestProgressTellsWhatIsHere: a layer that is here is told of beside others, and an image that is here has no such lines.
func TestProgressTellsWhatIsHere(t *testing.T) {
	s := openAs(t, snapshot.Overlay)
	a, b := layer(t, file1("a", "a")).Bytes(), layer(t, file1("b", "b")).Bytes()
	one, both := newSeveral(ocispec.MediaTypeImageLayer, asIs, a).start(t), newSeveral(ocispec.MediaTypeImageLayer, asIs, a, b).start(t)
	for _, r := range []struct {
		name string
		want []string
	}{{one, []string{"Pulling fs layer"}}, {one, nil}, {both, []string{"Already exists", "Pulling fs layer"}}, {both, nil}} {
		var mu sync.Mutex
		var said []string
		err := s.Pull(t.Context(), r.name, TransferOptions{Progress: func(p Progress) {
			mu.Lock()
			defer mu.Unlock()
			if p.Status == "Already exists" || p.Status == "Pulling fs layer" {
				said = append(said, p.Status)
			}
		}})
		if err != nil || !slices.Equal(said, r.want) {
			t.Errorf("%s: %q, not %q; %v", r.name, said, r.want, err)
		}
	}
}

// TestNothingStaysOfACutOffPull: when an engine that was killed in the middle of a pull has pulled the image after all, its removal frees
// everything.
func TestNothingStaysOfACutOffPull(t *testing.T) {
	root := filepath.Join(t.TempDir(), "root")
	var said []string
	s := reopen(t, root, &said)
	a, b := layer(t, file1("a", string(mixed(2<<20)))).Bytes(), layer(t, file1("b", string(mixed(3<<20)))).Bytes()
	h := newSeveral(ocispec.MediaTypeImageLayer, asIs, a, b)
	name := h.start(t)
	// What a killed engine leaves: its lease, a layer that it had, one that it was unpacking, and a part of one.
	ctx, _, err := s.leaseFor(t.Context(), "pull "+name)
	if err != nil {
		t.Fatal(err)
	}
	d := descriptor(ocispec.MediaTypeImageLayer, a)
	if err := content.WriteBlob(ctx, s.content, remotes.MakeRefKey(ctx, d), bytes.NewReader(a), d); err != nil {
		t.Fatal(err)
	}
	if _, err := s.snaps.Prepare(ctx, unpackPrefix+sum(a), ""); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = reopen(t, root, &said)
	if _, err := s.snaps.Stat(in(t.Context()), unpackPrefix+sum(a)); err == nil {
		t.Error("a layer that is half unpacked is still there")
	}
	if err := s.Pull(t.Context(), name, TransferOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Remove(t.Context(), name, RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"snapshots/snapshots/*", "content/blobs/sha256/*", "content/ingest/*"} {
		if left, err := filepath.Glob(filepath.Join(root, dir)); err != nil || len(left) != 0 {
			t.Errorf("%s: %q %v", dir, left, err)
		}
	}
}
