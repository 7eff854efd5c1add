package image

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/events"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/event"
	"wherry.dev/wherry/internal/snapshot"
)

// TestOverlayHearsNothingFromLayers: attributes by which an upper layer would redirect or hide files are not taken over; file
// capabilities and users' own attributes are.
func TestOverlayHearsNothingFromLayers(t *testing.T) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	h := &tar.Header{Typeflag: tar.TypeDir, Name: "d/", Mode: 0o755, PAXRecords: map[string]string{
		"SCHILY.xattr.trusted.overlay.opaque": "y", "SCHILY.xattr.trusted.overlay.redirect": "/etc", "SCHILY.xattr.trusted.overlay.metacopy": "x", "SCHILY.xattr.user.overlay.opaque": "y",
	}}
	capability := "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	f := &tar.Header{Typeflag: tar.TypeReg, Name: "ping", Mode: 0o755, PAXRecords: map[string]string{"SCHILY.xattr.security.capability": capability}}
	for _, h := range []*tar.Header{h, f} {
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	s := open(t)
	if _, err := s.Import(t.Context(), &b, ImportOptions{Ref: "x"}); err != nil {
		t.Fatal(err)
	}
	img, err := s.Resolve(t.Context(), "x", nil)
	if err != nil {
		t.Fatal(err)
	}
	list := make([]byte, 4096)
	n, err := unix.Llistxattr(filepath.Join(img.Lower[0], "d"), list)
	if err != nil || strings.Contains(string(list[:n]), "overlay") {
		t.Errorf("%q %v", list[:n], err)
	}
	value := make([]byte, 64)
	if n, err := unix.Lgetxattr(filepath.Join(img.Lower[0], "ping"), "security.capability", value); err != nil || string(value[:n]) != capability {
		t.Errorf("the capability is %q, %v", value[:max(n, 0)], err)
	}
}

// TestWhiteouts: what a layer takes away is hidden by overlay's own marks, in both of their forms.
func TestWhiteouts(t *testing.T) {
	s := open(t)
	base := imported(t, s, "base", file1("d/a", "1"), file1("e/b", "2"), file1("c", "3"))
	if _, err := s.Commit(t.Context(), layer(t, file1(".wh.c", ""), file{name: "e/", kind: tar.TypeDir}, file1("e/.wh..wh..opq", ""), file1("e/new", "4")),
		CommitOptions{Parent: base, Ref: "top", Config: base.Config.Config}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Prune(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	var told []string
	if err := s.events.Subscribe(t.Context(), time.Unix(1, 0), time.Now(), func(m events.Message) error {
		told = append(told, string(m.Action)+" "+m.Actor.Attributes["name"])
		return nil
	}); err != nil || !slices.Equal(told, []string{"import base:latest", "tag top:latest", "prune "}) {
		t.Errorf("events %q %v", told, err)
	}
	img, err := s.Resolve(t.Context(), "top", nil)
	if err != nil {
		t.Fatal(err)
	}
	at := t.TempDir()
	if err := unix.Mount("overlay", at, "overlay", unix.MS_RDONLY, "lowerdir="+strings.Join(img.Lower, ":")); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Unmount(at, 0) }()
	for name, want := range map[string]bool{"d/a": true, "c": false, "e/b": false, "e/new": true} {
		if _, err := os.Lstat(filepath.Join(at, name)); (err == nil) != want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// hostileConfigs are strings that other engines' parsers, shells or key spaces took for their own (facts of the field: CVE-2022-23648,
// CVE-2024-40635, CVE-2026-53488 and others). To this package they are data: it lists, shows, saves and loads them unchanged.
func hostileConfigs() map[string]map[string]any {
	return map[string]map[string]any{
		"labels":      {"Labels": map[string]string{"$(reboot)": "`reboot`", "io.containerd.image.name": "evil", "dev.wherry.built-in": "x", "a\nb": "c\x00d"}},
		"user":        {"User": "4294967296:-1"},
		"home":        {"Env": []string{"HOME=/x\nroot::0:0::/:/bin/sh", "LD_PRELOAD=/evil.so", "=", "NOVALUE", "PATH="}},
		"volumes":     {"Volumes": map[string]any{"/../../etc": map[string]any{}, "relative": map[string]any{}, "": map[string]any{}}},
		"directory":   {"WorkingDir": "/proc/self/fd/7/../../../etc"},
		"command":     {"Cmd": []string{}, "Entrypoint": []string{"", "\x00"}},
		"ports":       {"ExposedPorts": map[string]any{"99999/tcp": map[string]any{}, "-1": map[string]any{}, "80/../x": map[string]any{}}},
		"signal":      {"StopSignal": "SIGKILL; reboot"},
		"healthcheck": {"Healthcheck": map[string]any{"Test": []string{"CMD-SHELL", strings.Repeat("x", 1<<20)}, "Interval": -1}},
		"wrong types": {"User": 7},
		"nothing":     {},
	}
}

func TestHostileConfigsAreData(t *testing.T) {
	l := tarOf(t, file1("bin/a", "program"))
	for name, config := range hostileConfigs() {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			imported(t, s, "sound", file1("a", "b"))
			c, err := json.Marshal(map[string]any{"architecture": "amd64", "os": "linux", "config": config, "rootfs": map[string]any{"type": "layers", "diff_ids": []string{sum(l)}},
				"history": []map[string]any{{"created_by": "RUN \x1b]0;evil\a"}, {"empty_layer": true}, {}, {}}})
			if err != nil {
				t.Fatal(err)
			}
			name := strings.TrimPrefix(sum(c), "sha256:") + ".json"
			m, _ := json.Marshal([]map[string]any{{"Config": name, "RepoTags": []string{"evil:1"}, "Layers": []string{"l.tar"}}})
			err = s.Load(t.Context(), bytes.NewReader(tarOf(t, file1("l.tar", string(l)), file1(name, string(c)), file1("manifest.json", string(m)))), TransferOptions{})
			if err == nil {
				if _, err := s.Inspect(t.Context(), "evil:1", nil); err != nil {
					t.Log(err)
				}
				if _, err := s.History(t.Context(), "evil:1", nil); err != nil {
					t.Log(err)
				}
			}
			if list, err := s.List(t.Context(), ListOptions{}); err != nil || len(list) < 1 {
				t.Errorf("%v %v", list, err)
			}
			if img, err := s.Resolve(t.Context(), "sound", nil); err != nil || img.Config.Config.Cmd[0] != "/bin/a" {
				t.Errorf("another image suffers: %v", err)
			}
			if _, err := s.Prune(t.Context(), map[string]map[string]bool{"dangling": {"false": true}}); err != nil {
				t.Error(err)
			}
		})
	}
}

// FuzzManifest reads foreign manifests, indexes and configs; what is taken can be walked without a panic.
func FuzzManifest(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":2,"config":{"digest":"sha256:`+strings.Repeat("0", 64)+`","size":2},"layers":[]}`), uint8(0))
	f.Add([]byte(`{"manifests":[{"digest":"sha256:..","size":-1,"platform":{}}]}`), uint8(1))
	f.Add([]byte(`{"rootfs":{"diff_ids":["x",""]},"config":{"Env":null}}`), uint8(2))
	s, err := Open(f.Context(), Options{Root: f.TempDir(), Events: event.New()})
	if err != nil {
		f.Fatal(err)
	}
	defer s.Close()
	types := []string{ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex, ocispec.MediaTypeImageConfig, "application/vnd.docker.distribution.manifest.v2+json"}
	f.Fuzz(func(t *testing.T, b []byte, kind uint8) {
		ctx := in(t.Context())
		d, err := s.writeBlob(ctx, types[int(kind)%len(types)], json.RawMessage(b))
		if err != nil {
			return // no JSON at all
		}
		if _, err := s.document(ctx, d); err == nil {
			_ = s.labelTree(ctx, d)
			_ = s.complete(ctx, d)
		}
		if list, err := s.manifests(ctx, d); err == nil {
			for _, m := range list {
				_, _ = s.unpack(ctx, m, nil)
			}
		}
		_ = s.parts(ctx, d)
		_ = s.manifestSummaries(ctx, d, s.usersOf)
		_, _ = s.any(ctx, d)
	})
}

// TestLayersOfTooManyFiles: a layer of more names than an image is made of becomes a directory, beside others, with the same files.
func TestLayersOfTooManyFiles(t *testing.T) {
	s := openAs(t, snapshot.EROFS)
	s.kept = 300 << 10
	base := imported(t, s, "base", file1("bin/a", "program"))
	var many []file
	for i := range 3000 {
		many = append(many, file1(fmt.Sprintf("many/%d", i), "x"))
	}
	if _, err := s.Commit(t.Context(), layer(t, many...), CommitOptions{Parent: base, Ref: "many", Config: base.Config.Config}); err != nil {
		t.Fatal(err)
	}
	img, err := s.Resolve(t.Context(), "many", nil)
	if err != nil {
		t.Fatal(err)
	}
	if filepath.Base(img.Lower[0]) != "fs" || filepath.Base(img.Lower[1]) == "fs" {
		t.Errorf("%v", img.Lower)
	}
	if list, err := os.ReadDir(filepath.Join(img.Lower[0], "many")); err != nil || len(list) != 3000 {
		t.Errorf("%d files, %v", len(list), err)
	}
	if r, list := checked(t, s, CheckOptions{}); r.Damaged != 0 || r.Layers != 2 {
		t.Errorf("%+v %+v", r, list)
	}
}
