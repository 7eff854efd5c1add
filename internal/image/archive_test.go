package image

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// legacy is what `docker save` wrote before it knew OCI layouts: a folder a layer, and links for layers that are there already.
func legacy(t testing.TB, tags ...string) []byte {
	t.Helper()
	base, top := tarOf(t, file1("bin/a", "program")), tarOf(t, file1("etc/b", "b"), file1("bin/.wh.a", ""))
	config := configFor(sum(base), sum(top))
	name := strings.TrimPrefix(sum(config), "sha256:") + ".json"
	manifest, _ := json.Marshal([]map[string]any{{"Config": name, "RepoTags": tags, "Layers": []string{"one/layer.tar", "two/layer.tar"}}})
	return tarOf(t,
		file{name: "one/", kind: tar.TypeDir}, file1("one/VERSION", "1.0"), file1("one/json", "{}"), file1("one/layer.tar", string(base)),
		file{name: "two/", kind: tar.TypeDir}, file1("zero/layer.tar", string(top)), file{name: "two/layer.tar", kind: tar.TypeSymlink, link: "../zero/layer.tar"},
		file1(name, string(config)), file1("manifest.json", string(manifest)), file1("repositories", "{}"))
}

func tarOf(t testing.TB, files ...file) []byte {
	t.Helper()
	return layerOf(files...).Bytes()
}

// layout is an OCI layout as tools other than engines write it.
func layout(t testing.TB, annotations map[string]string) []byte {
	t.Helper()
	l := tarOf(t, file1("bin/a", "program"))
	config := configFor(sum(l))
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Config: descriptor(ocispec.MediaTypeImageConfig, config), Layers: []ocispec.Descriptor{descriptor(ocispec.MediaTypeImageLayer, l)}}
	m.SchemaVersion = 2
	manifest, _ := json.Marshal(m)
	var index ocispec.Index
	index.SchemaVersion = 2
	d := descriptor(ocispec.MediaTypeImageManifest, manifest)
	d.Annotations = annotations
	index.Manifests = []ocispec.Descriptor{d}
	top, _ := json.Marshal(index)
	blob := func(b []byte) file { return file1("blobs/sha256/"+strings.TrimPrefix(sum(b), "sha256:"), string(b)) }
	return tarOf(t, file1("oci-layout", `{"imageLayoutVersion":"1.0.0"}`), file1("index.json", string(top)), blob(manifest), blob(config), blob(l))
}

func loaded(t *testing.T, s *Service, b []byte, o TransferOptions) (said []string, err error) {
	t.Helper()
	o.Progress = statuses(&said)
	err = s.Load(t.Context(), bytes.NewReader(b), o)
	return said, err
}

func TestLoadForms(t *testing.T) {
	old := legacy(t, "team/app:1", "team/app:2")
	rows := map[string]struct {
		archive []byte
		said    string
	}{
		"docker save of old":       {old, "Loaded image: team/app:1"},
		"compressed with gzip":     {gzipped(t, old), "Loaded image: team/app:2"},
		"compressed with zstd":     {zstded(t, old), "Loaded image: team/app:1"},
		"without a name":           {legacy(t), "Loaded image ID: sha256:"},
		"an OCI layout":            {layout(t, map[string]string{ocispec.AnnotationRefName: "docker.io/team/app:1"}), "Loaded image: team/app:1"},
		"an OCI layout with a tag": {layout(t, map[string]string{ocispec.AnnotationRefName: "latest"}), "Loaded image ID: sha256:"},
		"containerd's name":        {layout(t, map[string]string{"io.containerd.image.name": "ghcr.io/a/b:1", ocispec.AnnotationRefName: "1"}), "Loaded image: ghcr.io/a/b:1"},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			said, err := loaded(t, s, row.archive, TransferOptions{})
			if err != nil || !strings.Contains(strings.Join(said, " "), row.said) {
				t.Fatalf("%q %v", said, err)
			}
			list, err := s.List(t.Context(), ListOptions{})
			if err != nil || len(list) != 1 {
				t.Fatalf("%v %v", list, err)
			}
			img, err := s.Resolve(t.Context(), list[0].ID, nil)
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range []string{"bin/a", "etc/b"}[len(img.Lower)-1 : len(img.Lower)] {
				if _, err := os.Stat(filepath.Join(img.Lower[0], want)); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// TestImageOfNothing: what is only a configuration is an image like others, but for running it.
func TestImageOfNothing(t *testing.T) {
	s := open(t)
	config := configFor()
	name := strings.TrimPrefix(sum(config), "sha256:") + ".json"
	manifest, _ := json.Marshal([]map[string]any{{"Config": name, "RepoTags": []string{"empty:1"}, "Layers": []string{}}})
	if said, err := loaded(t, s, tarOf(t, file1(name, string(config)), file1("manifest.json", string(manifest))), TransferOptions{}); err != nil {
		t.Fatalf("%q %v", said, err)
	}
	img, err := s.Resolve(t.Context(), "empty:1", nil)
	if err != nil || len(img.Lower) != 0 {
		t.Fatalf("%+v %v", img, err)
	}
	if about, err := s.Inspect(t.Context(), "empty:1", nil); err != nil || len(about.RootFS.Layers) != 0 {
		t.Errorf("inspect: %+v %v", about.RootFS, err)
	}
	if _, err := Mountable(t.Context(), s, "empty:1"); !errdefs.IsInvalidArgument(err) {
		t.Errorf("mount: %v", err)
	}
}

func TestBadArchivesLeaveNothing(t *testing.T) {
	old := legacy(t, "team/app:1")
	lacking := func(part string) []byte {
		var files []file
		for r := tar.NewReader(bytes.NewReader(old)); ; {
			h, err := r.Next()
			if err == io.EOF {
				return tarOf(t, files...)
			}
			if err != nil {
				t.Fatal(err)
			}
			b, _ := io.ReadAll(r)
			if !strings.HasPrefix(h.Name, part) {
				files = append(files, file{name: h.Name, kind: h.Typeflag, link: h.Linkname, content: string(b)})
			}
		}
	}
	ocilayout := layout(t, map[string]string{ocispec.AnnotationRefName: "docker.io/team/app:1"})
	rows := map[string][]byte{
		"cut": old[:len(old)/2], "gzip cut": gzipped(t, old)[:200], "no layer": lacking("one/layer.tar"), "no link target": lacking("zero"), "no manifest": lacking("manifest.json"),
		"empty": nil, "an empty tar": tarOf(t), "no image": tarOf(t, file1("manifest.json", "[]")), "text": []byte(strings.Repeat("text ", 300)),
		"a bad name": legacy(t, "team/APP:1"), "bad JSON": tarOf(t, file1("manifest.json", "[{")), "xz": append([]byte{0xfd, '7', 'z', 'X', 'Z', 0}, make([]byte, 100)...),
		"blobs missing": append([]byte(nil), ocilayout[:len(ocilayout)-4096]...),
		"other layers":  bytes.ReplaceAll(old, []byte("program"), []byte("PROGRAM")), // not what the config's digests say
	}
	for name, archive := range rows {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			if _, err := loaded(t, s, archive, TransferOptions{}); !errdefs.IsInvalidArgument(err) {
				t.Errorf("%v", err)
			}
			if list, err := s.List(t.Context(), ListOptions{}); err != nil || len(list) != 0 {
				t.Errorf("listed: %v %v", list, err)
			}
			if du, err := s.DiskUsage(t.Context()); err != nil || du.TotalSize != 0 {
				t.Errorf("%d bytes are left, %v", du.TotalSize, err)
			}
		})
	}
	s := open(t)
	if _, err := loaded(t, s, old, TransferOptions{Platform: &ocispec.Platform{OS: "linux", Architecture: "s390x"}}); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "s390x") {
		t.Errorf("another platform: %v", err)
	}
}

// TestSeveralImagesRoundTrip: names, contents and ids come back as they were, and layers that images share are in the archive once.
func TestSeveralImagesRoundTrip(t *testing.T) {
	a, b := open(t), open(t)
	base := imported(t, a, "base:1", file1("bin/a", strings.Repeat("x", 300<<10)))
	for _, name := range []string{"team/one:1", "team/two:2"} {
		if _, err := a.Commit(t.Context(), layer(t, file1("etc/name", name)), CommitOptions{Parent: base, Ref: name, Config: base.Config.Config}); err != nil {
			t.Fatal(err)
		}
	}
	var saved bytes.Buffer
	if err := a.Save(t.Context(), []string{"team/one:1", "team/two:2", base.ID.Encoded()[:12]}, SaveOptions{}, &saved); err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for r := tar.NewReader(bytes.NewReader(saved.Bytes())); ; {
		h, err := r.Next()
		if err != nil {
			break
		}
		seen[h.Name]++
	}
	for name, n := range seen {
		if n > 1 && strings.HasPrefix(name, "blobs/sha256/") && len(name) > 20 {
			t.Errorf("%s is there %d times", name, n)
		}
	}
	if err := b.Load(t.Context(), &saved, TransferOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"team/one:1", "team/two:2", base.ID.String()} {
		x, err := a.Resolve(t.Context(), name, nil)
		if err != nil {
			t.Fatal(err)
		}
		y, err := b.Resolve(t.Context(), name, nil)
		if err != nil || x.ID != y.ID || len(x.Lower) != len(y.Lower) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A repository stands for all of its tags.
	if err := a.Tag(t.Context(), "team/one:1", "team/one:other"); err != nil {
		t.Fatal(err)
	}
	saved.Reset()
	if err := a.Save(t.Context(), []string{"team/one"}, SaveOptions{}, &saved); err != nil {
		t.Fatal(err)
	}
	if said, err := loaded(t, open(t), saved.Bytes(), TransferOptions{}); err != nil || !strings.Contains(strings.Join(said, " "), "team/one:1") || !strings.Contains(strings.Join(said, " "), "team/one:other") {
		t.Errorf("%q %v", said, err)
	}
	if err := a.Save(t.Context(), []string{"none:1"}, SaveOptions{}, io.Discard); !errdefs.IsNotFound(err) {
		t.Error(err)
	}
}

// TestNamesInArchivesAreBounded: they stay in memory until the archive ends, and compress to next to nothing.
func TestNamesInArchivesAreBounded(t *testing.T) {
	s := open(t)
	var files []file
	for i := range 40 {
		files = append(files, file{name: strings.Repeat(string(rune('A'+i)), 900<<10), kind: tar.TypeSymlink, link: "x"})
	}
	_, err := loaded(t, s, gzipped(t, tarOf(t, files...)), TransferOptions{})
	if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "32 MiB") {
		t.Errorf("%.300v", err)
	}
}
