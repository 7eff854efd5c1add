package image

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/klauspost/compress/zstd"
	"github.com/moby/moby/api/types/image"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// layoutMaker makes OCI layouts, honest ones and others.
type layoutMaker struct {
	t       *testing.T
	blobs   map[digest.Digest][]byte
	entries []ocispec.Descriptor
}

func newLayout(t *testing.T) *layoutMaker {
	return &layoutMaker{t: t, blobs: map[digest.Digest][]byte{}}
}

func (l *layoutMaker) blob(mediaType string, b []byte) ocispec.Descriptor {
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}
	l.blobs[d.Digest] = b
	return d
}

func (l *layoutMaker) json(mediaType string, v any) ocispec.Descriptor {
	b, err := json.Marshal(v)
	if err != nil {
		l.t.Fatal(err)
	}
	return l.blob(mediaType, b)
}

// image is one platform's, with a file that names it.
func (l *layoutMaker) image(arch string) ocispec.Descriptor {
	files := layerOf(file1("arch", arch)).Bytes()
	p := ocispec.Platform{OS: "linux", Architecture: arch}
	config := ocispec.Image{Platform: p, RootFS: ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromBytes(files)}}}
	d := l.json(ocispec.MediaTypeImageManifest, ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: l.json(ocispec.MediaTypeImageConfig, config), Layers: []ocispec.Descriptor{l.blob(ocispec.MediaTypeImageLayer, files)}})
	d.Platform = &p
	return d
}

// attestation is what buildx says of an image.
func (l *layoutMaker) attestation(of ocispec.Descriptor) ocispec.Descriptor {
	statement := l.blob("application/vnd.in-toto+json", []byte(`{"of":"`+of.Digest+`"}`))
	statement.Annotations = map[string]string{predicateLabel: "https://slsa.dev/provenance/v1"}
	d := l.json(ocispec.MediaTypeImageManifest, ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: l.json(ocispec.MediaTypeImageConfig, ocispec.Image{Author: of.Digest.String(), Platform: ocispec.Platform{OS: "unknown", Architecture: "unknown"}}), Layers: []ocispec.Descriptor{statement}})
	d.Platform = &ocispec.Platform{OS: "unknown", Architecture: "unknown"}
	d.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": of.Digest.String()}
	return d
}

func (l *layoutMaker) artifact(kind string, subject *ocispec.Descriptor) ocispec.Descriptor {
	return l.json(ocispec.MediaTypeImageManifest, ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, ArtifactType: kind,
		Config: l.blob(ocispec.MediaTypeEmptyJSON, []byte("{}")), Layers: []ocispec.Descriptor{l.blob("text/plain", []byte("of "+kind))}, Subject: subject})
}

func (l *layoutMaker) index(list ...ocispec.Descriptor) ocispec.Descriptor {
	return l.json(ocispec.MediaTypeImageIndex, ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: list})
}

// name makes a descriptor an entry of index.json.
func (l *layoutMaker) name(d ocispec.Descriptor, name string) {
	d.Annotations = nil
	if name != "" {
		d.Annotations = map[string]string{images.AnnotationImageName: name}
	}
	l.entries = append(l.entries, d)
}

// tar writes the layout; more are further files, or replace those that are there.
func (l *layoutMaker) tar(more ...file) []byte {
	index, err := json.Marshal(ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, Manifests: l.entries})
	if err != nil {
		l.t.Fatal(err)
	}
	files := []file{file1("oci-layout", `{"imageLayoutVersion":"1.0.0"}`), file1("index.json", string(index))}
	for d, b := range l.blobs {
		files = append(files, file1(layoutPath(d), string(b)))
	}
	return layerOf(append(files, more...)...).Bytes()
}

// severalPlatforms is what buildx makes of a build for two platforms with provenance.
func severalPlatforms(t *testing.T, name string) (*layoutMaker, ocispec.Descriptor) {
	l := newLayout(t)
	amd, arm := l.image("amd64"), l.image("arm64")
	index := l.index(amd, arm, l.attestation(amd), l.attestation(arm))
	l.name(index, name)
	return l, index
}

func platform(arch string) *ocispec.Platform {
	return &ocispec.Platform{OS: "linux", Architecture: arch}
}

// kinds says what of an image is here: its platforms and what is attested of them.
func kinds(t *testing.T, s *Service, name string) string {
	t.Helper()
	seen, err := s.Inspect(t.Context(), name, nil)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, m := range seen.Manifests {
		switch {
		case !m.Available:
		case m.Kind == image.ManifestKindAttestation:
			out = append(out, "attestation")
		default:
			out = append(out, m.ImageData.Platform.Architecture)
		}
	}
	return strings.Join(out, " ")
}

func names(t *testing.T, archive []byte) map[string]string {
	t.Helper()
	out := map[string]string{}
	for r := tar.NewReader(bytes.NewReader(archive)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		out[h.Name] = string(b)
	}
}

// TestSeveralPlatformsInTheStore: all come and go one by one, and the index stays what it was.
func TestSeveralPlatformsInTheStore(t *testing.T) {
	s := open(t)
	l, index := severalPlatforms(t, "docker.io/team/app:1")
	if _, err := loaded(t, s, l.tar(), TransferOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := kinds(t, s, "team/app:1"); got != "amd64 arm64 attestation attestation" {
		t.Errorf("here is %s", got)
	}
	arm, err := s.Resolve(t.Context(), "team/app:1", platform("arm64"))
	if err != nil || arm.ID != index.Digest || arm.Config.Architecture != "arm64" {
		t.Fatalf("%+v %v", arm, err)
	}
	// One platform goes, with what is attested of it; one that is in use does not.
	if err := s.Acquire(t.Context(), arm.ID, arm.Manifest.Digest, "user"); err != nil {
		t.Fatal(err)
	}
	only := func(arch string) RemoveOptions { return RemoveOptions{Platforms: []ocispec.Platform{*platform(arch)}} }
	if _, err := s.Remove(t.Context(), "team/app:1", only("arm64")); !errdefs.IsConflict(err) {
		t.Errorf("a platform in use: %v", err)
	}
	s.Release(t.Context(), "user")
	before, _ := s.DiskUsage(t.Context())
	gone, err := s.Remove(t.Context(), "team/app:1", only("arm64"))
	if err != nil || len(gone) != 1 || gone[0].Deleted != arm.Manifest.Digest.String() {
		t.Fatalf("%v %v", gone, err)
	}
	after, _ := s.DiskUsage(t.Context())
	if got := kinds(t, s, "team/app:1"); got != "amd64 attestation" || after.TotalSize >= before.TotalSize {
		t.Errorf("here is %s, %d bytes of %d", got, after.TotalSize, before.TotalSize)
	}
	if _, err := s.Resolve(t.Context(), "team/app:1", platform("arm64")); !errdefs.IsNotFound(err) {
		t.Errorf("still here: %v", err)
	}
	if _, err := s.Remove(t.Context(), "team/app:1", only("s390x")); !errdefs.IsNotFound(err) || !strings.Contains(err.Error(), "linux/amd64") {
		t.Errorf("one that is not here: %v", err)
	}
	// Loading it again brings it back; with a platform, only that.
	if _, err := loaded(t, s, l.tar(), TransferOptions{}); err != nil || kinds(t, s, "team/app:1") != "amd64 arm64 attestation attestation" {
		t.Errorf("%v: here is %s", err, kinds(t, s, "team/app:1"))
	}
	other := open(t)
	if _, err := loaded(t, other, l.tar(), TransferOptions{Platforms: []ocispec.Platform{*platform("arm64")}}); err != nil {
		t.Fatal(err)
	}
	if err := other.sweep(in(t.Context())); err != nil || kinds(t, other, "team/app:1") != "arm64 attestation" {
		t.Errorf("%v: here is %s", err, kinds(t, other, "team/app:1"))
	}
	// With the last one the image goes.
	if _, err := other.Remove(t.Context(), "team/app:1", only("arm64")); err != nil {
		t.Fatal(err)
	}
	if list, _ := other.List(t.Context(), ListOptions{}); len(list) != 0 {
		t.Errorf("left: %+v", list)
	}
}

// TestFormatsOfSave: the same images as a layout, a docker-archive or both, whole or by platforms, come back as what they were.
func TestFormatsOfSave(t *testing.T) {
	s := open(t)
	l, index := severalPlatforms(t, "docker.io/team/app:1")
	if _, err := loaded(t, s, l.tar(), TransferOptions{}); err != nil {
		t.Fatal(err)
	}
	both := []ocispec.Platform{*platform("amd64"), *platform("arm64")}
	rows := []struct {
		format string
		only   []ocispec.Platform
		files  string // some that are there
		absent string
		here   string
		index  bool
	}{
		{FormatBoth, nil, "index.json manifest.json oci-layout", "", "amd64 arm64 attestation attestation", true},
		{FormatOCI, nil, "index.json oci-layout", "manifest.json", "amd64 arm64 attestation attestation", true},
		{FormatOCI, both, "index.json", "manifest.json", "amd64 arm64 attestation attestation", true},
		{FormatBoth, both[1:], "index.json manifest.json", "", "arm64", false},
		{FormatDocker, nil, "manifest.json", "index.json oci-layout", "amd64", false},
		{FormatDocker, both[1:], "manifest.json", "index.json oci-layout", "arm64", false},
	}
	for _, row := range rows {
		t.Run(fmt.Sprint(row.format, len(row.only)), func(t *testing.T) {
			var saved, again bytes.Buffer
			o := SaveOptions{Format: row.format, Platforms: row.only}
			if err := errors.Join(s.Save(t.Context(), []string{"team/app:1"}, o, &saved), s.Save(t.Context(), []string{"team/app:1"}, o, &again)); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(saved.Bytes(), again.Bytes()) {
				t.Error("two archives of the same image differ")
			}
			files := names(t, saved.Bytes())
			for _, name := range strings.Fields(row.files) {
				if files[name] == "" {
					t.Errorf("no %s", name)
				}
			}
			for _, name := range strings.Fields(row.absent) {
				if files[name] != "" {
					t.Errorf("%s is there", name)
				}
			}
			other := open(t)
			if _, err := loaded(t, other, saved.Bytes(), TransferOptions{}); err != nil {
				t.Fatal(err)
			}
			seen, err := other.Inspect(t.Context(), "team/app:1", nil)
			if err != nil || (seen.ID == index.Digest.String()) != row.index || kinds(t, other, "team/app:1") != row.here {
				t.Errorf("%v: %s, here is %s", err, seen.ID, kinds(t, other, "team/app:1"))
			}
		})
	}
	if err := s.Save(t.Context(), []string{"team/app:1"}, SaveOptions{Platforms: []ocispec.Platform{*platform("s390x")}}, io.Discard); !errdefs.IsNotFound(err) || !strings.Contains(err.Error(), "linux/arm64") {
		t.Errorf("a platform that is not here: %v", err)
	}
	if err := s.Save(t.Context(), []string{"team/app:1"}, SaveOptions{Format: "zip"}, io.Discard); !errdefs.IsInvalidArgument(err) {
		t.Errorf("an unknown format: %v", err)
	}
}

// TestPullAndPushSeveralPlatforms: one by one or all at once, with what is attested of them; what is whole is pushed as it was.
func TestPullAndPushSeveralPlatforms(t *testing.T) {
	host := realRegistry(t, nil)
	a := open(t)
	name := host + "/team/app:1"
	l, index := severalPlatforms(t, name)
	if _, err := loaded(t, a, l.tar(), TransferOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := a.Push(t.Context(), name, TransferOptions{}); err != nil {
		t.Fatal(err)
	}
	b, c := open(t), open(t)
	if err := b.Pull(t.Context(), name, TransferOptions{}); err != nil || kinds(t, b, name) != "amd64 attestation" {
		t.Errorf("%v: here is %s", err, kinds(t, b, name))
	}
	if err := b.Pull(t.Context(), name, TransferOptions{Platform: platform("arm64")}); err != nil || kinds(t, b, name) != "amd64 arm64 attestation attestation" {
		t.Errorf("%v: here is %s", err, kinds(t, b, name))
	}
	if err := c.Pull(t.Context(), name, TransferOptions{AllPlatforms: true}); err != nil || kinds(t, c, name) != "amd64 arm64 attestation attestation" {
		t.Errorf("%v: here is %s", err, kinds(t, c, name))
	}
	for i, s := range []*Service{b, c} {
		to := fmt.Sprintf("%s/copy/%d:1", host, i)
		if err := s.Tag(t.Context(), name, to); err != nil {
			t.Fatal(err)
		}
		if err := s.Push(t.Context(), to, TransferOptions{}); err != nil {
			t.Fatal(err)
		}
		d := open(t)
		if err := d.Pull(t.Context(), to+"@"+index.Digest.String(), TransferOptions{AllPlatforms: true}); err != nil {
			t.Errorf("what was pushed is not what was pulled: %v", err)
		}
	}
	if err := a.Tag(t.Context(), name, host+"/one:1"); err != nil {
		t.Fatal(err)
	}
	if err := a.Push(t.Context(), host+"/one:1", TransferOptions{Platform: platform("arm64")}); err != nil {
		t.Fatal(err)
	}
	seen, err := a.Distribution(t.Context(), host+"/one:1", nil)
	if err != nil || len(seen.Platforms) != 1 || seen.Platforms[0].Architecture != "arm64" || seen.Descriptor.MediaType != ocispec.MediaTypeImageManifest {
		t.Errorf("%+v %v", seen, err)
	}
}

// ServeHTTP makes it a registry.
func (l *layoutMaker) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	d := digest.Digest(path.Base(r.URL.Path))
	if d.Validate() != nil {
		d = l.entries[0].Digest
	}
	if strings.Contains(r.URL.Path, "/manifests/") {
		var doc struct{ MediaType string }
		_ = json.Unmarshal(l.blobs[d], &doc)
		w.Header().Set("Content-Type", doc.MediaType)
		w.Header().Set("Docker-Content-Digest", d.String())
	}
	_, _ = w.Write(l.blobs[d])
}

// TestPullAllPlatforms: what cannot run here comes whole and is unpacked when somebody asks for it. Layers that nobody may distribute, and
// such as are no files for this kernel, are no hindrance.
func TestPullAllPlatforms(t *testing.T) {
	l := newLayout(t)
	windows := l.json(ocispec.MediaTypeImageManifest, ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: l.json(ocispec.MediaTypeImageConfig, ocispec.Image{Platform: ocispec.Platform{OS: "windows", Architecture: "amd64"}, RootFS: ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromString("a"), digest.FromString("b")}}}),
		Layers: []ocispec.Descriptor{{MediaType: ocispec.MediaTypeImageLayerNonDistributableGzip, Digest: digest.FromString("elsewhere"), Size: 9}, l.blob(ocispec.MediaTypeImageLayer, []byte("no tar"))}}) //nolint:staticcheck // old ones have it
	windows.Platform = &ocispec.Platform{OS: "windows", Architecture: "amd64"}
	l.name(l.index(l.image("amd64"), windows, l.image("arm64")), "")
	server := httptest.NewServer(l)
	defer server.Close()
	s, name := open(t), strings.TrimPrefix(server.URL, "http://")+"/a/b:1"
	if err := s.Pull(t.Context(), name, TransferOptions{AllPlatforms: true}); err != nil || kinds(t, s, name) != "amd64 amd64 arm64" {
		t.Fatalf("%v: here is %s", err, kinds(t, s, name))
	}
	unpacked := func() (n int) {
		err := s.snaps.Walk(in(t.Context()), func(context.Context, snapshots.Info) error { n++; return nil })
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := unpacked(); n != 1 {
		t.Errorf("%d layers are unpacked", n)
	}
	server.Close()
	if _, err := s.Resolve(t.Context(), name, platform("arm64")); err != nil || unpacked() != 2 {
		t.Errorf("a foreign platform that is asked for: %v, %d layers", err, unpacked())
	}
}

// TestLayoutsOfManyKinds: several images, indexes, artifacts and referrers in one layout; docker-archives of other tools.
func TestLayoutsOfManyKinds(t *testing.T) {
	l, _ := severalPlatforms(t, "docker.io/team/app:1")
	one := l.image("riscv64")
	l.name(one, "docker.io/team/one:1")
	l.name(l.artifact("application/x-thing", nil), "docker.io/team/thing:1")
	l.name(l.artifact("application/x-signature", &one), "")
	tagOnly := l.image("s390x")
	tagOnly.Annotations = map[string]string{ocispec.AnnotationRefName: "v1"}
	l.entries = append(l.entries, tagOnly)
	s := open(t)
	said, err := loaded(t, s, l.tar(), TransferOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Loaded image: team/app:1", "Loaded image: team/one:1", "Loaded artifact: team/thing:1", "Loaded artifact ID: sha256:", "Loaded image ID: " + tagOnly.Digest.String()} {
		if !strings.Contains(strings.Join(said, "\n"), want) {
			t.Errorf("%q is not said in %q", want, said)
		}
	}
	if _, err := s.Resolve(t.Context(), "team/thing:1", nil); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "artifact") {
		t.Errorf("an artifact is taken for an image: %v", err)
	}
	var saved bytes.Buffer
	if err := s.Save(t.Context(), []string{"team/thing:1", "team/one:1"}, SaveOptions{}, &saved); err != nil {
		t.Fatal(err)
	}
	if said, err = loaded(t, open(t), saved.Bytes(), TransferOptions{}); err != nil || !strings.Contains(strings.Join(said, "\n"), "Loaded artifact: team/thing:1") {
		t.Errorf("%q %v", said, err)
	}
	// Compressed layers, links between entries, names with ./, no names of images.
	plain := layerOf(file1("arch", "amd64")).Bytes()
	config, _ := json.Marshal(ocispec.Image{Platform: *platform("amd64"), RootFS: ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromBytes(plain), digest.FromBytes(plain)}}})
	z, _ := zstd.NewWriter(nil)
	for kind, layer := range map[string][]byte{"plain": plain, "gzip": gzipped(t, plain), "zstd": z.EncodeAll(plain, nil)} {
		archive := layerOf(file1("./c.json", string(config)), file1("./abc/layer.tar", string(layer)), file{name: "def/layer.tar", kind: tar.TypeSymlink, link: "../abc/layer.tar"},
			file{name: "ghi/layer.tar", kind: tar.TypeLink, link: "def/layer.tar"}, file1("abc/VERSION", "1.0"), file1("repositories", "{}"),
			file1("manifest.json", `[{"Config":"c.json","RepoTags":null,"Layers":["def/layer.tar","ghi/layer.tar"]}]`)).Bytes()
		s := open(t)
		said, err := loaded(t, s, archive, TransferOptions{})
		if err != nil || len(said) != 1 || !strings.Contains(said[0], "Loaded image ID: sha256:") {
			t.Fatalf("%s: %q %v", kind, said, err)
		}
		id := strings.TrimSpace(strings.TrimPrefix(said[0], "Loaded image ID: "))
		if img, err := s.Resolve(t.Context(), id, nil); err != nil || len(img.Lower) != 2 {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

// TestHostileLayouts: each is refused with a word about what is wrong, and leaves nothing.
func TestHostileLayouts(t *testing.T) {
	with := func(change func(l *layoutMaker, index ocispec.Descriptor)) *layoutMaker {
		l, index := severalPlatforms(t, "docker.io/team/app:1")
		l.entries = nil
		change(l, index)
		return l
	}
	lies := with(func(l *layoutMaker, index ocispec.Descriptor) { index.Size++; l.name(index, "a:1") })
	below := with(func(l *layoutMaker, _ ocispec.Descriptor) {
		amd := l.image("amd64")
		amd.Size--
		l.name(l.index(amd), "a:1")
	})
	deep := with(func(l *layoutMaker, index ocispec.Descriptor) {
		for range 20 {
			index = l.index(index, index, index)
		}
		l.name(index, "a:1")
	})
	wide := with(func(l *layoutMaker, _ ocispec.Descriptor) {
		var list []ocispec.Descriptor
		for n := range maxManifests + 1 {
			d := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString(fmt.Sprint(n)), Size: 3}
			list = append(list, d)
		}
		l.name(l.index(list...), "a:1")
	})
	honest, index := severalPlatforms(t, "docker.io/team/app:1")
	rows := map[string]struct {
		archive []byte
		want    string
	}{
		"a size that lies":                  {lies.tar(), "bytes, not"},
		"a size that lies below an index":   {below.tar(), "bytes"},
		"indexes nested too deep":           {deep.tar(), "nested"},
		"an index of too many":              {wide.tar(), "name more than"},
		"other content than the name":       {honest.tar(file1(layoutPath(digest.FromString("x")), "y")), "other content than its name"},
		"an entry replaced":                 {honest.tar(file1(layoutPath(index.Digest), strings.Repeat(" ", int(index.Size)))), "other content than its name"},
		"a name that is no digest":          {honest.tar(file1("blobs/sha256/../../x/y", "z"), file1("blobs/sha256/abc", "z")), "digest"},
		"links out":                         {layerOf(file1("oci-layout", `{"imageLayoutVersion":"1.0.0"}`), file{name: "index.json", kind: tar.TypeSymlink, link: "/etc/passwd"}).Bytes(), "without index.json"},
		"a layer that is a link out":        {layerOf(file1("c", "{}"), file{name: "l", kind: tar.TypeSymlink, link: "../../../../etc/passwd"}, file1("manifest.json", `[{"Config":"c","Layers":["l"]}]`)).Bytes(), `"l" is not in it`},
		"links in a circle":                 {layerOf(file1("c", "{}"), file{name: "l", kind: tar.TypeSymlink, link: "m"}, file{name: "m", kind: tar.TypeLink, link: "l"}, file1("manifest.json", `[{"Config":"c","Layers":["l"]}]`)).Bytes(), "is not in it"},
		"another version":                   {honest.tar(file1("oci-layout", `{"imageLayoutVersion":"2.0"}`)), "version"},
		"an endless index.json":             {honest.tar(file1("index.json", strings.Repeat(" ", maxJSON+1))), "8 MiB"},
		"an empty layer file":               {layerOf(file1("c", string(configFor(sum([]byte("x"))))), file1("l", ""), file1("manifest.json", `[{"Config":"c","Layers":["l"]}]`)).Bytes(), "the config says"},
		"an image of a type that is no one": {newLayout(t).tar(), "no image"},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			if _, err := loaded(t, s, row.archive, TransferOptions{}); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), row.want) {
				t.Errorf("%v", err)
			}
			if du, err := s.DiskUsage(t.Context()); err != nil || du.TotalSize != 0 || len(du.Items) != 0 {
				t.Errorf("%d bytes are left, %v", du.TotalSize, err)
			}
		})
	}
}

// FuzzArchived: whatever an archive holds, reading it ends with images whose content is here, or an error.
func FuzzArchived(f *testing.F) {
	t := new(testing.T)
	l, _ := severalPlatforms(t, "docker.io/team/app:1")
	f.Add(l.tar())
	f.Add(layerOf(file1("c", "{}"), file{name: "l", kind: tar.TypeSymlink, link: "m"}, file1("manifest.json", `[{"Config":"c","RepoTags":["a:1"],"Layers":["l"]}]`)).Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		s := open(t)
		ctx, done, err := s.lease(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer done()
		list, err := newArchived(s.blobs).read(ctx, bytes.NewReader(b))
		if err != nil {
			return
		}
		for _, d := range list {
			if b, err := s.small(ctx, d); err != nil || digest.FromBytes(b) != d.Digest {
				t.Errorf("%s is not here: %v", d.Digest, err)
			}
		}
	})
}
