package image

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// pushed makes an image for a platform and sends it; nothing of it stays here.
func pushed(t *testing.T, name, arch string) digest.Digest {
	t.Helper()
	s := open(t)
	l := newLayout(t)
	d := l.image(arch)
	l.name(d, name)
	if _, err := loaded(t, s, l.tar(), TransferOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := s.Push(t.Context(), name, TransferOptions{}); err != nil {
		t.Fatal(err)
	}
	return d.Digest
}

// TestLists: a list of images of different repositories and of the store is made, changed, sent and used.
func TestLists(t *testing.T) {
	host := realRegistry(t, nil)
	arm := pushed(t, host+"/parts/arm:1", "arm64")
	other := pushed(t, host+"/parts/other:1", "s390x")
	s := open(t)
	amd := imported(t, s, "local/amd:1", file{name: "bin/a", content: "program"})
	l, m := Lists{s}, Manifests{s}
	name := host + "/team/list:1"
	if err := l.Create(t.Context(), name, false); err != nil {
		t.Fatal(err)
	}
	made, err := s.List(t.Context(), ListOptions{})
	if err != nil || len(made) != 2 {
		t.Fatalf("%+v, %v", made, err)
	}
	for _, sum := range made {
		if sum.ID != amd.ID.String() && time.Since(time.Unix(sum.Created, 0)) > time.Hour {
			t.Errorf("a list that has just been made is of %s", time.Unix(sum.Created, 0))
		}
	}
	if err := l.Create(t.Context(), name, false); !errdefs.IsAlreadyExists(err) || !strings.Contains(err.Error(), "--amend") {
		t.Errorf("twice: %v", err)
	}
	for _, image := range []string{"local/amd:1", host + "/parts/arm:1", host + "/parts/other:1"} {
		if _, err := l.Add(t.Context(), name, Listed{Image: image}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := l.Add(t.Context(), name, Listed{Image: host + "/parts/none:1"}); !errdefs.IsNotFound(err) {
		t.Errorf("one that is nowhere: %v", err)
	}
	if err := l.Annotate(t.Context(), name, Listed{Image: host + "/parts/arm:1", Platform: ocispec.Platform{Variant: "v8", OSFeatures: []string{"x"}}, Annotations: map[string]string{"k": "v"}}); err != nil {
		t.Fatal(err)
	}
	if err := l.Remove(t.Context(), name, Listed{Image: other.String()}); err != nil {
		t.Fatal(err)
	}
	if err := l.Remove(t.Context(), name, Listed{Image: other.String()}); !errdefs.IsNotFound(err) {
		t.Errorf("removed twice: %v", err)
	}
	view, err := m.Inspect(t.Context(), Listed{Image: name}, true)
	if err != nil || len(view.Children) != 2 {
		t.Fatalf("%+v %v", view, err)
	}
	var x ocispec.Index
	if err := json.Unmarshal(view.Raw, &x); err != nil {
		t.Fatal(err)
	}
	first, second := x.Manifests[0], x.Manifests[1]
	if first.Digest != amd.ID || second.Digest != arm || second.Platform.Variant != "v8" || second.Platform.Architecture != "arm64" || second.Annotations["k"] != "v" || second.Platform.OSFeatures[0] != "x" {
		t.Errorf("the list is %+v", x.Manifests)
	}
	// Nothing is left of what it was before, and nothing of the layers of others is here.
	if list, err := s.List(t.Context(), ListOptions{All: true}); err != nil || len(list) != 2 {
		t.Errorf("images: %+v %v", list, err)
	}
	if got := kinds(t, s, name); got != "amd64" {
		t.Errorf("here is %s", got)
	}
	if report, err := Check(t.Context(), s, CheckOptions{}); err != nil || report.Damaged != 0 {
		t.Errorf("what is only listed counts as damage: %+v %v", report, err)
	}
	pushed, err := l.Push(t.Context(), name, Place{}, TransferOptions{})
	if err != nil || pushed != view.Descriptor.Digest {
		t.Fatalf("%s %v", pushed, err)
	}
	b := open(t)
	if err := b.Pull(t.Context(), name, TransferOptions{AllPlatforms: true}); err != nil || kinds(t, b, name) != "amd64 arm64" {
		t.Fatalf("%v: here is %s", err, kinds(t, b, name))
	}
	// What a registry has is asked for there, also when it is here.
	if view, err = (Manifests{b}).Inspect(t.Context(), Listed{Image: name}, false); err != nil || view.Descriptor.Digest != pushed || len(view.Children) != 0 {
		t.Errorf("%+v %v", view, err)
	}
	if err := l.Delete(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Add(t.Context(), name, Listed{Image: "local/amd:1"}); !errdefs.IsNotFound(err) {
		t.Errorf("into a list that is gone: %v", err)
	}
	if err := l.Delete(t.Context(), "local/amd:1"); !errdefs.IsInvalidArgument(err) {
		t.Errorf("an image is no list: %v", err)
	}
}

// referrersAPI puts the referrers API before a registry that has none, by what is pushed through it.
type referrersAPI struct {
	next http.Handler

	mu   sync.Mutex
	refs map[string][]ocispec.Descriptor
}

func (a *referrersAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if at := strings.Index(r.URL.Path, "/referrers/"); at > 0 && r.Method == http.MethodGet {
		a.list(w, r, r.URL.Path[:at]+"@"+r.URL.Path[at+len("/referrers/"):])
		return
	}
	if at := strings.Index(r.URL.Path, "/manifests/"); at > 0 && r.Method == http.MethodPut {
		b, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(b))
		var m ocispec.Manifest
		if json.Unmarshal(b, &m) == nil && m.Subject != nil {
			a.mu.Lock()
			d := ocispec.Descriptor{MediaType: m.MediaType, Digest: digest.FromBytes(b), Size: int64(len(b)), ArtifactType: artifactType(m), Annotations: m.Annotations}
			key := r.URL.Path[:at] + "@" + m.Subject.Digest.String()
			a.refs[key] = append(a.refs[key], d)
			a.mu.Unlock()
			w.Header().Set("OCI-Subject", m.Subject.Digest.String())
		}
	}
	a.next.ServeHTTP(w, r)
}

// list gives one referrer a page.
func (a *referrersAPI) list(w http.ResponseWriter, r *http.Request, subject string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	at := 0
	_, _ = fmt.Sscan(r.URL.Query().Get("from"), &at)
	x := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{}}
	if all := a.refs[subject]; at < len(all) {
		x.Manifests = all[at : at+1]
		if at+1 < len(all) {
			w.Header().Set("Link", fmt.Sprintf(`<%s?from=%d>; rel="next"`, r.URL.Path, at+1))
		}
	}
	w.Header().Set("Content-Type", ocispec.MediaTypeImageIndex)
	_ = json.NewEncoder(w).Encode(x)
}

func types(list []ocispec.Descriptor) string {
	var out []string
	for _, d := range list {
		out = append(out, d.ArtifactType)
	}
	return strings.Join(out, " ")
}

// TestReferrers: what is attached to an image is listed, with the referrers API and without, and comes along with copies.
func TestReferrers(t *testing.T) {
	plain := realRegistry(t, nil)
	with := realRegistry(t, func(next http.Handler) http.Handler {
		return &referrersAPI{next: next, refs: map[string][]ocispec.Descriptor{}}
	})
	for name, hosts := range map[string][2]string{"tags": {plain, plain}, "the API": {with, with}, "from tags to the API": {plain, with}, "from the API to tags": {with, plain}} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			m := Manifests{s}
			from := hosts[0] + "/" + strings.ReplaceAll(strings.ToLower(name), " ", "-") + "/app:1"
			l, index := severalPlatforms(t, from)
			if _, err := loaded(t, s, l.tar(), TransferOptions{}); err != nil {
				t.Fatal(err)
			}
			if err := s.Push(t.Context(), from, TransferOptions{}); err != nil {
				t.Fatal(err)
			}
			attach := func(image, kind string, platform *ocispec.Platform) ocispec.Descriptor {
				o := AttachOptions{AddOptions: AddOptions{Type: kind, Annotations: map[string]string{"for": kind}}, Platform: platform}
				d, err := m.Attach(t.Context(), Place{Name: image}, o, layerOf(file1("sbom.json", "{"+kind+"}")))
				if err != nil {
					t.Fatal(err)
				}
				return d
			}
			first := attach(from, "a/sbom", nil)
			attach(from, "a/signature", nil)
			attach(from, "a/arm", platform("arm64"))
			repository, _, _ := strings.Cut(from, "/app:1")
			attach(repository+"/app@"+first.Digest.String(), "a/of-sbom", nil)
			for _, row := range []struct {
				kind, want string
				platform   *ocispec.Platform
			}{{"", "a/sbom a/signature", nil}, {"a/sbom", "a/sbom", nil}, {"a/none", "", nil}, {"", "a/arm", platform("arm64")}} {
				subject, list, err := m.Referrers(t.Context(), Place{Name: from}, row.platform, row.kind)
				if err != nil || types(list) != row.want || (subject.Digest == index.Digest) != (row.platform == nil) {
					t.Errorf("%q: %s, of %s, %v", row.kind, types(list), subject.Digest, err)
				}
			}
			if list, err := (Artifacts{s}).List(t.Context()); err != nil || len(list) != 0 {
				t.Errorf("left here: %+v %v", list, err)
			}
			to := hosts[1] + "/" + strings.ReplaceAll(strings.ToLower(name), " ", "-") + "/copy:2"
			d, err := m.Copy(t.Context(), CopyOptions{From: Place{Name: from}, To: Place{Name: to}, All: true, Referrers: true})
			if err != nil || d.Digest != index.Digest {
				t.Fatalf("%s %v", d.Digest, err)
			}
			_, list, err := m.Referrers(t.Context(), Place{Name: to}, nil, "")
			if err != nil || types(list) != "a/sbom a/signature" || list[0].Annotations["for"] != "a/sbom" {
				t.Errorf("%s %v", types(list), err)
			}
			if _, list, err = m.Referrers(t.Context(), Place{Name: strings.TrimSuffix(to, ":2") + "@" + first.Digest.String()}, nil, ""); err != nil || types(list) != "a/of-sbom" {
				t.Errorf("of the referrer: %s %v", types(list), err)
			}
			if _, list, err = m.Referrers(t.Context(), Place{Name: to}, platform("arm64"), ""); err != nil || types(list) != "a/arm" {
				t.Errorf("of a platform: %s %v", types(list), err)
			}
			// Through a layout, too, with all that refers to it.
			var layout bytes.Buffer
			if err := m.CopyOut(t.Context(), CopyOptions{From: Place{Name: to}, All: true, Referrers: true}, &layout); err != nil {
				t.Fatal(err)
			}
			again := hosts[1] + "/" + strings.ReplaceAll(strings.ToLower(name), " ", "-") + "/again:3"
			if d, err = m.CopyIn(t.Context(), &layout, CopyOptions{To: Place{Name: again}, All: true, Referrers: true}); err != nil || d.Digest != index.Digest {
				t.Fatalf("%s %v", d.Digest, err)
			}
			if _, list, err = m.Referrers(t.Context(), Place{Name: again}, nil, ""); err != nil || len(list) != 2 {
				t.Errorf("%s %v", types(list), err)
			}
			if du, err := s.DiskUsage(t.Context()); err != nil || len(du.Items) != 1 {
				t.Errorf("copies have left something: %+v %v", du.Items, err)
			}
			one, err := m.Copy(t.Context(), CopyOptions{From: Place{Name: from}, To: Place{Name: to}, Platform: platform("arm64")})
			if err != nil || one.Digest == index.Digest {
				t.Errorf("one platform: %s %v", one.Digest, err)
			}
		})
	}
}

// TestLyingReferrers: a list of referrers that are none, or refer to each other, ends a copy's search and copies none of them.
func TestLyingReferrers(t *testing.T) {
	l := newLayout(t)
	img := l.image("amd64")
	stranger := l.artifact("a/stranger", &ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("other"), Size: 5})
	stranger.ArtifactType = "a/stranger"
	host := realRegistry(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !strings.Contains(r.URL.Path, "/referrers/") {
				next.ServeHTTP(w, r)
				return
			}
			w.Header().Set("Content-Type", ocispec.MediaTypeImageIndex)
			if strings.Contains(r.URL.Path, "/endless/") {
				w.Header().Set("Link", fmt.Sprintf(`<%s?n=%s1>; rel="next"`, r.URL.Path, r.URL.Query().Get("n")[:min(9, len(r.URL.Query().Get("n")))]))
			}
			_ = json.NewEncoder(w).Encode(ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, Manifests: []ocispec.Descriptor{stranger, img}})
		})
	})
	s := open(t)
	l.name(img, host+"/a:1")
	l.name(stranger, host+"/a:stranger")
	if _, err := loaded(t, s, l.tar(), TransferOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{host + "/a:1", host + "/a:stranger"} {
		if err := s.Push(t.Context(), name, TransferOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	var said []string
	o := CopyOptions{From: Place{Name: host + "/a:1"}, To: Place{Name: host + "/b:1"}, Referrers: true, Progress: statuses(&said)}
	if _, err := (Manifests{s}).Copy(t.Context(), o); err != nil || !strings.Contains(strings.Join(said, "\n"), "and is none") {
		t.Errorf("%v %q", err, said)
	}
	if _, err := (Artifacts{s}).Pull(t.Context(), Place{Name: host + "/b@" + stranger.Digest.String()}, TransferOptions{}); !errdefs.IsNotFound(err) {
		t.Errorf("a stranger was copied: %v", err)
	}
}

// TestArtifacts: files become an artifact and files again, here and through a registry; names that lead out are refused.
func TestArtifacts(t *testing.T) {
	host := realRegistry(t, nil)
	s := open(t)
	a := Artifacts{s}
	name := host + "/team/model:1"
	files := layerOf(file1("weights.bin", "many numbers"), file1("doc/readme.md", "words")).Bytes()
	d, err := a.Add(t.Context(), bytes.NewReader(files), AddOptions{Name: name, Type: "application/x-model", Annotations: map[string]string{"k": "v"}})
	if err != nil {
		t.Fatal(err)
	}
	got, err := a.Inspect(t.Context(), name)
	if err != nil || got.Digest != d.Digest || got.Type != "application/x-model" || len(got.Files) != 2 || got.Files[1].Name != "doc/readme.md" || got.Annotations["k"] != "v" || got.Size != 17 {
		t.Errorf("%+v %v", got, err)
	}
	if list, err := s.List(t.Context(), ListOptions{All: true}); err != nil || len(list) != 0 {
		t.Errorf("it is listed as an image: %+v %v", list, err)
	}
	if _, err := s.Prune(t.Context(), map[string]map[string]bool{"dangling": {"false": true}}); err != nil {
		t.Fatal(err)
	}
	if err := a.Push(t.Context(), Place{Name: name}, TransferOptions{}); err != nil {
		t.Fatal(err)
	}
	b := open(t)
	if err := b.Pull(t.Context(), name, TransferOptions{}); err == nil || !strings.Contains(err.Error(), "not a container image") {
		t.Errorf("pulled as an image: %v", err)
	}
	if _, err := (Artifacts{b}).Pull(t.Context(), Place{Name: name}, TransferOptions{}); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := (Artifacts{b}).Extract(t.Context(), name, &out); err != nil {
		t.Fatal(err)
	}
	if got := names(t, out.Bytes()); got["weights.bin"] != "many numbers" || got["doc/readme.md"] != "words" {
		t.Errorf("%q", got)
	}
	img, err := Mountable(t.Context(), b, name)
	if err != nil || len(img.Lower) != 1 {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(img.Lower[0], "doc/readme.md")); err != nil || string(got) != "words" {
		t.Errorf("%q %v", got, err)
	}
	if err := (Artifacts{b}).Remove(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(img.Lower[0]); !os.IsNotExist(err) {
		t.Errorf("its files are left: %v", err)
	}
	for _, bad := range []file{file1("../out", "x"), file1("/etc/passwd", "x"), file1("a/../../b", "x"), file1("a/./b", "x"), file1(".", "x"), file1(`a\b`, "x"), file1(strings.Repeat("n", 256), "x"),
		{name: "link", kind: tar.TypeSymlink, link: "/etc/passwd"}, file1("empty", "")} {
		if _, err := a.Add(t.Context(), layerOf(bad), AddOptions{Name: "bad:1"}); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %v", bad.name, err)
		}
	}
	// The same by a registry: it is pulled by nobody, and what was loaded is neither mounted nor written.
	for _, title := range []string{"../out", "/etc/passwd", "a/../../b"} {
		l := newLayout(t)
		file := l.blob("text/plain", []byte("x"))
		file.Annotations = map[string]string{ocispec.AnnotationTitle: title}
		l.name(l.json(ocispec.MediaTypeImageManifest, ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, ArtifactType: "a/b",
			Config: l.blob(ocispec.MediaTypeEmptyJSON, []byte("{}")), Layers: []ocispec.Descriptor{file}}), host+"/hostile:1")
		h := open(t)
		if _, err := loaded(t, h, l.tar(), TransferOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := Mountable(t.Context(), h, host+"/hostile:1"); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: mounted: %v", title, err)
		}
		if err := (Artifacts{h}).Extract(t.Context(), host+"/hostile:1", io.Discard); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: written: %v", title, err)
		}
		if err := (Artifacts{h}).Push(t.Context(), Place{Name: host + "/hostile:1"}, TransferOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := a.Pull(t.Context(), Place{Name: host + "/hostile:1"}, TransferOptions{}); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: pulled: %v", title, err)
		}
	}
}
