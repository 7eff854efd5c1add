package image

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"wherry.dev/wherry/internal/ref"
	"wherry.dev/wherry/internal/registry"
)

// TestPushHasLayersLent: by the repository that an image was pulled from, and by those of other names that it has here.
func TestPushHasLayersLent(t *testing.T) {
	var sent atomic.Int32
	host := realRegistry(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/blobs/") {
				sent.Add(1)
			}
			next.ServeHTTP(w, r)
		})
	})
	a := open(t)
	imported(t, a, host+"/team/base:1", file1("bin/a", "program"))
	if err := a.Push(t.Context(), host+"/team/base:1", TransferOptions{}); err != nil {
		t.Fatal(err)
	}
	before := sent.Load()
	for what, s := range map[string]*Service{"by its own push": a, "by a pull": open(t), "by a name": open(t)} {
		target := fmt.Sprintf("%s/team/%s:1", host, strings.ReplaceAll(what, " ", "-"))
		if what != "by its own push" {
			if err := s.Pull(t.Context(), host+"/team/base:1", TransferOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		if what == "by a name" { // what labels say is forgotten, as of images that came from an archive
			img, err := s.images.Get(in(t.Context()), host+"/team/base:1")
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range (origins{s.store}).below(in(t.Context()), img.Target) {
				info, err := s.content.Info(in(t.Context()), d.Digest)
				if err != nil {
					t.Fatal(err)
				}
				for key := range info.Labels {
					if strings.Contains(key, "distribution.source") {
						info.Labels[key] = ""
						if _, err := s.content.Update(in(t.Context()), info, "labels."+key); err != nil {
							t.Fatal(err)
						}
					}
				}
			}
		}
		if err := s.Tag(t.Context(), host+"/team/base:1", target); err != nil {
			t.Fatal(err)
		}
		var said []string
		if err := s.Push(t.Context(), target, TransferOptions{Progress: statuses(&said)}); err != nil || !slices.Contains(said, "Mounted from team/base") {
			t.Errorf("%s: %v %q", what, err, said)
		}
	}
	for i := range 5 { // repositories that have lost it meanwhile do not keep others from lending it
		gone, err := ref.Parse(fmt.Sprintf("%s/a/gone%d:1", host, i))
		if err != nil {
			t.Fatal(err)
		}
		img, err := a.images.Get(in(t.Context()), host+"/team/base:1")
		if err != nil {
			t.Fatal(err)
		}
		if err := (origins{a.store}).note(in(t.Context()), gone, img.Target); err != nil {
			t.Fatal(err)
		}
	}
	var said []string
	err := errors.Join(a.Tag(t.Context(), host+"/team/base:1", host+"/team/late:1"), a.Push(t.Context(), host+"/team/late:1", TransferOptions{Progress: statuses(&said)}))
	if err != nil || !strings.Contains(strings.Join(said, " "), "Mounted from team/") {
		t.Errorf("behind others: %v %q", err, said)
	}
	if n := sent.Load() - before; n != 0 {
		t.Errorf("%d blobs were sent", n)
	}
}

// TestMirrorThatLies: a layer whose bytes are others than its digest says comes from the registry itself, and is what is unpacked.
func TestMirrorThatLies(t *testing.T) {
	var lies atomic.Int32
	origin := realRegistry(t, nil)
	from := open(t)
	imported(t, from, origin+"/a/b:1", file1("f", strings.Repeat("true ", 100_000)))
	if err := from.Push(t.Context(), origin+"/a/b:1", TransferOptions{}); err != nil {
		t.Fatal(err)
	}
	mirror := realRegistry(t, func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			resp, err := http.Get("http://" + origin + r.URL.Path)
			if err != nil {
				w.WriteHeader(http.StatusBadGateway)
				return
			}
			defer resp.Body.Close()
			w.Header().Set("Content-Length", fmt.Sprint(resp.ContentLength))
			b := make([]byte, resp.ContentLength)
			if strings.Contains(r.URL.Path, "/blobs/") {
				lies.Add(1)
			}
			_, _ = w.Write(b)
		})
	})
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, origin), 0o755); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("server = \"http://%s\"\n[host.\"http://%s\"]\ncapabilities = [\"pull\"]\n", origin, mirror)
	if err := os.WriteFile(filepath.Join(dir, origin, "hosts.toml"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	s := open(t)
	s.registries = reach(registry.Options{HostDirs: []string{dir}})
	if err := s.Pull(t.Context(), origin+"/a/b:1", TransferOptions{}); err != nil {
		t.Fatal(err)
	}
	img, err := s.Resolve(t.Context(), origin+"/a/b:1", nil)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(img.Lower[0], "f")); err != nil || len(b) != 500_000 || lies.Load() == 0 {
		t.Errorf("%d bytes, %v, %d lies", len(b), err, lies.Load())
	}
}
