package build

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	cachetypes "github.com/moby/buildkit/cache/remotecache/v1/types"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// strangers is a registry that has whatever it says.
type strangers map[digest.Digest][]byte

func (s strangers) ReaderAt(_ context.Context, d ocispec.Descriptor) (content.ReaderAt, error) {
	b, ok := s[d.Digest]
	if !ok {
		return nil, errdefs.ErrNotFound
	}
	return claimed{heldPart{bytes.NewReader(b)}, d.Size}, nil
}

// claimed is as large as its descriptor says, as what a registry sends.
type claimed struct {
	heldPart
	size int64
}

func (c claimed) Size() int64 { return c.size }

func (s strangers) put(kind string, v any) ocispec.Descriptor {
	b, ok := v.([]byte)
	if !ok {
		b, _ = json.Marshal(v)
	}
	d := digest.FromBytes(b)
	s[d] = b
	return ocispec.Descriptor{MediaType: kind, Digest: d, Size: int64(len(b))}
}

// TestHostileCaches: what --cache-from names ends no engine. Each of these did, or took its memory, in BuildKit's importer.
func TestHostileCaches(t *testing.T) {
	layers := func(n int) (out []ocispec.Descriptor) {
		for i := range n {
			out = append(out, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: digest.FromString(fmt.Sprint("layer", i)), Size: 1})
		}
		return out
	}
	type history = []map[string]any
	config := func(layers int, h history, records any) map[string]any {
		cache, _ := json.Marshal(records)
		diffs := make([]string, layers)
		for i := range diffs {
			diffs[i] = digest.FromString(fmt.Sprint("diff", i)).String()
		}
		return map[string]any{"rootfs": map[string]any{"diff_ids": diffs}, "history": h, "moby.buildkit.cache.v0": cache}
	}
	image := func(s strangers, config ocispec.Descriptor, layers []ocispec.Descriptor) ocispec.Descriptor {
		return s.put(ocispec.MediaTypeImageManifest, map[string]any{"schemaVersion": 2, "mediaType": ocispec.MediaTypeImageManifest, "config": config, "layers": layers})
	}
	index := func(s strangers, manifests ...ocispec.Descriptor) ocispec.Descriptor {
		return s.put(ocispec.MediaTypeImageIndex, map[string]any{"schemaVersion": 2, "mediaType": ocispec.MediaTypeImageIndex, "manifests": manifests})
	}
	sized := func(d ocispec.Descriptor, size int64) ocispec.Descriptor { d.Size = size; return d }
	record := []cachetypes.CacheRecord{{Digest: digest.FromString("r"), Results: []cachetypes.CacheResult{{}}}}
	whole := func(s strangers) ocispec.Descriptor {
		return s.put(ocispec.MediaTypeImageConfig, config(1, history{{"empty_layer": true}, {"created_by": "RUN x"}}, record))
	}
	rows := map[string]struct {
		make func(s strangers) ocispec.Descriptor
		want string // "": it is taken
	}{
		"an image": {func(s strangers) ocispec.Descriptor { return index(s, image(s, whole(s), layers(1))) }, ""},
		"a configuration that is named twice, with two sizes": {func(s strangers) ocispec.Descriptor {
			one := image(s, whole(s), layers(1))
			return index(s, one, sized(one, 1<<50))
		}, "8 MiB are the most"},
		"a history that is too short": {func(s strangers) ocispec.Descriptor {
			return image(s, s.put(ocispec.MediaTypeImageConfig, config(2, history{{}}, record)), layers(2))
		}, "its history has 1 layers, its manifest 2"},
		"no history": {func(s strangers) ocispec.Descriptor {
			return image(s, s.put(ocispec.MediaTypeImageConfig, config(1, nil, record)), layers(1))
		}, "its history has 0 layers"},
		"a configuration of a petabyte": {func(s strangers) ocispec.Descriptor { return image(s, sized(whole(s), 1<<50), layers(1)) }, "8 MiB are the most"},
		"one of less than nothing":      {func(s strangers) ocispec.Descriptor { return image(s, sized(whole(s), -1), layers(1)) }, "-1 bytes"},
		"a manifest of a petabyte":      {func(s strangers) ocispec.Descriptor { return index(s, sized(image(s, whole(s), layers(1)), 1<<50)) }, "8 MiB are the most"},
		"a configuration that is another": {func(s strangers) ocispec.Descriptor {
			d := whole(s)
			s[d.Digest] = bytes.Replace(s[d.Digest], []byte("RUN x"), []byte("RUN y"), 1)
			return image(s, d, layers(1))
		}, "has other content"},
		"a digest that leads elsewhere": {func(s strangers) ocispec.Descriptor {
			return index(s, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: "sha256:../../x", Size: 1})
		}, "invalid"},
		"indexes of indexes": {func(s strangers) ocispec.Descriptor {
			d := index(s)
			for range 12 {
				d = index(s, d, d, d)
			}
			return d
		}, "more than 1000 manifests"},
		"results of long chains": {func(s strangers) ocispec.Descriptor {
			c, all := cachetypes.CacheConfig{}, layers(1000)
			for i, l := range all {
				c.Layers = append(c.Layers, cachetypes.CacheLayer{Blob: l.Digest, ParentIndex: i - 1})
			}
			for i := range 1000 {
				c.Records = append(c.Records, cachetypes.CacheRecord{Digest: digest.FromString(fmt.Sprint(i)), Results: []cachetypes.CacheResult{{LayerIndex: 999}}})
			}
			return index(s, append(all, s.put(cachetypes.CacheConfigMediaTypeV0, c))...)
		}, "have more than"},
		"layers that go round": {func(s strangers) ocispec.Descriptor {
			all := layers(2)
			c := cachetypes.CacheConfig{Records: record}
			c.Layers = []cachetypes.CacheLayer{{Blob: all[0].Digest, ParentIndex: 1}, {Blob: all[1].Digest, ParentIndex: 0}}
			return index(s, append(all, s.put(cachetypes.CacheConfigMediaTypeV0, c))...)
		}, "looping"},
		"a cache of its own": {func(s strangers) ocispec.Descriptor {
			all := layers(2)
			c := cachetypes.CacheConfig{Records: record}
			c.Layers = []cachetypes.CacheLayer{{Blob: all[0].Digest, ParentIndex: -1}, {Blob: all[1].Digest, ParentIndex: 0}}
			return index(s, append(all, s.put(cachetypes.CacheConfigMediaTypeV0, c))...)
		}, ""},
		"a cache of less than nothing": {func(s strangers) ocispec.Descriptor {
			return index(s, sized(s.put(cachetypes.CacheConfigMediaTypeV0, cachetypes.CacheConfig{}), -1))
		}, "-1 bytes"},
		"millions of nothings": {func(s strangers) ocispec.Descriptor {
			return s.put(ocispec.MediaTypeImageIndex, []byte(`{"manifests":[`+strings.Repeat("{},", 300_000)+`{}]}`))
		}, "parts"},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			s := strangers{}
			_, err := cacheImporter{s}.Resolve(t.Context(), row.make(s), "id", nil)
			if row.want == "" && err != nil || row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)) {
				t.Errorf("%v, want %q", err, row.want)
			}
		})
	}
}
