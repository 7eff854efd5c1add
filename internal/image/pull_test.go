package image

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"wherry.dev/wherry/internal/snapshot"
)

func configFor(diffs ...string) []byte {
	b, _ := json.Marshal(map[string]any{"architecture": "amd64", "os": "linux", "rootfs": map[string]any{"type": "layers", "diff_ids": diffs}})
	return b
}

// setLayer makes a hostile registry serve another layer, honestly.
func (h *hostile) setLayer(mediaType string, plain, packed []byte) {
	h.layer, h.config = packed, configFor(sum(plain))
	h.manifest.Config, h.manifest.Layers[0] = descriptor(ocispec.MediaTypeImageConfig, h.config), descriptor(mediaType, packed)
}

func gzipped(t testing.TB, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	if _, err := z.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func zstded(t testing.TB, b []byte) []byte {
	t.Helper()
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return z.EncodeAll(b, nil)
}

func TestCompressions(t *testing.T) {
	plain := layer(t, file1("bin/a", strings.Repeat("program ", 1000))).Bytes()
	rows := map[string][]byte{
		ocispec.MediaTypeImageLayer: plain, ocispec.MediaTypeImageLayerGzip: gzipped(t, plain), ocispec.MediaTypeImageLayerZstd: zstded(t, plain),
		images.MediaTypeDockerSchema2Layer: gzipped(t, plain), images.MediaTypeDockerSchema2LayerGzip: gzipped(t, plain), images.MediaTypeDockerSchema2LayerZstd: zstded(t, plain),
	}
	for mediaType, packed := range rows {
		s := open(t)
		h := newHostile(t)
		h.setLayer(mediaType, plain, packed)
		server := httptest.NewServer(h)
		name := strings.TrimPrefix(server.URL, "http://") + "/a/b:1"
		if err := s.Pull(t.Context(), name, TransferOptions{}); err != nil {
			t.Errorf("%s: %v", mediaType, err)
		}
		img, err := s.Resolve(t.Context(), name, nil)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(filepath.Join(img.Lower[0], "bin/a")); err != nil || len(b) != 8000 {
			t.Errorf("%s: %d bytes, %v", mediaType, len(b), err)
		}
		server.Close()
	}
}

// zeros is a tar with one file of n zeros, made while it is read.
// TestLayersOfNoBytes: of whatever type, they are layers without files, which the registry need not be asked for; and go where others go.
func TestLayersOfNoBytes(t *testing.T) {
	to := realRegistry(t, nil)
	for i, mediaType := range []string{ocispec.MediaTypeImageLayer, ocispec.MediaTypeImageLayerGzip, ocispec.MediaTypeImageLayerZstd, images.MediaTypeDockerSchema2LayerGzip} {
		s := openAs(t, []snapshot.Format{snapshot.Overlay, snapshot.EROFS}[i%2])
		h := newHostile(t)
		h.setLayer(mediaType, nil, nil)
		server := httptest.NewServer(h)
		name := strings.TrimPrefix(server.URL, "http://") + "/a/b:1"
		if err := s.Pull(t.Context(), name, TransferOptions{}); err != nil {
			t.Fatalf("%s: %v", mediaType, err)
		}
		server.Close()
		var saved bytes.Buffer
		copied := fmt.Sprintf("%s/empty:%d", to, i)
		err := errors.Join(s.Tag(t.Context(), name, copied), s.Push(t.Context(), copied, TransferOptions{}), s.Save(t.Context(), []string{copied}, SaveOptions{}, &saved))
		if err != nil {
			t.Fatalf("%s: %v", mediaType, err)
		}
		for _, get := range []func(*Service) error{
			func(s *Service) error { return s.Pull(t.Context(), copied, TransferOptions{}) },
			func(s *Service) error { _, err := loaded(t, s, saved.Bytes(), TransferOptions{}); return err },
		} {
			other := open(t)
			if err := get(other); err != nil {
				t.Fatalf("%s: %v", mediaType, err)
			}
			img, err := other.Resolve(t.Context(), copied, nil)
			if err != nil || len(img.Lower) != 1 {
				t.Fatalf("%s: %+v %v", mediaType, img, err)
			}
			if list, err := os.ReadDir(img.Lower[0]); err != nil || len(list) != 0 {
				t.Errorf("%s: %v %v", mediaType, list, err)
			}
		}
	}
}

// TestScratchIsNoImage: nobody is asked for it.
func TestScratchIsNoImage(t *testing.T) {
	if err := open(t).Pull(t.Context(), "scratch", TransferOptions{}); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "reserved") {
		t.Error(err)
	}
}

func zeros(n int64) io.Reader {
	head := make([]byte, 512)
	copy(head, "zeros")
	copy(head[100:], "0000644\x00")
	copy(head[124:], fmt.Sprintf("%011o ", n))
	head[156] = '0'
	copy(head[257:], "ustar\x0000")
	copy(head[148:], "        ")
	total := 0
	for _, b := range head {
		total += int(b)
	}
	copy(head[148:], fmt.Sprintf("%06o\x00 ", total))
	return io.MultiReader(bytes.NewReader(head), io.LimitReader(zeroReader{}, n+1024))
}

type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// TestBombsAreRefused: load, import and the layers of a pull stop long before the disk is full.
func TestBombsAreRefused(t *testing.T) {
	// One member with the tar's beginning, and more with zeros.
	whole := zeros(2 << 30)
	begin, err := io.ReadAll(io.LimitReader(whole, 512))
	if err != nil {
		t.Fatal(err)
	}
	gz := bytes.NewBuffer(gzipped(t, begin))
	member := gzipped(t, make([]byte, 64<<20))
	for range 32 {
		gz.Write(member)
	}
	s := open(t)
	for what, try := range map[string]func() error{
		"import": func() error {
			_, err := s.Import(t.Context(), bytes.NewReader(gz.Bytes()), ImportOptions{Ref: "bomb"})
			return err
		},
		"load": func() error { return s.Load(t.Context(), bytes.NewReader(gz.Bytes()), TransferOptions{}) },
	} {
		if err := try(); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "decompression bomb") {
			t.Errorf("%s: %v", what, err)
		}
	}
	h := newHostile(t)
	h.setLayer(ocispec.MediaTypeImageLayerGzip, nil, gz.Bytes())
	server := httptest.NewServer(h)
	defer server.Close()
	if err := s.Pull(t.Context(), strings.TrimPrefix(server.URL, "http://")+"/a/b:1", TransferOptions{}); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "decompression bomb") {
		t.Errorf("pull: %v", err)
	}
	if du, err := s.DiskUsage(t.Context()); err != nil || du.TotalCount != 0 {
		t.Errorf("%+v %v", du, err)
	}
}

// sparse is a tar of one file that consists of a hole (GNU tar's form 1.0, which archive/tar reads and does not write).
func sparse(t *testing.T, size int64) []byte {
	t.Helper()
	record := func(key, value string) string {
		n := len(key) + len(value) + 3
		for len(fmt.Sprint(n))+len(key)+len(value)+3 != n {
			n = len(fmt.Sprint(n)) + len(key) + len(value) + 3
		}
		return fmt.Sprintf("%d %s=%s\n", n, key, value)
	}
	records := record("GNU.sparse.major", "1") + record("GNU.sparse.minor", "0") + record("GNU.sparse.name", "f") + record("GNU.sparse.realsize", fmt.Sprint(size))
	pad := func(s string) []byte { return append([]byte(s), make([]byte, 512-len(s)%512)...) }
	header := func(name string, kind byte, size int) []byte {
		b := tarOf(t, file1(name, strings.Repeat("x", size)))[:512]
		b[156] = kind
		copy(b[148:156], "        ")
		sum := 0
		for _, c := range b {
			sum += int(c)
		}
		copy(b[148:156], fmt.Sprintf("%06o\x00 ", sum))
		return b
	}
	ranges := pad("1\n" + fmt.Sprint(size) + "\n0\n") // one piece of data, of no length, at the end
	return slices.Concat(header("x", 'x', len(records)), pad(records), header("f", '0', len(ranges)), ranges, make([]byte, 1024))
}

// TestHolesAreCounted: class 14: a layer of two kilobytes that says that its file has a petabyte.
func TestHolesAreCounted(t *testing.T) {
	s := open(t)
	if _, err := s.Import(t.Context(), bytes.NewReader(sparse(t, 1<<50)), ImportOptions{Ref: "holes"}); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "decompression bomb") {
		t.Errorf("%v", err)
	}
	if _, err := s.Import(t.Context(), bytes.NewReader(sparse(t, 1<<20)), ImportOptions{Ref: "holes"}); err != nil {
		t.Errorf("a file with a hole: %v", err)
	}
	img, err := s.Resolve(t.Context(), "holes", nil)
	if err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(filepath.Join(img.Lower[0], "f")); err != nil || fi.Size() != 1<<20 {
		t.Errorf("%v %v", fi, err)
	}
}

// TestOnePullDownloads: of many that want a layer at once, one fetches it.
func TestOnePullDownloads(t *testing.T) {
	s := open(t)
	h := newHostile(t)
	plain := layer(t, file1("big", strings.Repeat("0123456789", 200000))).Bytes()
	h.setLayer(ocispec.MediaTypeImageLayer, plain, plain)
	var asked atomic.Int32
	h.blob = func(w http.ResponseWriter, _ string, good []byte) {
		asked.Add(1)
		time.Sleep(100 * time.Millisecond)
		_, _ = w.Write(good)
	}
	server := httptest.NewServer(h)
	defer server.Close()
	name := strings.TrimPrefix(server.URL, "http://") + "/a/b:1"
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if err := s.Pull(t.Context(), name, TransferOptions{}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := asked.Load(); n != 1 {
		t.Errorf("the layer was fetched %d times", n)
	}
}

// begun says that something of a download is on the disk.
func begun(root string) bool {
	parts, _ := filepath.Glob(filepath.Join(root, "content/ingest/*/data"))
	return slices.ContainsFunc(parts, func(part string) bool {
		fi, err := os.Stat(part)
		return err == nil && fi.Size() > 0
	})
}

// TestPullGoesOnWhereItStopped: a later pull, even of a later life of the engine, asks for the rest only.
func TestPullGoesOnWhereItStopped(t *testing.T) {
	root := filepath.Join(t.TempDir(), "root")
	var said []string
	s := reopen(t, root, &said)
	h := newHostile(t)
	plain := layer(t, file1("big", strings.Repeat("0123456789", 300000))).Bytes()
	h.setLayer(ocispec.MediaTypeImageLayer, plain, plain)
	ctx, cancel := context.WithCancel(t.Context())
	var ranges []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, sum(plain)) {
			h.ServeHTTP(w, r)
			return
		}
		ranges = append(ranges, r.Header.Get("Range"))
		if len(ranges) == 1 {
			w.Header().Set("Content-Length", strconv.Itoa(len(plain)))
			_, _ = w.Write(plain[:2<<20])
			w.(http.Flusher).Flush()
			for end := time.Now().Add(time.Minute); !begun(root) && time.Now().Before(end); time.Sleep(time.Millisecond) {
			}
			cancel()
			return
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(plain))
	}))
	defer server.Close()
	name := strings.TrimPrefix(server.URL, "http://") + "/a/b:1"
	if err := s.Pull(ctx, name, TransferOptions{}); err == nil {
		t.Fatal("pulled though it was cancelled")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = reopen(t, root, &said)
	if err := s.Pull(t.Context(), name, TransferOptions{}); err != nil {
		t.Fatal(err)
	}
	from := 0
	if len(ranges) < 2 {
		t.Fatalf("requests: %q", ranges)
	}
	if _, err := fmt.Sscanf(ranges[1], "bytes=%d-", &from); err != nil || from == 0 {
		t.Errorf("the second pull asked for %q", ranges[1])
	}
}

// TestManifestsAreWhatTheyAreNamedAs: types, sizes and shapes are held against each other before anything is unpacked.
func TestManifestsAreWhatTheyAreNamedAs(t *testing.T) {
	rows := []struct {
		name, says string
		spoil      func(*hostile)
	}{
		{"another media type inside", "says that it is", func(h *hostile) { h.manifest.MediaType = images.MediaTypeDockerSchema2Manifest }},
		{"a config that is none", "not a container image", func(h *hostile) { h.manifest.Config.MediaType = "application/vnd.cncf.helm.config.v1+json" }},
		{"a layer that is none", "not a file system layer", func(h *hostile) { h.manifest.Layers[0].MediaType = "application/wasm" }},
		{"an encrypted layer", "layer", func(h *hostile) { h.manifest.Layers[0].MediaType += "+encrypted" }},
		{"a digest with a path in it", "no digest", func(h *hostile) { h.manifest.Layers[0].Digest = "sha256:../../../etc/passwd" }},
		{"no digest", "no digest", func(h *hostile) { h.manifest.Config.Digest = "" }},
		{"a negative size", "bytes", func(h *hostile) { h.manifest.Layers[0].Size = -1 }},
		{"no bytes of a layer that has some", "0 bytes", func(h *hostile) { h.manifest.Layers[0].Size = 0 }},
		{"an empty layer in the place of another", "the config says", func(h *hostile) { h.manifest.Layers[0] = descriptor(ocispec.MediaTypeImageLayer, nil) }},
		{"a huge config", "8 MiB", func(h *hostile) { h.manifest.Config.Size = 1 << 30 }},
		{"a bad diff id", "layer", func(h *hostile) {
			h.config = configFor("sha256:../..")
			h.manifest.Config = descriptor(ocispec.MediaTypeImageConfig, h.config)
		}},
		{"a config that is no JSON", "config", func(h *hostile) {
			h.config = []byte("[1,2,")
			h.manifest.Config = descriptor(ocispec.MediaTypeImageConfig, h.config)
		}},
		{"a size that is not the blob's", "", func(h *hostile) { h.manifest.Config.Size++ }},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			s := open(t)
			h := newHostile(t)
			row.spoil(h)
			server := httptest.NewServer(h)
			defer server.Close()
			err := s.Pull(t.Context(), strings.TrimPrefix(server.URL, "http://")+"/a/b:1", TransferOptions{})
			if err == nil || !strings.Contains(err.Error(), row.says) {
				t.Errorf("%v does not say %q", err, row.says)
			}
			if list, err := s.List(t.Context(), ListOptions{}); err != nil || len(list) != 0 {
				t.Errorf("listed: %v %v", list, err)
			}
		})
	}
}

// TestIndexChoosesThePlatform: the host's by default, another by name, and a clear word when there is none.
func TestIndexChoosesThePlatform(t *testing.T) {
	parts := map[string][]byte{}
	types := map[string]string{}
	var index ocispec.Index
	index.SchemaVersion, index.MediaType = 2, ocispec.MediaTypeImageIndex
	put := func(mediaType string, b []byte) ocispec.Descriptor {
		d := descriptor(mediaType, b)
		parts[d.Digest.String()], types[d.Digest.String()] = b, mediaType
		return d
	}
	for _, arch := range []string{"arm64", "amd64", "s390x"} {
		l := layer(t, file1("arch", arch)).Bytes()
		config, _ := json.Marshal(map[string]any{"architecture": arch, "os": "linux", "rootfs": map[string]any{"type": "layers", "diff_ids": []string{sum(l)}}})
		m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Config: put(ocispec.MediaTypeImageConfig, config), Layers: []ocispec.Descriptor{put(ocispec.MediaTypeImageLayer, l)}}
		m.SchemaVersion = 2
		b, _ := json.Marshal(m)
		d := put(ocispec.MediaTypeImageManifest, b)
		d.Platform = &ocispec.Platform{OS: "linux", Architecture: arch}
		index.Manifests = append(index.Manifests, d)
	}
	attestation := put(ocispec.MediaTypeImageManifest, []byte("{}"))
	attestation.Platform = &ocispec.Platform{OS: "unknown", Architecture: "unknown"}
	attestation.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": index.Manifests[1].Digest.String()}
	index.Manifests = append(index.Manifests, attestation)
	b, _ := json.Marshal(index)
	top := put(ocispec.MediaTypeImageIndex, b)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		key := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
		if key == "1" {
			key = top.Digest.String()
		}
		if parts[key] == nil {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		w.Header().Set("Content-Type", types[key])
		w.Header().Set("Docker-Content-Digest", key)
		_, _ = w.Write(parts[key])
	}))
	defer server.Close()
	name := strings.TrimPrefix(server.URL, "http://") + "/a/b:1"
	s := open(t)
	if err := s.Pull(t.Context(), name, TransferOptions{}); err != nil {
		t.Fatal(err)
	}
	arm := ocispec.Platform{OS: "linux", Architecture: "arm64"}
	if _, err := s.Resolve(t.Context(), name, &arm); !errdefs.IsNotFound(err) || !strings.Contains(err.Error(), "wanted linux/arm64") || !strings.Contains(err.Error(), "linux/amd64") {
		t.Errorf("arm64 before it is pulled: %v", err)
	}
	if err := s.Pull(t.Context(), name, TransferOptions{Platform: &arm}); err != nil {
		t.Fatal(err)
	}
	for arch, platform := range map[string]*ocispec.Platform{"amd64": nil, "arm64": &arm} {
		img, err := s.Resolve(t.Context(), name, platform)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(filepath.Join(img.Lower[0], "arch")); err != nil || string(b) != arch {
			t.Errorf("%s: %q %v", arch, b, err)
		}
	}
	mips := ocispec.Platform{OS: "linux", Architecture: "mips"}
	if err := s.Pull(t.Context(), name, TransferOptions{Platform: &mips}); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "no matching manifest for linux/mips") || !strings.Contains(err.Error(), "linux/s390x") {
		t.Errorf("%v", err)
	}
	out, err := s.Inspect(t.Context(), name, nil)
	if err != nil || len(out.Manifests) != 4 || out.Architecture != "amd64" {
		t.Fatalf("%+v %v", out, err)
	}
	var have []string
	for _, m := range out.Manifests {
		have = append(have, fmt.Sprintf("%s %v", m.Kind, m.Available))
	}
	if !slices.Equal(have, []string{"image true", "image true", "image false", "attestation false"}) {
		t.Errorf("%q", have)
	}
	for _, asked := range []bool{false, true} {
		list, err := s.List(t.Context(), ListOptions{Manifests: true, Identity: asked})
		if err != nil || len(list) != 1 || len(list[0].Manifests) != 4 {
			t.Fatalf("%+v %v", list, err)
		}
		for _, m := range list[0].Manifests {
			if told := m.ImageData != nil && m.ImageData.Identity != nil; told != (asked && m.Available && m.ImageData != nil) || told && m.ImageData.Identity.Pull[0].Repository != strings.TrimSuffix(name, ":1") {
				t.Errorf("asked %v: %+v", asked, m.ImageData)
			}
		}
	}
	d, err := s.Distribution(t.Context(), name, nil)
	if err != nil || len(d.Platforms) != 4 || d.Descriptor.Digest != top.Digest {
		t.Errorf("%+v %v", d, err)
	}
	for _, there := range []bool{true, false} {
		m, err := MeaningOf(t.Context(), s, name, MeaningOptions{Registry: there, Platforms: true})
		if err != nil || m.Digest != top.Digest || len(m.Platforms) != 3 || m.Platforms["linux/s390x"] != index.Manifests[2].Digest {
			t.Errorf("at its registry %v: %+v %v", there, m, err)
		}
	}
}

// TestUnsteadyRegistry: answers that pass by themselves are waited for, as long as the registry says; others are told.
func TestUnsteadyRegistry(t *testing.T) {
	rows := []struct {
		status     int
		after      string
		busy, most int32 // answers that say so, and requests that may be made
		ok         bool
	}{
		{429, "", 3, 20, true}, {503, "", 3, 20, true}, {429, "0", 4, 20, true}, {503, "0", 4, 20, true},
		{429, "3600", 1000, 10, false}, {429, "", 1000, 60, false}, {503, "soon", 1000, 60, false},
	}
	for _, row := range rows {
		h := newHostile(t)
		var n atomic.Int32
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if n.Add(1) <= row.busy {
				w.Header().Set("Retry-After", row.after)
				w.WriteHeader(row.status)
				return
			}
			h.ServeHTTP(w, r)
		}))
		s := open(t)
		err := s.Pull(t.Context(), strings.TrimPrefix(server.URL, "http://")+"/a/b:1", TransferOptions{})
		if (err == nil) != row.ok || n.Load() > row.most {
			t.Errorf("%d %q: %v after %d requests", row.status, row.after, err, n.Load())
		}
		if !row.ok && !strings.Contains(fmt.Sprint(err), map[int]string{429: "too many requests", 503: "503"}[row.status]) {
			t.Errorf("%v", err)
		}
		server.Close()
	}
}

func TestPullAllTagsAndByDigest(t *testing.T) {
	host := realRegistry(t, nil)
	a, b := open(t), open(t)
	for _, tag := range []string{"1", "2"} {
		imported(t, a, host+"/team/app:"+tag, file1("tag", tag))
	}
	if err := a.Push(t.Context(), host+"/team/app", TransferOptions{AllTags: true}); err != nil {
		t.Fatal(err)
	}
	if err := b.Pull(t.Context(), host+"/team/app", TransferOptions{AllTags: true}); err != nil {
		t.Fatal(err)
	}
	list, err := b.List(t.Context(), ListOptions{})
	if err != nil || len(list) != 2 {
		t.Fatalf("%v %v", list, err)
	}
	c := open(t)
	name := list[0].RepoDigests[0]
	if err := c.Pull(t.Context(), name, TransferOptions{}); err != nil {
		t.Fatal(err)
	}
	got, err := c.List(t.Context(), ListOptions{Filters: map[string]map[string]bool{"dangling": {"false": true}}})
	if err != nil || len(got) != 1 || len(got[0].RepoTags) != 0 || got[0].RepoDigests[0] != name {
		t.Fatalf("%+v %v", got, err)
	}
	if err := a.Push(t.Context(), host+"/team/none:1", TransferOptions{}); !errdefs.IsNotFound(err) {
		t.Error(err)
	}
}

// TestPruneBesidePulls: what is being pulled or has been claimed is never collected, and nothing fails but looking for what is gone.
func TestPruneBesidePulls(t *testing.T) {
	host := realRegistry(t, nil)
	origin, s := open(t), open(t)
	base := imported(t, origin, host+"/team/base:1", file1("bin/a", strings.Repeat("x", 200<<10)))
	for _, name := range []string{"one", "two"} {
		if _, err := origin.Commit(t.Context(), layer(t, file1("etc/name", name)), CommitOptions{Parent: base, Ref: host + "/team/" + name + ":1", Config: base.Config.Config}); err != nil {
			t.Fatal(err)
		}
		if err := origin.Push(t.Context(), host+"/team/"+name+":1", TransferOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	var wg sync.WaitGroup
	done := make(chan struct{})
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			if _, err := s.Prune(t.Context(), map[string]map[string]bool{"dangling": {"false": true}}); err != nil {
				t.Error("prune:", err)
			}
		}
	})
	var users sync.WaitGroup
	claimed := atomic.Int32{}
	for i, name := range []string{"one", "two", "one"} {
		users.Go(func() {
			for round := 0; round < 8 || claimed.Load() == 0 && round < 200; round++ {
				if err := s.Pull(t.Context(), host+"/team/"+name+":1", TransferOptions{}); err != nil {
					t.Error("pull:", err)
					continue
				}
				img, err := s.Resolve(t.Context(), host+"/team/"+name+":1", nil)
				if err != nil {
					if !errdefs.IsNotFound(err) {
						t.Error("resolve:", err)
					}
					continue
				}
				container := fmt.Sprintf("c%d", i)
				if err := s.Acquire(t.Context(), img.ID, img.Manifest.Digest, container); err != nil {
					if !errdefs.IsNotFound(err) {
						t.Error("acquire:", err)
					}
					continue
				}
				claimed.Add(1)
				if img, err = s.Resolve(t.Context(), img.ID.String(), nil); err != nil {
					t.Error("resolve a claimed image:", err)
					continue
				}
				time.Sleep(time.Millisecond)
				for _, dir := range img.Lower {
					if _, err := os.Stat(dir); err != nil {
						t.Error("a claimed image lost a layer:", err)
					}
				}
				s.Release(t.Context(), container)
			}
		})
	}
	users.Wait()
	close(done)
	wg.Wait()
	if claimed.Load() == 0 {
		t.Error("no round got to a claim")
	}
}

// TestManyPlatforms: what a registry names any number of does not go into an error whole.
func TestManyPlatforms(t *testing.T) {
	for n, want := range map[int]string{0: "no platform that is named", 2: "linux/a0, linux/a1", 100_000: "and 99970 more"} {
		var list []string
		for i := range n {
			list = append(list, fmt.Sprint("linux/a", i))
		}
		if got := someOf(list); !strings.HasSuffix(got, want) || len(got) > 1000 {
			t.Errorf("%d: %.1000s", n, got)
		}
	}
}
