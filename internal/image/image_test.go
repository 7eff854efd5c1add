package image

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"wherry.dev/wherry/internal/event"
	"wherry.dev/wherry/internal/registry"
	"wherry.dev/wherry/internal/snapshot"
)

// file is one entry of a layer made by a test.
type file struct {
	name, content string
	kind          byte
	mode          int64
	link          string
}

func layer(t *testing.T, files ...file) *bytes.Buffer {
	t.Helper()
	return layerOf(files...)
}

// layerOf is a tar of files. It is made in memory: what could fail is a mistake of the test.
func layerOf(files ...file) *bytes.Buffer {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		h := &tar.Header{Typeflag: f.kind, Name: f.name, Mode: f.mode, Size: int64(len(f.content)), Linkname: f.link}
		if f.kind == 0 {
			h.Typeflag = tar.TypeReg
		}
		if f.mode == 0 {
			h.Mode = 0o755
		}
		if err := w.WriteHeader(h); err != nil {
			panic(err)
		}
		if _, err := w.Write([]byte(f.content)); err != nil {
			panic(err)
		}
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return &b
}

func open(t *testing.T) *Service {
	t.Helper()
	return openAs(t, snapshot.EROFS)
}

func openAs(t *testing.T, layers snapshot.Format) *Service {
	t.Helper()
	oar := filepath.Join(t.TempDir(), "oar")
	if err := os.WriteFile(oar, []byte("a program"), 0o755); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	s, err := Open(t.Context(), Options{Root: filepath.Join(dir, "root"), Layers: layers, Mounts: filepath.Join(dir, "layers"), Oar: oar, Events: event.New()})
	if err != nil {
		t.Fatal(err)
	}
	s.registries = reach(registry.Options{})
	t.Cleanup(func() {
		if err := errors.Join(s.Unmount(), s.Close()); err != nil {
			t.Error(err)
		}
	})
	return s
}

// reach is how a test's registries are reached: what fails is tried again at once.
func reach(o registry.Options) *registry.Pool {
	o.Pause = time.Millisecond
	return registry.NewPool(o)
}

func imported(t *testing.T, s *Service, ref string, files ...file) *Image {
	t.Helper()
	return importedAs(t, s, ref, "ENV K=v", files...)
}

func importedAs(t *testing.T, s *Service, ref, change string, files ...file) *Image {
	t.Helper()
	if _, err := s.Import(t.Context(), layer(t, files...), ImportOptions{Ref: ref, Changes: []string{`CMD ["/bin/a"]`, change}}); err != nil {
		t.Fatal(err)
	}
	img, err := s.Resolve(t.Context(), ref, nil)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func TestImportResolveAndRemove(t *testing.T) {
	s := open(t)
	img := imported(t, s, "team/app:1", file{name: "bin/a", content: "program"})
	if img.Ref != "docker.io/team/app:1" || len(img.Lower) != 1 || img.Config.Config.Cmd[0] != "/bin/a" || img.Config.Config.Env[0] != "K=v" {
		t.Fatalf("%+v", img)
	}
	if b, err := os.ReadFile(filepath.Join(img.Lower[0], "bin/a")); err != nil || string(b) != "program" {
		t.Fatalf("%v %q", err, b)
	}
	for _, name := range []string{"team/app:1", img.ID.String(), img.ID.Encoded()[:12], "team/app@" + img.ID.String()} {
		if found, err := s.Resolve(t.Context(), name, nil); err != nil || found.ID != img.ID {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := s.Resolve(t.Context(), "team/other", nil); !errdefs.IsNotFound(err) || !strings.Contains(err.Error(), "No such image: team/other:latest") {
		t.Errorf("an unknown image: %v", err)
	}
	if _, err := s.Resolve(t.Context(), "team/app:1", &ocispec.Platform{OS: "linux", Architecture: "s390x"}); !errdefs.IsNotFound(err) || !strings.Contains(err.Error(), "s390x") || !strings.Contains(err.Error(), "amd64") {
		t.Errorf("a wrong platform: %v", err)
	}
	_ = s.Acquire(t.Context(), img.ID, img.Manifest.Digest, "c1")
	if _, err := s.Remove(t.Context(), "team/app:1", RemoveOptions{}); !errdefs.IsConflict(err) {
		t.Errorf("removed while a container uses it: %v", err)
	}
	s.Release(t.Context(), "c1")
	deleted, err := s.Remove(t.Context(), "team/app:1", RemoveOptions{})
	if err != nil || len(deleted) != 2 || deleted[0].Untagged != "team/app:1" {
		t.Fatalf("%v %+v", err, deleted)
	}
	if _, err := os.Stat(img.Lower[0]); !os.IsNotExist(err) {
		t.Error("the layer's folder is left")
	}
	if du, err := s.DiskUsage(t.Context()); err != nil || du.TotalSize != 0 {
		t.Errorf("%v: %d bytes are left", err, du.TotalSize)
	}
}

func TestLayersAreShared(t *testing.T) {
	s := open(t)
	base := imported(t, s, "base", file{name: "bin/a", content: strings.Repeat("x", 1<<20)})
	for _, name := range []string{"one", "two"} {
		if _, err := s.Commit(t.Context(), layer(t, file{name: "etc/" + name, content: name}, file{name: "bin/.wh.a"}), CommitOptions{Parent: base, Ref: name, Config: base.Config.Config}); err != nil {
			t.Fatal(err)
		}
	}
	one, err := s.Resolve(t.Context(), "one", nil)
	if err != nil {
		t.Fatal(err)
	}
	two, err := s.Resolve(t.Context(), "two", nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(one.Lower) != 2 || one.Lower[1] != base.Lower[0] || two.Lower[1] != base.Lower[0] {
		t.Fatalf("%v and %v do not stand on %v", one.Lower, two.Lower, base.Lower)
	}
	if _, err := s.Remove(t.Context(), "base", RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(base.Lower[0]); err != nil {
		t.Fatalf("a layer that is still used is gone: %v", err)
	}
	h, err := s.History(t.Context(), "one", nil)
	if err != nil || len(h) != 2 {
		t.Fatalf("%v %+v", err, h)
	}
}

func TestSaveAndLoad(t *testing.T) {
	a, b := open(t), open(t)
	img := imported(t, a, "team/app:1", file{name: "bin/a", content: "program"})
	var saved bytes.Buffer
	if err := a.Save(t.Context(), []string{"team/app:1"}, SaveOptions{}, &saved); err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for r := tar.NewReader(bytes.NewReader(saved.Bytes())); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names[h.Name] = true
	}
	if !names["manifest.json"] || !names["index.json"] || !names["oci-layout"] {
		t.Fatalf("the archive has %v", names)
	}
	for name, named := range map[string]bool{"team/app:1@" + img.ID.String(): true, "team/app@" + img.ID.String(): false, img.ID.String(): false} { // who names no tag saves none
		var one bytes.Buffer
		if err := a.Save(t.Context(), []string{name}, SaveOptions{Format: FormatDocker}, &one); err != nil || strings.Contains(one.String(), "team/app:1") != named {
			t.Errorf("save %s: %v, its name is in it: %t", name, err, !named)
		}
	}
	var said []string
	if err := b.Load(t.Context(), &saved, TransferOptions{Progress: func(p Progress) { said = append(said, p.Status) }}); err != nil {
		t.Fatal(err)
	}
	if got, err := b.Resolve(t.Context(), "team/app:1", nil); err != nil || got.ID != img.ID || !strings.Contains(said[0], "Loaded image: team/app:1") {
		t.Fatalf("%v %v", err, said)
	}
	if err := b.Load(t.Context(), strings.NewReader("nonsense"), TransferOptions{}); !errdefs.IsInvalidArgument(err) {
		t.Fatalf("nonsense loads: %v", err)
	}
}

func TestBuiltInImageNeedsNothing(t *testing.T) {
	s := open(t)
	img, err := s.Resolve(t.Context(), "hello", nil)
	if err != nil {
		t.Fatal(err)
	}
	if img.Config.Config.Entrypoint[1] != "hello" {
		t.Fatalf("%+v", img.Config.Config)
	}
	again, err := s.Resolve(t.Context(), "hello:latest", nil)
	if err != nil || again.ID != img.ID {
		t.Fatalf("%v: made twice", err)
	}
}

func TestExtractionStaysInside(t *testing.T) {
	canary := filepath.Join(t.TempDir(), "canary")
	if err := os.WriteFile(canary, []byte("intact"), 0o644); err != nil {
		t.Fatal(err)
	}
	up := strings.Repeat("../", 20)
	rows := map[string][]file{
		"dotdot":                  {{name: up + canary[1:], content: "x"}},
		"absolute":                {{name: canary, content: "x"}},
		"link to the file":        {{name: "l", kind: tar.TypeSymlink, link: canary}, {name: "l", content: "x"}},
		"linked parent":           {{name: "d", kind: tar.TypeSymlink, link: filepath.Dir(canary)}, {name: "d/canary", content: "x"}},
		"relative linked parent":  {{name: "d", kind: tar.TypeSymlink, link: up + filepath.Dir(canary)[1:]}, {name: "d/canary", content: "x"}},
		"hard link":               {{name: "h", kind: tar.TypeLink, link: canary}, {name: "h", content: "x"}},
		"hard link with dots":     {{name: "h", kind: tar.TypeLink, link: up + canary[1:]}, {name: "h", content: "x"}},
		"whiteout by link":        {{name: "d", kind: tar.TypeSymlink, link: filepath.Dir(canary)}, {name: "d/.wh.canary"}},
		"whiteout with dots":      {{name: up + filepath.Dir(canary)[1:] + "/.wh.canary"}},
		"opaque by link":          {{name: "d", kind: tar.TypeSymlink, link: filepath.Dir(canary)}, {name: "d/.wh..wh..opq"}},
		"whiteout of dotdot":      {{name: "d/.wh..", content: ""}},
		"link chain":              {{name: "a", kind: tar.TypeSymlink, link: "b"}, {name: "b", kind: tar.TypeSymlink, link: filepath.Dir(canary)}, {name: "a/canary", content: "x"}},
		"cyclic links":            {{name: "a", kind: tar.TypeSymlink, link: "b"}, {name: "b", kind: tar.TypeSymlink, link: "a"}, {name: "a/x", content: "x"}},
		"whiteout without a name": {{name: "d/.wh.", content: ""}},
		"whiteout of the root":    {{name: ".wh..", content: ""}, {name: ".wh...", content: ""}},
		"whiteout beyond":         {{name: "d/.wh.." + "/" + up + canary[1:], content: ""}},
		"directory over a link":   {{name: "d", kind: tar.TypeSymlink, link: filepath.Dir(canary)}, {name: "d/", kind: tar.TypeDir, mode: 0o700}, {name: "d/canary", content: "x"}},
		"link over a directory":   {{name: "d/", kind: tar.TypeDir}, {name: "d", kind: tar.TypeSymlink, link: filepath.Dir(canary)}, {name: "d/canary", content: "x"}},
		"hard link to a link":     {{name: "s", kind: tar.TypeSymlink, link: canary}, {name: "h", kind: tar.TypeLink, link: "s"}, {name: "h", content: "x"}},
		"hard link by a link":     {{name: "d", kind: tar.TypeSymlink, link: filepath.Dir(canary)}, {name: "h", kind: tar.TypeLink, link: "d/canary"}, {name: "h", content: "x"}},
		"link to the root":        {{name: "r", kind: tar.TypeSymlink, link: "/"}, {name: "r" + canary, content: "x"}},
		"a long name":             {{name: strings.Repeat("n/", 2040) + "x", content: "x"}, {name: strings.Repeat("n", 4096), content: "x"}},
		"device over a link":      {{name: "v", kind: tar.TypeSymlink, link: canary}, {name: "v", kind: tar.TypeChar}, {name: "v", kind: tar.TypeFifo}},
		"mode by a link":          {{name: "m", kind: tar.TypeSymlink, link: canary, mode: 0o777}, {name: "m/", kind: tar.TypeDir, mode: 0o777}},
		"root as link":            {{name: ".", kind: tar.TypeSymlink, link: filepath.Dir(canary)}, {name: "canary", content: "x"}},
	}
	for name, files := range rows {
		s := open(t)
		_, err := s.Import(t.Context(), layer(t, files...), ImportOptions{Ref: "evil"})
		if b, readErr := os.ReadFile(canary); readErr != nil || string(b) != "intact" {
			t.Fatalf("%s: the file outside is %q, %v (import: %v)", name, b, readErr, err)
		}
		if fi, statErr := os.Lstat(canary); statErr != nil || fi.Mode() != 0o644 {
			t.Fatalf("%s: the file outside is %v, %v", name, fi.Mode(), statErr)
		}
		if beside, _ := os.ReadDir(filepath.Dir(canary)); len(beside) != 1 {
			t.Fatalf("%s: beside the file outside are %v", name, beside)
		}
	}
}

func TestChanges(t *testing.T) {
	var c dockerspec.DockerOCIImageConfig
	err := applyChanges(&c, []string{"CMD echo hi", `ENTRYPOINT ["/x"]`, "ENV A=1", "ENV A=2", "EXPOSE 80 53/udp", "VOLUME /a /b", "USER 5", "WORKDIR /w", "LABEL k=v"})
	if err != nil || c.Cmd[2] != "echo hi" || c.Entrypoint[0] != "/x" || len(c.Env) != 1 || c.Env[0] != "A=2" || len(c.ExposedPorts) != 2 || len(c.Volumes) != 2 || c.User != "5" || c.Labels["k"] != "v" {
		t.Fatalf("%v %+v", err, c)
	}
	if err := applyChanges(&c, []string{"RUN x"}); !errdefs.IsInvalidArgument(err) {
		t.Fatal(err)
	}
}

func FuzzLoad(f *testing.F) {
	f.Add([]byte("not an archive"))
	f.Add(legacy(f, "team/app:1"))
	f.Add(layout(f, nil))
	f.Add(gzipped(f, legacy(f)))
	s, err := Open(f.Context(), Options{Root: f.TempDir(), Events: event.New()})
	if err != nil {
		f.Fatal(err)
	}
	defer s.Close()
	f.Fuzz(func(t *testing.T, b []byte) {
		_ = s.Load(t.Context(), bytes.NewReader(b), TransferOptions{})
	})
}

func TestImportOfSomethingElse(t *testing.T) {
	s := open(t)
	for _, text := range []string{strings.Repeat("no archive\n", 100), "short"} {
		_, err := s.Import(t.Context(), strings.NewReader(text), ImportOptions{Ref: "x:1"})
		if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "no whole tar archive") {
			t.Errorf("%.10q: %v", text, err)
		}
	}
	if list, err := s.List(t.Context(), ListOptions{}); err != nil || len(list) != 0 {
		t.Errorf("left behind: %v %v", list, err)
	}
}
