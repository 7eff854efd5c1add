package image

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"wherry.dev/wherry/internal/snapshot"
)

// noise is text that does not become small.
func noise(n int) string {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(3, uint64(n)))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return string(b)
}

// layersOf are the blobs of an image's layers, and which of them are here.
func layersOf(t *testing.T, s *Service, name string) (all []ocispec.Descriptor, here int) {
	t.Helper()
	img, err := s.Resolve(t.Context(), name, nil)
	if err != nil {
		t.Fatal(err)
	}
	m, err := s.manifest(in(t.Context()), img.Manifest)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range m.Layers {
		if _, err := os.Stat(blobPath(s, l.Digest)); err == nil {
			here++
		}
	}
	return m.Layers, here
}

// TestMadeLayersAreKeptUnpackedOnly: of what no registry has, one form of each layer is kept, too. A push and a save bring the blob back byte for
// byte, and nothing of it stays.
func TestMadeLayersAreKeptUnpackedOnly(t *testing.T) {
	for _, form := range []snapshot.Format{snapshot.Overlay, snapshot.EROFS} {
		t.Run(string(form), func(t *testing.T) { keptMade(t, form) })
	}
}

func keptMade(t *testing.T, form snapshot.Format) {
	host := realRegistry(t, nil)
	s := openAs(t, form)
	s.dropBlobs = true
	base := imported(t, s, host+"/made/base:1", file1("bin/a", noise(50000)), file1("etc/x", "short"), file1("empty", ""), file{name: "link", kind: '2', link: "bin/a"})
	if _, err := s.Commit(t.Context(), layer(t, file1("bin/.wh.a", ""), file1("b", noise(70000))), CommitOptions{Parent: base, Ref: host + "/made/app:1", Config: base.Config.Config}); err != nil {
		t.Fatal(err)
	}
	KeepOneForm(t.Context(), s)
	name := host + "/made/app:1"
	layers, here := layersOf(t, s, name)
	if len(layers) != 2 || here != 0 {
		t.Fatalf("%d of %d blobs are here", here, len(layers))
	}
	if r, list := checked(t, s, CheckOptions{}); len(list) != 0 || r.Unverified != 0 {
		t.Errorf("store check: %+v %+v", r, list)
	}
	if u, err := s.DiskUsage(t.Context()); err != nil || u.Unused != 0 {
		t.Errorf("%+v %v", u, err)
	}
	var archive bytes.Buffer
	if err := s.Save(t.Context(), []string{name}, SaveOptions{}, &archive); err != nil {
		t.Fatal(err)
	}
	if err := s.Push(t.Context(), name, TransferOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, here := layersOf(t, s, name); here != 0 {
		t.Errorf("%d blobs stay", here)
	}
	pulled, loaded := open(t), open(t)
	if err := errors.Join(pulled.Pull(t.Context(), name, TransferOptions{}), loaded.Load(t.Context(), &archive, TransferOptions{})); err != nil {
		t.Fatal(err)
	}
	for _, other := range []*Service{pulled, loaded} {
		if got, here := layersOf(t, other, name); here != 2 || got[0].Digest != layers[0].Digest || got[1].Digest != layers[1].Digest {
			t.Errorf("elsewhere it is %v", got)
		}
	}
	// The engine's next life knows it too, and what goes with the image goes.
	again, err := openRemakes(s.root)
	if way, _ := again.way(layers[0].Digest); err != nil || way == "" {
		t.Errorf("%q, %v", way, err)
	}
	for _, ref := range []string{name, host + "/made/base:1"} {
		if _, err := s.Remove(t.Context(), ref, RemoveOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Compact(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	if left, err := filepath.Glob(filepath.Join(s.root, "images.remade", "*-*")); err != nil || len(left) > 0 {
		t.Errorf("records of layers that are gone: %v", left)
	}
}

// TestWhatCannotBeMadeAgainStays: a blob that another program has compressed, and one whose files are in the tar twice.
func TestWhatCannotBeMadeAgainStays(t *testing.T) {
	other := func(b []byte) []byte { // as gzip does it, by its own word
		var out bytes.Buffer
		z, err := gzip.NewWriterLevel(&out, 9)
		if err != nil {
			t.Fatal(err)
		}
		z.OS = 3
		if _, err := z.Write(b); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		return out.Bytes()
	}
	once := layerOf(file1("a", noise(40000))).Bytes()
	twice := layerOf(file1("a", noise(30000)), file1("a", noise(40000))).Bytes()
	rows := map[string]struct {
		plain, packed []byte
		kept          int
	}{
		"plain": {once, once, 0}, "twice": {twice, twice, 1}, "another program": {once, other(once), 1}, "zstd": {once, zstded(t, once), 1},
	}
	for what, row := range rows {
		s := open(t)
		s.dropBlobs = true
		l := newLayout(t)
		p := ocispec.Platform{OS: "linux", Architecture: "amd64"}
		kind := map[bool]string{true: ocispec.MediaTypeImageLayer, false: ocispec.MediaTypeImageLayerGzip}[bytes.Equal(row.plain, row.packed)]
		if what == "zstd" {
			kind = ocispec.MediaTypeImageLayerZstd
		}
		m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Layers: []ocispec.Descriptor{l.blob(kind, row.packed)},
			Config: l.json(ocispec.MediaTypeImageConfig, ocispec.Image{Platform: p, RootFS: ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromBytes(row.plain)}}})}
		m.SchemaVersion = 2
		l.name(l.json(ocispec.MediaTypeImageManifest, m), "docker.io/team/app:1")
		if _, err := loaded(t, s, l.tar(), TransferOptions{}); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if _, here := layersOf(t, s, "team/app:1"); here != row.kept {
			t.Errorf("%s: %d blobs are here", what, here)
		}
		if c, err := Compact(t.Context(), s); err != nil || c.Kept != row.kept || c.Layers != 0 {
			t.Errorf("%s, again: %+v %v", what, c, err)
		}
	}
}

// TestDamagedFilesMakeNoBlob: what is not the layer any more is neither sent nor saved, and a check finds it.
func TestDamagedFilesMakeNoBlob(t *testing.T) {
	s := openAs(t, snapshot.Overlay)
	s.dropBlobs = true
	img := imported(t, s, "made/app:1", file1("bin/a", noise(50000)))
	if _, here := layersOf(t, s, "made/app:1"); here != 0 {
		t.Fatal("the blob is here")
	}
	if err := os.WriteFile(filepath.Join(img.Lower[0], "bin/a"), []byte(strings.Repeat("x", 50000)), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, list := checked(t, s, CheckOptions{}); len(list) != 1 || list[0].Kind != "layer" || list[0].Mended {
		t.Errorf("store check: %+v", list)
	}
	err := s.Save(t.Context(), []string{"made/app:1"}, SaveOptions{}, new(bytes.Buffer))
	if err == nil || !strings.Contains(err.Error(), "does not make it again") {
		t.Errorf("saved: %v", err)
	}
	if statuses, err := s.content.ListStatuses(in(context.Background())); err != nil || len(statuses) > 0 {
		t.Errorf("left half-made: %v %v", statuses, err)
	}
	if err := os.RemoveAll(img.Lower[0]); err != nil {
		t.Fatal(err)
	}
	if err := s.Save(t.Context(), []string{"made/app:1"}, SaveOptions{}, new(bytes.Buffer)); err == nil {
		t.Errorf("saved without a file: %v", err)
	}
}
