package test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const (
	typeManifest = "application/vnd.oci.image.manifest.v1+json"
	typeIndex    = "application/vnd.oci.image.index.v1+json"
	typeConfig   = "application/vnd.oci.image.config.v1+json"
	typeLayer    = "application/vnd.oci.image.layer.v1.tar"
)

type described struct {
	MediaType string   `json:"mediaType"`
	Digest    string   `json:"digest"`
	Size      int64    `json:"size"`
	URLs      []string `json:"urls,omitempty"`
}

func describe(mediaType string, b []byte) described {
	return described{MediaType: mediaType, Digest: fmt.Sprintf("sha256:%x", sha256.Sum256(b)), Size: int64(len(b))}
}

// badImage is what a registry of a stranger's says of an image. The zero value of each field is an honest answer.
type badImage struct {
	plain    [][]byte // tars, for the diff ids
	packed   [][]byte // what is served as layers; nil: plain
	kind     string   // of layers
	config   []byte
	manifest func(m *badManifest) // changes it
	top      func(b *badImage, manifest []byte) (mediaType string, body []byte)
	answer   http.HandlerFunc // for the manifest
	blobs    map[string][]byte
}

type badManifest struct {
	SchemaVersion int         `json:"schemaVersion"`
	MediaType     string      `json:"mediaType"`
	Config        described   `json:"config"`
	Layers        []described `json:"layers"`
}

func (b *badImage) put(body []byte) []byte {
	if b.blobs == nil {
		b.blobs = map[string][]byte{}
	}
	b.blobs[fmt.Sprintf("sha256:%x", sha256.Sum256(body))] = body
	return body
}

// ready makes the image's documents.
func (b *badImage) ready(t *testing.T) {
	t.Helper()
	if b.packed == nil {
		b.packed = b.plain
	}
	if b.config == nil {
		var diffs []string
		for _, l := range b.plain {
			diffs = append(diffs, fmt.Sprintf("sha256:%x", sha256.Sum256(l)))
		}
		var err error
		b.config, err = json.Marshal(map[string]any{"architecture": "amd64", "os": "linux", "rootfs": map[string]any{"type": "layers", "diff_ids": diffs}})
		ok(t, err)
	}
	m := badManifest{SchemaVersion: 2, MediaType: typeManifest, Config: describe(typeConfig, b.put(b.config))}
	kind := b.kind
	if kind == "" {
		kind = typeLayer
	}
	for _, l := range b.packed {
		m.Layers = append(m.Layers, describe(kind, b.put(l)))
	}
	if b.manifest != nil {
		b.manifest(&m)
	}
	body, err := json.Marshal(m)
	ok(t, err)
	mediaType := typeManifest
	if b.top != nil {
		mediaType, body = b.top(b, b.put(body))
	}
	b.put(body)
	if b.answer == nil {
		b.answer = func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", mediaType)
			_, _ = w.Write(body)
		}
	}
}

func (b *badImage) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	last := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
	body, known := b.blobs[last]
	switch {
	case r.URL.Path == "/v2/":
	case strings.Contains(r.URL.Path, "/manifests/") && !known:
		b.answer(w, r)
	case known:
		if strings.Contains(r.URL.Path, "/manifests/") {
			kind := struct{ MediaType string }{}
			_ = json.Unmarshal(body, &kind)
			w.Header().Set("Content-Type", kind.MediaType)
		}
		_, _ = w.Write(body)
	default:
		http.NotFound(w, r)
	}
}

func gzipOf(t *testing.T, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, err := w.Write(b)
	ok(t, err, w.Close())
	return out.Bytes()
}

// zstdZeros is a zstd frame of n blocks that each repeat one byte 128 KiB times (RFC 8878, 3.1.1).
func zstdZeros(n int) []byte {
	out := []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 7 << 3}
	for i := range n {
		head := uint32(128<<10)<<3 | 1<<1
		if i == n-1 {
			head |= 1
		}
		out = append(out, byte(head), byte(head>>8), byte(head>>16), 0)
	}
	return out
}

// headOf is a tar's header of a large file.
func headOf(size int64) []byte {
	var b bytes.Buffer
	_ = tar.NewWriter(&b).WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "zeros", Mode: 0o644, Size: size})
	return b.Bytes()
}

// badImages are pulled, and refused with the words.
func badImages(t *testing.T) map[string]struct {
	image *badImage
	want  string
} {
	small := layerOf(piece{name: "f", content: "x"})
	gz := gzipOf(t, headOf(4<<30))
	member := gzipOf(t, make([]byte, 32<<20))
	for range 40 {
		gz = append(gz, member...)
	}
	window := []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xf8, 1, 0, 0}
	many := func(n int) *badImage {
		b := &badImage{}
		for range n {
			b.plain = append(b.plain, small)
		}
		return b
	}
	config := func(text string) *badImage { return &badImage{plain: [][]byte{small}, config: []byte(text)} }
	changed := func(f func(m *badManifest)) *badImage { return &badImage{plain: [][]byte{small}, manifest: f} }
	layer := func(pieces ...piece) *badImage { return &badImage{plain: [][]byte{layerOf(pieces...)}} }
	endless := &badImage{plain: [][]byte{small}, answer: func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", typeManifest)
		if r.Method == http.MethodHead {
			return
		}
		_, _ = w.Write([]byte(`{"schemaVersion":2,"x":"`))
		for block := bytes.Repeat([]byte("x"), 1<<20); r.Context().Err() == nil; {
			if _, err := w.Write(block); err != nil {
				return
			}
		}
	}}
	deep := &badImage{plain: [][]byte{small}, top: func(b *badImage, body []byte) (string, []byte) {
		kind := typeManifest
		for range 40 {
			d, _ := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": typeIndex, "manifests": []any{describe(kind, body), describe(kind, body)}})
			body, kind = b.put(d), typeIndex
		}
		return kind, body
	}}
	empty := strings.Repeat("{},", 2_000_000) + "{}"
	wide := &badImage{plain: [][]byte{small}, top: func(b *badImage, body []byte) (string, []byte) {
		var list []described
		for i := range 60000 {
			list = append(list, describe(typeManifest, binary.BigEndian.AppendUint32(nil, uint32(i))))
		}
		d, _ := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": typeIndex, "manifests": list})
		return typeIndex, d
	}}
	return map[string]struct {
		image *badImage
		want  string
	}{
		"a gzip bomb":                 {&badImage{plain: [][]byte{small}, packed: [][]byte{gz}, kind: typeLayer + "+gzip"}, "bomb"},
		"a zstd bomb":                 {&badImage{plain: [][]byte{small}, packed: [][]byte{append(zstdZeros(1), zstdZeros(12000)...)}, kind: typeLayer + "+zstd"}, ""},
		"a zstd window of 2 TB":       {&badImage{plain: [][]byte{small}, packed: [][]byte{window}, kind: typeLayer + "+zstd"}, "window"},
		"gzip in gzip":                {&badImage{plain: [][]byte{small}, packed: [][]byte{gzipOf(t, gzipOf(t, small))}, kind: typeLayer + "+gzip"}, "tar"},
		"a path of 4096 bytes":        {layer(piece{name: strings.Repeat("d/", 2047) + "ff", content: "x"}, piece{name: strings.Repeat("d/", 2048) + "f", content: "x"}), "4095"},
		"a name of 4096 bytes":        {layer(piece{name: strings.Repeat("n", 4096), content: "x"}), "255"},
		"a link's text of 4096":       {layer(symlink("l", strings.Repeat("n", 4096))), "4095"},
		"links in a circle":           {layer(symlink("a", "b"), symlink("b", "a"), piece{name: "a/x", content: "x"}), ""},
		"a directory link to itself":  {layer(piece{name: "d/", kind: tar.TypeDir}, symlink("d/d", "."), piece{name: strings.Repeat("d/d/", 60) + "x", content: "x"}), ""},
		"a hard link to itself":       {layer(piece{name: "h", link: "h", kind: tar.TypeLink}), ""},
		"a layer's wrong size":        {changed(func(m *badManifest) { m.Layers[0].Size++ }), ""},
		"a layer of no size":          {changed(func(m *badManifest) { m.Layers[0].Size = 0 }), "bytes"},
		"a layer of negative size":    {changed(func(m *badManifest) { m.Layers[0].Size = -1 }), ""},
		"a layer of an exabyte":       {changed(func(m *badManifest) { m.Layers[0].Size = 1 << 60 }), ""},
		"a config's wrong size":       {changed(func(m *badManifest) { m.Config.Size++ }), ""},
		"a config of a gigabyte":      {changed(func(m *badManifest) { m.Config.Size = 1 << 30 }), ""},
		"a layer's wrong digest":      {changed(func(m *badManifest) { m.Layers[0].Digest = "sha256:" + strings.Repeat("0", 64) }), ""},
		"a digest that is a path":     {changed(func(m *badManifest) { m.Layers[0].Digest = "sha256:../../../../etc/passwd" }), "digest"},
		"a config's digest: a path":   {changed(func(m *badManifest) { m.Config.Digest = "sha256:../../../../etc/passwd" }), "digest"},
		"a layer of another type":     {changed(func(m *badManifest) { m.Layers[0].MediaType = "application/x-sh" }), "type"},
		"a manifest of another type":  {changed(func(m *badManifest) { m.MediaType = "application/x-sh" }), ""},
		"no layers":                   {changed(func(m *badManifest) { m.Layers = nil }), ""},
		"an endless manifest":         {endless, ""},
		"indexes nested deep":         {deep, ""},
		"an index of 60000":           {wide, ""},
		"five thousand layers":        {many(5000), "layers"},
		"a config nested deep":        {config(strings.Repeat(`{"a":[`, 100000)), ""},
		"a config with a number":      {config(`{"architecture":"amd64","os":"linux","config":{"StopTimeout":1e999},"rootfs":{"type":"layers","diff_ids":[]}}`), ""},
		"a config that is text":       {config("text"), ""},
		"a config of empty histories": {config(`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]},"history":[` + empty + `]}`), "parts"},
		"a manifest of empty layers": {&badImage{plain: [][]byte{small}, top: func(b *badImage, _ []byte) (string, []byte) {
			return typeManifest, []byte(`{"schemaVersion":2,"mediaType":"` + typeManifest + `","layers":[` + empty + `]}`)
		}}, "parts"},
		"a config of no layers": {config(`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}`), "layers"},
	}
}

// TestBadImages: each is refused in a line, by an engine whose memory stays bounded; nothing of them is left, and nothing outside changes.
func TestBadImages(t *testing.T) {
	h := newHostile(t)
	e := newEngine(shared, filepath.Join(shared.dir, "bad"))
	ok(t, e.start())
	t.Cleanup(func() { ok(t, e.shutdown(), os.RemoveAll(e.dir)) })
	for name, row := range badImages(t) {
		t.Run(name, func(t *testing.T) {
			row.image.ready(t)
			server := httptest.NewServer(row.image)
			defer server.Close()
			out, err := e.run("wherry", "pull", "-q", strings.TrimPrefix(server.URL, "http://")+"/bad/image:1")
			refused(t, e, out, err, row.want)
		})
	}
	const config = `{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}`
	passwd := symlink("layer.tar", "/etc/passwd")
	manifest := func(config, layer string) piece {
		return piece{name: "manifest.json", content: fmt.Sprintf(`[{"Config":%q,"RepoTags":["bad/image:1"],"Layers":[%q]}]`, config, layer)}
	}
	for name, pieces := range map[string][]piece{
		"links out":             {{name: "c.json", content: config}, passwd, manifest("c.json", "layer.tar")},
		"hard links out":        {{name: "c.json", content: config}, {name: "layer.tar", link: "../../../../../etc/passwd", kind: tar.TypeLink}, manifest("c.json", "layer.tar")},
		"paths out":             {{name: "c.json", content: config}, manifest("c.json", "../../../../../../../../etc/passwd")},
		"a config out":          {{name: "l", content: "x"}, manifest("/etc/passwd", "l")},
		"a config that is one":  {symlink("c.json", "/etc/passwd"), {name: "l", content: "x"}, manifest("c.json", "l")},
		"an entry twice":        {{name: "c.json", content: `{"a":1}`}, {name: "c.json", content: config}, {name: "l", content: "x"}, manifest("c.json", "l")},
		"an index of nothing":   {{name: "oci-layout", content: `{"imageLayoutVersion":"1.0.0"}`}, {name: "index.json", content: fmt.Sprintf(`{"schemaVersion":2,"manifests":[{"mediaType":%q,"digest":"sha256:%064d","size":7}]}`, typeManifest, 0)}},
		"an index that is huge": {{name: "oci-layout", content: `{"imageLayoutVersion":"1.0.0"}`}, {name: "index.json", content: strings.Repeat("[", 20<<20)}},
	} {
		t.Run("an archive with "+name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "bad.tar")
			ok(t, os.WriteFile(file, layerOf(pieces...), 0o644))
			out, err := e.run("wherry", "load", "-q", "-i", file)
			refused(t, e, out, err, "")
		})
	}
	if peak := peakOf(t, e.cmd.Process.Pid); peak > 150<<20 {
		t.Errorf("the engine had %d MiB of memory at its most", peak>>20)
	}
	out, err := e.run("wherry", "image", "prune", "-f")
	ok(t, err)
	left, err := filepath.Glob(e.dir + "/root/content/*/*")
	ok(t, err)
	blobs, err := filepath.Glob(e.dir + "/root/content/blobs/sha256/*")
	ok(t, err)
	if len(blobs) > 0 {
		t.Errorf("left are %v %v: %s", left, blobs, out)
	}
	h.intact()
}

// refused checks that an image was, in one line, and that the engine lives.
func refused(t *testing.T, e *engine, out string, err error, want string) {
	t.Helper()
	out = strings.TrimSpace(out)
	if err == nil || !strings.Contains(out, want) || strings.Count(out, "\n") > 0 || len(out) > 1000 {
		t.Errorf("%v, want %q: %.1500s", err, want, out)
	}
	if strings.Contains(out, "root:x:0:0") {
		t.Errorf("a file of the host is told: %s", out)
	}
	ok(t, ping(e.socket()))
	if list, err := e.run("wherry", "images", "-aq"); err != nil || strings.TrimSpace(list) != "" {
		t.Errorf("listed is %q, %v", list, err)
	}
}
