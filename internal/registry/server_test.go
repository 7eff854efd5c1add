package registry

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/handlers"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/inmemory"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"wherry.dev/wherry/internal/ref"
)

// app is the reference implementation (v3), in memory.
func app(t testing.TB) http.Handler {
	t.Helper()
	config := &configuration.Configuration{Storage: configuration.Storage{"inmemory": configuration.Parameters{}, "delete": {"enabled": true}}}
	config.HTTP.Secret = "only for this test"
	config.Log.Level = "panic"
	return handlers.NewApp(t.Context(), config)
}

// served is a handler on loopback, without TLS.
func served(t testing.TB, h http.Handler) (host string) {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

// quick is a pool that tries again at once.
func quick(o Options) *Pool {
	if o.Pause == 0 {
		o.Pause = time.Millisecond
	}
	if o.HostDirs == nil {
		o.HostDirs = []string{}
	}
	return NewPool(o)
}

func parsed(t testing.TB, name string) ref.Reference {
	t.Helper()
	r, err := ref.Parse(name)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func described(mediaType string, b []byte) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}
}

// sample is content that is never the same twice within, so that a piece at a wrong place is noticed.
func sample(n int) []byte {
	var b bytes.Buffer
	for i := 0; b.Len() < n; i++ {
		s := sha256.Sum256(fmt.Appendf(nil, "%d %d", n, i))
		b.Write(s[:])
	}
	return b.Bytes()[:n]
}

// image is one layer with its manifest.
type image struct {
	layer, config, manifest []byte
	root                    ocispec.Descriptor
}

func imageOf(layer []byte) image {
	i := image{layer: layer, config: []byte("{}")}
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: described(ocispec.MediaTypeImageConfig, i.config), Layers: []ocispec.Descriptor{described(ocispec.MediaTypeImageLayer, layer)}}
	i.manifest, _ = json.Marshal(m)
	i.root = described(m.MediaType, i.manifest)
	return i
}

// push sends an image and says how its layer came there.
func (i image) push(ctx context.Context, c *Client, from ...string) (Outcome, error) {
	p, err := c.Pusher(ctx)
	if err != nil {
		return Outcome{}, err
	}
	if _, err := p.Blob(ctx, Upload{Descriptor: described("", i.config), Content: bytes.NewReader(i.config)}); err != nil {
		return Outcome{}, err
	}
	how, err := p.Blob(ctx, Upload{Descriptor: described("", i.layer), Content: bytes.NewReader(i.layer), From: func() []string { return from }})
	if err != nil {
		return how, err
	}
	return how, p.Manifest(ctx, i.root, i.manifest, c.Ref.Tag)
}

// pull resolves and reads an image's manifest and layer, and holds them against what they have to be.
func (i image) pull(ctx context.Context, c *Client) error {
	d, err := c.Resolve(ctx)
	if err != nil {
		return err
	}
	if d.Digest != i.root.Digest || d.Size != i.root.Size || d.MediaType != i.root.MediaType {
		return fmt.Errorf("resolved to %+v", d)
	}
	f, err := c.Fetcher(ctx)
	if err != nil {
		return err
	}
	for _, part := range []struct {
		d ocispec.Descriptor
		b []byte
	}{{d, i.manifest}, {described(ocispec.MediaTypeImageLayer, i.layer), i.layer}} {
		got, err := readAll(f, ctx, part.d, 0)
		if err != nil {
			return err
		}
		if !bytes.Equal(got, part.b) {
			return fmt.Errorf("%s: other bytes", part.d.Digest)
		}
	}
	return nil
}

func readAll(f *Fetcher, ctx context.Context, d ocispec.Descriptor, at int64) ([]byte, error) {
	r, err := f.Open(ctx, d, at)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(r)
	return b, errors.Join(err, r.Close())
}

// record notes requests that come by.
type record struct {
	next http.Handler
	mu   sync.Mutex
	seen []string
	auth []string
}

func (r *record) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	r.seen = append(r.seen, req.Method+" "+req.URL.RequestURI())
	r.auth = append(r.auth, req.Header.Get("Authorization"))
	r.mu.Unlock()
	r.next.ServeHTTP(w, req)
}

// count is how many requests began with something.
func (r *record) count(beginning string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, s := range r.seen {
		if strings.HasPrefix(s, beginning) {
			n++
		}
	}
	return n
}

func (r *record) all() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.seen, "\n")
}

// countNew counts connections.
func countNew(n *atomic.Int32) func(net.Conn, http.ConnState) {
	return func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			n.Add(1)
		}
	}
}

// discardLog is for servers whose connections a test breaks.
func discardLog() *log.Logger { return log.New(io.Discard, "", 0) }
