package build

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/moby/buildkit/util/archiveutil"
)

// TestContextsOfAnyTar: whatever way a tar file begins, BuildKit sees from its first KiB that it is one, and it is the same bytes.
func TestContextsOfAnyTar(t *testing.T) {
	for name, h := range map[string]tar.Header{
		"plain":     {Name: "Dockerfile"},
		"pax":       {Name: "Dockerfile", ModTime: time.Unix(1, 500), Format: tar.FormatPAX},
		"long name": {Name: strings.Repeat("d/", 200) + "f", Format: tar.FormatGNU},
	} {
		t.Run(name, func(t *testing.T) {
			var sent, got bytes.Buffer
			w := tar.NewWriter(&sent)
			h.Mode, h.Size = 0o644, 1
			if err := w.WriteHeader(&h); err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write([]byte("x")); err != nil || w.Close() != nil {
				t.Fatal(err)
			}
			if err := receive(&got, bytes.NewReader(sent.Bytes())); err != nil {
				t.Fatal(err)
			}
			if !archiveutil.IsArchive(got.Bytes()[:1024]) {
				t.Error("BuildKit would take it for a Dockerfile")
			}
			kept := got.Bytes()
			if archiveutil.HasGzipPrefix(kept) {
				z, err := gzip.NewReader(&got)
				if err != nil {
					t.Fatal(err)
				}
				if kept, err = io.ReadAll(z); err != nil {
					t.Fatal(err)
				}
			}
			if !bytes.Equal(kept, sent.Bytes()) {
				t.Error("it is another file")
			}
		})
	}
	var got bytes.Buffer
	if err := receive(&got, strings.NewReader("FROM scratch\n")); err != nil || got.String() != "FROM scratch\n" {
		t.Errorf("a Dockerfile alone: %q, %v", got.String(), err)
	}
}

// TestRedirectsStayOutside: what a server elsewhere redirects ADD to is not this machine.
func TestRedirectsStayOutside(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "secret") }))
	defer server.Close()
	inside := strings.Replace(server.URL, "127.0.0.1", "localhost", 1)
	var c contexts
	for from, want := range map[string]bool{"": true, "http://127.0.0.1:1/": true, "http://localhost/": true, "http://files.example/x": false, "https://192.0.2.1/x": false} {
		for _, to := range []string{server.URL, inside} {
			r, err := http.NewRequest("GET", to, nil)
			if err != nil {
				t.Fatal(err)
			}
			if from != "" {
				first, err := http.NewRequest("GET", from, nil)
				if err != nil {
					t.Fatal(err)
				}
				second, _ := http.NewRequest("GET", "https://files.example/second", nil)
				second.Response = &http.Response{Request: first}
				r.Response = &http.Response{Request: second}
			}
			got, err := c.RoundTrip(r)
			if err == nil {
				got.Body.Close()
			}
			if (err == nil) != want || err != nil && !strings.Contains(err.Error(), "this machine itself") {
				t.Errorf("from %q to %s: %v", from, to, err)
			}
		}
	}
}
