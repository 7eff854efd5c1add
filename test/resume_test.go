package test

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// countingRegistry serves an image of one layer, and counts the layer's bytes. Its first download stops in the middle.
type countingRegistry struct {
	layer, config, manifest []byte
	stop                    int64

	mu     sync.Mutex // guards what follows
	ranges []string
	sent   int64
}

func newCountingRegistry(size int, stop int64) (*countingRegistry, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	content := make([]byte, size)
	random := rand.NewChaCha8([32]byte{1})
	_, _ = random.Read(content)
	if err := w.WriteHeader(&tar.Header{Name: "data", Mode: 0o644, Size: int64(size), Typeflag: tar.TypeReg}); err != nil {
		return nil, err
	}
	if _, err := w.Write(content); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	c := &countingRegistry{layer: b.Bytes(), stop: stop}
	c.config = fmt.Appendf(nil, `{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["%s"]}}`, digest.FromBytes(c.layer))
	part := func(kind string, b []byte) map[string]any {
		return map[string]any{"mediaType": "application/vnd.oci.image." + kind, "digest": digest.FromBytes(b), "size": len(b)}
	}
	var err error
	c.manifest, err = json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
		"config": part("config.v1+json", c.config), "layers": []any{part("layer.v1.tar", c.layer)}})
	return c, err
}

func (c *countingRegistry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case strings.Contains(r.URL.Path, "/manifests/"):
		w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
		w.Header().Set("Docker-Content-Digest", digest.FromBytes(c.manifest).String())
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(c.manifest))
	case strings.HasSuffix(r.URL.Path, digest.FromBytes(c.config).String()):
		_, _ = w.Write(c.config)
	case strings.HasSuffix(r.URL.Path, digest.FromBytes(c.layer).String()):
		c.mu.Lock()
		c.ranges = append(c.ranges, r.Header.Get("Range"))
		first := len(c.ranges) == 1
		c.mu.Unlock()
		if first {
			w.Header().Set("Content-Length", fmt.Sprint(len(c.layer)))
			_, _ = w.Write(c.layer[:c.stop])
			w.(http.Flusher).Flush()
			c.count(c.stop)
			<-r.Context().Done()
			return
		}
		counted := &countedWriter{w, 0}
		http.ServeContent(counted, r, "", time.Time{}, bytes.NewReader(c.layer))
		c.count(counted.n)
	}
}

func (c *countingRegistry) count(n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sent += n
}

type countedWriter struct {
	http.ResponseWriter
	n int64
}

func (w *countedWriter) Write(b []byte) (int, error) {
	n, err := w.ResponseWriter.Write(b)
	w.n += int64(n)
	return n, err
}

// TestPullAfterKill: kill -9 of the engine in the middle of a layer costs what was on its way, and nothing that had come.
func TestPullAfterKill(t *testing.T) {
	const size, stop, buffered = 24 << 20, 16 << 20, 2 << 20
	c, err := newCountingRegistry(size, stop)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(c)
	defer server.Close()
	name := strings.TrimPrefix(server.URL, "http://") + "/team/app:1"
	dir, err := os.MkdirTemp(shared.dir, "resume-")
	if err != nil {
		t.Fatal(err)
	}
	e := newEngine(shared, dir)
	if err := e.start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := e.shutdown(); err != nil {
			t.Error(err)
		}
	}()
	ended := make(chan string, 1)
	go func() {
		out, err := e.run("wherry", "pull", name)
		ended <- fmt.Sprint(out, err)
	}()
	err = eventually(time.Minute, func() error {
		have := int64(0)
		files, err := filepath.Glob(filepath.Join(dir, "root/content/ingest/*/data"))
		for _, f := range files {
			if fi, err := os.Stat(f); err == nil {
				have = max(have, fi.Size())
			}
		}
		if have < stop-buffered {
			return fmt.Errorf("%d bytes have come of %d: %v", have, int64(stop), err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.kill(); err != nil {
		t.Fatal(err)
	}
	if out := <-ended; strings.Contains(out, "Downloaded newer image") {
		t.Errorf("the first pull says: %s", out)
	}
	if err := e.start(); err != nil {
		t.Fatal(err)
	}
	if out, err := e.run("wherry", "pull", name); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if twice := c.sent - int64(len(c.layer)); twice > buffered || len(c.ranges) != 2 || !strings.HasPrefix(c.ranges[1], "bytes=1") {
		t.Errorf("%d bytes of the layer were served twice; it was asked for by %q", twice, c.ranges)
	}
	if out, err := e.run("wherry", "images", "-q", name); err != nil || strings.TrimSpace(out) == "" {
		t.Errorf("%v %q", err, out)
	}
}
