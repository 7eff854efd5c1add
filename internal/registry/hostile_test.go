package registry

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestHostileAnswers: what a registry may send instead of an image ends in one clear line, soon, and without being kept in memory.
func TestHostileAnswers(t *testing.T) {
	img := imageOf(sample(100_000))
	endless := func(w http.ResponseWriter, r *http.Request) {
		block := make([]byte, 64<<10)
		for r.Context().Err() == nil {
			if _, err := w.Write(block); err != nil {
				return
			}
		}
	}
	manifest := func(w http.ResponseWriter) {
		w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
		w.Header().Set("Docker-Content-Digest", img.root.Digest.String())
		w.Header().Set("Content-Length", fmt.Sprint(len(img.manifest)))
	}
	var places atomic.Int32
	rows := []struct {
		name, says string
		serve      func(w http.ResponseWriter, r *http.Request)
	}{
		{"an endless manifest", "8 MiB are the most", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/plain")
			if r.Method == http.MethodGet {
				endless(w, r)
			}
		}},
		{"a manifest of 1 GiB", "8 MiB are the most", func(w http.ResponseWriter, _ *http.Request) {
			manifest(w)
			w.Header().Set("Content-Length", fmt.Sprint(1<<30))
		}},
		{"a digest that is none", "as the digest", func(w http.ResponseWriter, _ *http.Request) {
			manifest(w)
			w.Header().Set("Docker-Content-Digest", "sha256:../../etc")
		}},
		{"headers without end", "header", func(w http.ResponseWriter, _ *http.Request) {
			for i := range 5000 {
				w.Header().Set(fmt.Sprintf("X-%d", i), strings.Repeat("x", 100))
			}
		}},
		{"a manifest of another size", "the manifest says", func(w http.ResponseWriter, r *http.Request) {
			manifest(w)
			if r.Method == http.MethodGet {
				w.Header().Set("Content-Length", "5")
				_, _ = io.WriteString(w, "12345")
			}
		}},
		{"more than there is to be", "more than", func(w http.ResponseWriter, r *http.Request) {
			manifest(w)
			if r.Method == http.MethodGet {
				w.Header().Del("Content-Length")
				endless(w, r)
			}
		}},
		{"a coding that was not asked for", "coding", func(w http.ResponseWriter, r *http.Request) {
			manifest(w)
			if r.Method == http.MethodGet {
				w.Header().Set("Content-Encoding", "gzip")
				_, _ = w.Write(img.manifest)
			}
		}},
		{"redirections in a circle", "10 redirects", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, r.URL.String()+"x", http.StatusTemporaryRedirect)
		}},
		{"a redirection to a file", "unsupported protocol", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "file:///etc/passwd")
			w.WriteHeader(http.StatusFound)
		}},
		{"words with control characters", "bad thing [2J", func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusBadRequest)
			_, _ = io.WriteString(w, `{"errors":[{"code":"X","message":"bad\nthing\u001b[2J"}]}`)
		}},
		{"401 without end", "access denied", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+r.Host+`/token"`)
			if r.URL.Path == "/token" {
				_, _ = io.WriteString(w, `{"token":"x"}`)
				return
			}
			w.WriteHeader(http.StatusUnauthorized)
		}},
		{"401 at ever new places", "access denied", func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.Host, "127.") {
				name := []byte("localhost")
				for i, n := 0, places.Add(1); i < len(name); i, n = i+1, n/2 {
					name[i] -= byte(n%2) * ('a' - 'A')
				}
				_, port, _ := strings.Cut(r.Host, ":")
				http.Redirect(w, r, "http://"+string(name)+":"+port+r.URL.Path, http.StatusTemporaryRedirect)
				return
			}
			if strings.HasSuffix(r.URL.Path, "/token") {
				_, _ = io.WriteString(w, `{"token":"x"}`)
				return
			}
			w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+r.Host+`/token"`)
			w.WriteHeader(http.StatusUnauthorized)
		}},
		{"a manifest that stands still", "has sent nothing", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/plain") // it has to be read to be known
			if r.Method == http.MethodGet {
				_, _ = io.WriteString(w, "{")
				w.(http.Flusher).Flush()
				<-r.Context().Done()
			}
		}},
		{"a token service without end", "token service", func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/token" {
				endless(w, r)
				return
			}
			w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+r.Host+`/token"`)
			w.WriteHeader(http.StatusUnauthorized)
		}},
		{"nothing at all", "has not answered", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }},
		{"429 for ever", "too many requests", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "0")
			w.WriteHeader(http.StatusTooManyRequests)
		}},
		{"503 until the next century", "503", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "Fri, 31 Dec 2199 23:59:59 GMT")
			w.WriteHeader(http.StatusServiceUnavailable)
		}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			var asked atomic.Int32
			host := served(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				asked.Add(1)
				row.serve(w, r)
			}))
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			err := img.pull(ctx, quick(Options{Answer: time.Second, Patience: time.Second}).Client(ctx, parsed(t, host+"/a/b:1"), nil))
			err = Explain("pull a/b:1", host, err)
			if err == nil || !strings.Contains(err.Error(), row.says) || strings.ContainsAny(err.Error(), "\n\x1b") || len(err.Error()) > 700 || ctx.Err() != nil {
				t.Errorf("%v", err)
			}
			if n := asked.Load(); n > 60 {
				t.Errorf("%d requests", n)
			}
		})
	}
}

// TestEndlessLists: pages of tags that go on for ever, repeat themselves or are too large end.
func TestEndlessLists(t *testing.T) {
	for name, serve := range map[string]func(w http.ResponseWriter, r *http.Request, n int32){
		"a tag a page, for ever": func(w http.ResponseWriter, r *http.Request, n int32) {
			w.Header().Set("Link", fmt.Sprintf(`<%s?last=%d>; rel="next"`, r.URL.Path, n))
			fmt.Fprintf(w, `{"tags":["t%d"]}`, n)
		},
		"the same page": func(w http.ResponseWriter, r *http.Request, _ int32) {
			w.Header().Set("Link", fmt.Sprintf(`<%s>; rel="next"`, r.URL))
			_, _ = io.WriteString(w, `{"tags":["t"]}`)
		},
		"one of 100 MB": func(w http.ResponseWriter, _ *http.Request, _ int32) {
			_, _ = io.WriteString(w, `{"tags":["`)
			block := bytes.Repeat([]byte{'a'}, 1<<20)
			for range 100 {
				if _, err := w.Write(block); err != nil {
					return
				}
			}
		},
	} {
		var asked atomic.Int32
		host := served(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { serve(w, r, asked.Add(1)) }))
		if tags, err := quick(Options{}).Client(t.Context(), parsed(t, host+"/a/b:1"), nil).Tags(t.Context()); !errdefs.IsInvalidArgument(err) || asked.Load() > maxPages+2 {
			t.Errorf("%s: %d tags, %v, after %d requests", name, len(tags), err, asked.Load())
		}
	}
}

// TestWrongParts: an answer to a request for a part is that part, or the whole; anything else is refused.
func TestWrongParts(t *testing.T) {
	layer := sample(1000)
	for part, ok := range map[string]bool{"bytes 400-999/1000": true, "bytes 0-999/1000": false, "bytes 400-999/2000": false, "bytes 999-400/1000": false, "": false, "bytes 400-": false, "bytes 400-999/*": true} {
		host := served(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if part != "" {
				w.Header().Set("Content-Range", part)
			}
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write(layer[400:])
		}))
		f, err := quick(Options{}).Client(t.Context(), parsed(t, host+"/a/b"), nil).Fetcher(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		b, err := readAll(f, t.Context(), described("", layer), 400)
		if (err == nil) != ok || ok && !bytes.Equal(b, layer[400:]) {
			t.Errorf("%q: %d bytes, %v", part, len(b), err)
		}
	}
	whole := served(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(layer) }))
	f, err := quick(Options{}).Client(t.Context(), parsed(t, whole+"/a/b"), nil).Fetcher(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if b, err := readAll(f, t.Context(), described("", layer), 400); err != nil || !bytes.Equal(b, layer[400:]) {
		t.Errorf("a registry that knows no parts: %d bytes, %v", len(b), err)
	}
}
