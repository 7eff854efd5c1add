package image

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/handlers"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/inmemory"
	registrytypes "github.com/moby/moby/api/types/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// realRegistry is the reference implementation, in memory, on loopback. wrap may stand before it.
func realRegistry(t *testing.T, wrap func(http.Handler) http.Handler) string {
	t.Helper()
	config := &configuration.Configuration{Storage: configuration.Storage{"inmemory": configuration.Parameters{}}}
	config.HTTP.Secret = "only for this test"
	config.Log.Level = "error"
	var h http.Handler = handlers.NewApp(t.Context(), config)
	if wrap != nil {
		h = wrap(h)
	}
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

func statuses(into *[]string) func(Progress) {
	return func(p Progress) { *into = append(*into, p.Status) }
}

func TestPushAndPull(t *testing.T) {
	a, b := open(t), open(t)
	host := realRegistry(t, nil)
	img := imported(t, a, host+"/team/app:1", file{name: "bin/a", content: "program"})
	if err := a.Push(t.Context(), host+"/team/app:1", TransferOptions{}); err != nil {
		t.Fatal(err)
	}
	var said []string
	if err := a.Push(t.Context(), host+"/team/app:1", TransferOptions{Progress: statuses(&said)}); err != nil || !strings.Contains(strings.Join(said, "\n"), "digest: sha256:") {
		t.Fatalf("%v %q", err, said)
	}
	if err := b.Pull(t.Context(), host+"/team/app:1", TransferOptions{}); err != nil {
		t.Fatal(err)
	}
	got, err := b.Resolve(t.Context(), host+"/team/app:1", nil)
	if err != nil || got.ID != img.ID || len(got.Lower) != 1 {
		t.Fatalf("%v %+v", err, got)
	}
	said = nil
	if err := b.Pull(t.Context(), host+"/team/app:1", TransferOptions{Progress: statuses(&said)}); err != nil || !strings.Contains(strings.Join(said, "\n"), "up to date") {
		t.Fatalf("%v %q", err, said)
	}
	if err := b.Pull(t.Context(), host+"/team/app@"+img.ID.String(), TransferOptions{}); err != nil {
		t.Fatal(err)
	}
	other := ocispec.Platform{OS: "linux", Architecture: "riscv64"}
	if err := b.Pull(t.Context(), host+"/team/app:1", TransferOptions{Platform: &other}); err == nil || !strings.Contains(err.Error(), "linux/riscv64 is asked for") {
		t.Fatal(err)
	}
	if err := b.Pull(t.Context(), host+"/team/none:1", TransferOptions{}); !errdefs.IsNotFound(err) || !strings.Contains(err.Error(), "manifest unknown") {
		t.Fatal(err)
	}
	if err := b.Pull(t.Context(), "127.0.0.1:1/x/y", TransferOptions{}); !strings.Contains(fmt.Sprint(err), "refused") {
		t.Fatal(err)
	}
}

func TestCredentialsOpenTheRegistry(t *testing.T) {
	s := open(t)
	var plain string
	host := realRegistry(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if user, password, _ := r.BasicAuth(); user != "me" || password != "secret" {
				w.Header().Set("WWW-Authenticate", `Basic realm="here"`)
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			next.ServeHTTP(w, r)
		})
	})
	plain = host + "/team/app:1"
	imported(t, s, plain, file{name: "a"})
	if err := s.Push(t.Context(), plain, TransferOptions{}); err == nil {
		t.Fatal("pushed without credentials")
	}
	auth := &registrytypes.AuthConfig{Username: "me", Password: "secret", ServerAddress: host}
	if err := s.Push(t.Context(), plain, TransferOptions{Auth: auth}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Login(t.Context(), *auth); err != nil {
		t.Fatal(err)
	}
	auth.Password = "wrong"
	if _, err := s.Login(t.Context(), *auth); !errdefs.IsUnauthorized(err) {
		t.Fatal(err)
	}
}

// TestCredentialsStayAtTheirOrigin: a registry that names another host as its token service gets no password sent there.
func TestCredentialsStayAtTheirOrigin(t *testing.T) {
	s := open(t)
	var leaked atomic.Bool
	thief := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if _, _, ok := r.BasicAuth(); ok || bytes.Contains(body, []byte("secret")) {
			leaked.Store(true)
		}
		w.WriteHeader(http.StatusForbidden)
	}))
	defer thief.Close()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("WWW-Authenticate", `Bearer realm="`+strings.Replace(thief.URL, "127.0.0.1", "localhost", 1)+`/token",service="x"`)
		w.WriteHeader(http.StatusUnauthorized)
	}))
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	err := s.Pull(t.Context(), host+"/a/b", TransferOptions{Auth: &registrytypes.AuthConfig{Username: "me", Password: "secret"}})
	if err == nil || leaked.Load() {
		t.Fatalf("leaked: %v, %v", leaked.Load(), err)
	}
}

// hostile serves one image whose parts a test may spoil.
type hostile struct {
	layer, config []byte
	manifest      ocispec.Manifest
	blob          func(w http.ResponseWriter, digest string, good []byte)
	foreign       *atomic.Bool
}

func (h *hostile) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	manifest, _ := json.Marshal(h.manifest)
	switch {
	case strings.Contains(r.URL.Path, "/manifests/"):
		w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
		w.Header().Set("Docker-Content-Digest", sum(manifest))
		_, _ = w.Write(manifest)
	case strings.HasSuffix(r.URL.Path, sum(h.config)):
		_, _ = w.Write(h.config)
	case strings.Contains(r.URL.Path, "/blobs/"):
		h.blob(w, r.URL.Path, h.layer)
	case strings.HasPrefix(r.URL.Path, "/foreign"):
		h.foreign.Store(true)
	}
}

func sum(b []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(b)) }

func newHostile(t *testing.T) *hostile {
	h := &hostile{layer: layer(t, file{name: "bin/a", content: "program"}).Bytes(), foreign: new(atomic.Bool)}
	h.config, _ = json.Marshal(map[string]any{"architecture": "amd64", "os": "linux", "rootfs": map[string]any{"type": "layers", "diff_ids": []string{sum(h.layer)}}})
	h.manifest = ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Config: descriptor(ocispec.MediaTypeImageConfig, h.config), Layers: []ocispec.Descriptor{descriptor(ocispec.MediaTypeImageLayer, h.layer)}}
	h.manifest.SchemaVersion = 2
	h.blob = func(w http.ResponseWriter, _ string, good []byte) { _, _ = w.Write(good) }
	return h
}

func descriptor(mediaType string, b []byte) ocispec.Descriptor {
	d := ocispec.Descriptor{MediaType: mediaType, Size: int64(len(b))}
	d.Digest = digest.FromBytes(b)
	return d
}

func TestHostileRegistry(t *testing.T) {
	rows := []struct {
		name  string
		spoil func(*hostile)
		ok    bool
	}{
		{"an honest one", func(*hostile) {}, true},
		{"other bytes", func(h *hostile) {
			h.blob = func(w http.ResponseWriter, _ string, good []byte) {
				_, _ = w.Write(bytes.Repeat([]byte{'x'}, len(good)))
			}
		}, false},
		{"a wrong size", func(h *hostile) { h.manifest.Layers[0].Size += 7 }, false},
		{"fewer bytes each time", func(h *hostile) {
			h.blob = func(w http.ResponseWriter, _ string, good []byte) { _, _ = w.Write(good[:100]) }
		}, false},
		{"a config that names another layer", func(h *hostile) {
			h.config = bytes.Replace(h.config, []byte(sum(h.layer)), []byte(sum([]byte("other"))), 1)
			h.manifest.Config = descriptor(ocispec.MediaTypeImageConfig, h.config)
		}, false},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			s := open(t)
			h := newHostile(t)
			row.spoil(h)
			server := httptest.NewServer(h)
			defer server.Close()
			ref := strings.TrimPrefix(server.URL, "http://") + "/a/b:1"
			err := s.Pull(t.Context(), ref, TransferOptions{})
			if (err == nil) != row.ok {
				t.Fatalf("pull: %v", err)
			}
			if _, err := s.Resolve(t.Context(), ref, nil); (err == nil) != row.ok {
				t.Fatalf("listed though it did not come whole: %v", err)
			}
		})
	}
}

func TestForeignAddressesAreNotAsked(t *testing.T) {
	s := open(t)
	h := newHostile(t)
	server := httptest.NewServer(h)
	defer server.Close()
	h.manifest.Layers[0].URLs = []string{server.URL + "/foreign"}
	_ = s.Pull(t.Context(), strings.TrimPrefix(server.URL, "http://")+"/a/b:1", TransferOptions{})
	if h.foreign.Load() {
		t.Fatal("an address of the image's making was fetched")
	}
}

func TestBrokenConnectionIsTakenUpAgain(t *testing.T) {
	s := open(t)
	h := newHostile(t)
	h.layer = layer(t, file{name: "big", content: strings.Repeat("0123456789", 100000)}).Bytes()
	h.config, _ = json.Marshal(map[string]any{"architecture": "amd64", "os": "linux", "rootfs": map[string]any{"type": "layers", "diff_ids": []string{sum(h.layer)}}})
	h.manifest.Config, h.manifest.Layers[0] = descriptor(ocispec.MediaTypeImageConfig, h.config), descriptor(ocispec.MediaTypeImageLayer, h.layer)
	var cuts atomic.Int32
	inner := http.Handler(h)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, sum(h.layer)) {
			inner.ServeHTTP(w, r)
			return
		}
		if r.Method == http.MethodGet && cuts.Add(1) <= 2 {
			w.Header().Set("Content-Length", fmt.Sprint(len(h.layer)))
			_, _ = w.Write(h.layer[:len(h.layer)/3])
			panic(http.ErrAbortHandler)
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(h.layer))
	}))
	defer server.Close()
	if err := s.Pull(t.Context(), strings.TrimPrefix(server.URL, "http://")+"/a/b:1", TransferOptions{}); err != nil {
		t.Fatal(err)
	}
	if cuts.Load() < 2 {
		t.Fatal("nothing was cut")
	}
}
