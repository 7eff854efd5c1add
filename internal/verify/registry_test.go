package verify

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/handlers"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/inmemory"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"wherry.dev/wherry/internal/event"
	"wherry.dev/wherry/internal/evidence"
	"wherry.dev/wherry/internal/image"
	"wherry.dev/wherry/internal/trust"
)

// helper is wherry-verify, as make build makes it, once for all tests.
var helper = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "wherry-verify-test-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "wherry-verify")
	cmd := exec.Command("go", "build", "-o", path, "../../cmd/wherry-verify")
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return path, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if path, err := helper(); err == nil {
		os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(code)
}

// server is a registry, in memory, on loopback.
type server struct {
	t        *testing.T
	host     string
	requests func() []string
	down     func(bool) // connections are cut
}

func newServer(t *testing.T) *server {
	t.Helper()
	config := &configuration.Configuration{Storage: configuration.Storage{"inmemory": configuration.Parameters{}, "delete": configuration.Parameters{"enabled": true}}}
	config.HTTP.Secret = "only for this test"
	config.Log.Level = "error"
	app := handlers.NewApp(t.Context(), config)
	var mu sync.Mutex
	var seen []string
	var down atomic.Bool
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		seen = append(seen, r.Method+" "+r.URL.Path)
		mu.Unlock()
		if down.Load() {
			panic(http.ErrAbortHandler)
		}
		app.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return &server{t: t, host: strings.TrimPrefix(s.URL, "http://"), down: down.Store, requests: func() []string {
		mu.Lock()
		defer mu.Unlock()
		out := seen
		seen = nil
		return out
	}}
}

func (s *server) do(method, path, contentType string, body []byte) *http.Response {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), method, path, bytes.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	r.Header.Set("Content-Type", contentType)
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	text, _ := io.ReadAll(res.Body)
	res.Body.Close()
	if res.StatusCode >= 300 {
		s.t.Fatalf("%s %s: %s %s", method, path, res.Status, text)
	}
	return res
}

// blob puts content into a repository.
func (s *server) blob(repo, mediaType string, b []byte) ocispec.Descriptor {
	s.t.Helper()
	res := s.do("POST", "http://"+s.host+"/v2/"+repo+"/blobs/uploads/", "", nil)
	d := digest.FromBytes(b)
	at := res.Header.Get("Location")
	if !strings.Contains(at, "?") {
		at += "?"
	}
	s.do("PUT", at+"&digest="+d.String(), "application/octet-stream", b)
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(b))}
}

// manifest puts a manifest there, under a tag or, for "", its digest.
func (s *server) manifest(repo, tag, mediaType string, v any) ocispec.Descriptor {
	s.t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		s.t.Fatal(err)
	}
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}
	if tag == "" {
		tag = d.Digest.String()
	}
	s.do("PUT", "http://"+s.host+"/v2/"+repo+"/manifests/"+tag, mediaType, b)
	return d
}

// attachClassic leaves signatures where cosign does: as layers of an image with a tag made of the digest.
func (s *server) attachClassic(repo string, d digest.Digest, signatures ...evidence.Signature) {
	s.t.Helper()
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Config: s.blob(repo, ocispec.MediaTypeImageConfig, []byte("{}"))}
	m.SchemaVersion = 2
	for _, sig := range signatures {
		l := s.blob(repo, "application/vnd.dev.cosign.simplesigning.v1+json", sig.Blob)
		l.Annotations = map[string]string{"dev.cosignproject.cosign/signature": sig.Signature}
		for key, value := range map[string]string{"certificate": sig.Certificate, "chain": sig.Chain, "bundle": sig.Log} {
			if value != "" {
				l.Annotations["dev.sigstore.cosign/"+key] = value
			}
		}
		m.Layers = append(m.Layers, l)
	}
	s.manifest(repo, strings.Replace(d.String(), ":", "-", 1)+".sig", ocispec.MediaTypeImageManifest, m)
}

// attach leaves a bundle or an envelope as a referrer, which a registry without lists of them finds by a tag (the distribution
// specification, "Referrers tag schema").
func (s *server) attach(repo string, subject ocispec.Descriptor, signatures ...evidence.Signature) {
	s.t.Helper()
	index := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex}
	index.SchemaVersion = 2
	for _, sig := range signatures {
		kind := "application/vnd.dev.sigstore.bundle.v0.3+json"
		if sig.Kind == evidence.Notation {
			kind = "application/vnd.cncf.notary.signature"
		}
		m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, ArtifactType: kind, Config: s.blob(repo, "application/vnd.oci.empty.v1+json", []byte("{}")),
			Layers: []ocispec.Descriptor{s.blob(repo, sig.MediaType, sig.Blob)}, Subject: &subject}
		m.SchemaVersion = 2
		d := s.manifest(repo, "", ocispec.MediaTypeImageManifest, m)
		d.ArtifactType = kind
		index.Manifests = append(index.Manifests, d)
	}
	s.manifest(repo, strings.Replace(subject.Digest.String(), ":", "-", 1), ocispec.MediaTypeImageIndex, index)
}

// site is a machine: images, and a policy.
type site struct {
	*image.Service
	t      *testing.T
	dir    string
	events *event.Bus
}

// newSite accepts everything. It does not look at what the machine that runs the test has for a policy.
func newSite(t *testing.T) *site {
	t.Helper()
	return governed(t, `default = "accept"`)
}

// governed has the policy file that policy writes.
func governed(t *testing.T, text string, files ...evidence.File) *site {
	t.Helper()
	s := &site{t: t, dir: t.TempDir(), events: event.New()}
	s.policy(text, files...)
	return s.open()
}

// open opens the site's images, again after Close.
func (s *site) open() *site {
	s.t.Helper()
	path, err := helper()
	if err != nil {
		s.t.Fatal(err)
	}
	opened, err := image.Open(s.t.Context(), image.Options{Root: filepath.Join(s.dir, "root"), Events: s.events,
		Trust: trust.New(trust.Options{Policy: filepath.Join(s.dir, "policy.toml"), Helper: path, Empty: filepath.Join(s.dir, "root", "empty")})})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { opened.Close() })
	s.Service = opened
	return s
}

// policy puts a policy in place, as an editor does.
func (s *site) policy(text string, files ...evidence.File) {
	s.t.Helper()
	for _, f := range append(files, evidence.File{Name: "policy.toml", Data: []byte(text)}) {
		path := filepath.Join(s.dir, f.Name)
		if err := os.WriteFile(path+".new", f.Data, 0o600); err != nil {
			s.t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			s.t.Fatal(err)
		}
	}
}

func (s *site) pull(name string) error { return s.Pull(s.t.Context(), name, image.TransferOptions{}) }

// copy copies from registry to registry.
func (s *site) copy(from, to string) error {
	_, err := image.Manifests{S: s.Service}.Copy(s.t.Context(), image.CopyOptions{From: image.Place{Name: from}, To: image.Place{Name: to}})
	return err
}

// permit is what a run asks.
func (s *site) permit(name string) error {
	s.t.Helper()
	img, err := s.Resolve(s.t.Context(), name, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return image.Permit(s.t.Context(), s.Service, img)
}

// publish makes an image, pushes it, and gives its descriptor.
func publish(t *testing.T, reg *server, name string) ocispec.Descriptor {
	t.Helper()
	s := newSite(t)
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: "a", Mode: 0o644, Size: int64(len(name)), ModTime: time.Unix(1, 0)}); err != nil {
		t.Fatal(err)
	}
	_, _ = w.Write([]byte(name))
	w.Close()
	ref := reg.host + "/" + name
	if _, err := s.Import(t.Context(), &b, image.ImportOptions{Ref: ref}); err != nil {
		t.Fatal(err)
	}
	if err := s.Push(t.Context(), ref, image.TransferOptions{}); err != nil {
		t.Fatal(err)
	}
	img, err := s.Resolve(t.Context(), ref, nil)
	if err != nil {
		t.Fatal(err)
	}
	return img.Manifest
}

// signedBy is a policy of one rule.
func signedBy(scope, signer string) string {
	return fmt.Sprintf("default = \"reject\"\n\n[[rule]]\nscope = %q\naction = \"signed\"\n\n[[rule.signer]]\n%s\n", scope, signer)
}

const byKey = "format = \"sigstore\"\nkeys = [\"key.pub\"]"
