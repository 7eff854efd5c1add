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

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// counted counts the bytes of bodies that reach a registry, and may end a connection in their middle.
type counted struct {
	next http.Handler
	got  atomic.Int64
	cut  func(r *http.Request) int64 // after how many bytes the connection ends; <0: not
}

type countedBody struct {
	io.ReadCloser
	c    *counted
	left int64
}

func (b *countedBody) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, io.ErrUnexpectedEOF
	}
	if b.left > 0 && int64(len(p)) > b.left {
		p = p[:b.left]
	}
	n, err := b.ReadCloser.Read(p)
	b.c.got.Add(int64(n))
	if b.left > 0 {
		b.left -= int64(n)
	}
	return n, err
}

func (c *counted) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	left := int64(-1)
	if c.cut != nil && r.ContentLength > 0 {
		left = c.cut(r)
	}
	r.Body = &countedBody{r.Body, c, left}
	if left < 0 {
		c.next.ServeHTTP(w, r)
		return
	}
	c.next.ServeHTTP(discard{}, r)
	panic(http.ErrAbortHandler)
}

// discard is for answers that nobody shall get.
type discard struct{}

func (discard) Header() http.Header         { return http.Header{} }
func (discard) Write(b []byte) (int, error) { return len(b), nil }
func (discard) WriteHeader(int)             {}

// TestBrokenUploadGoesOn: the registry is asked how far it is, and gets the rest only.
func TestBrokenUploadGoesOn(t *testing.T) {
	img := imageOf(sample(8 << 20))
	cuts := 0
	c := &counted{next: app(t)}
	c.cut = func(r *http.Request) int64 {
		if cuts == 3 || r.ContentLength < 1<<20 {
			return -1
		}
		cuts++
		return 2 << 20
	}
	log := &record{next: c}
	host := served(t, log)
	client := quick(Options{}).Client(t.Context(), parsed(t, host+"/a/b:1"), nil)
	var said []string
	p, err := client.Pusher(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p.Waiting = func(_ ocispec.Descriptor, _ time.Duration, err error) { said = append(said, err.Error()) }
	how, err := p.Blob(t.Context(), Upload{Descriptor: described("", img.layer), Content: bytes.NewReader(img.layer)})
	if err != nil || how.Existed || how.Mounted != "" {
		t.Fatalf("%+v %v\n%s", how, err, log.all())
	}
	if cuts != 3 || len(said) != 3 {
		t.Errorf("%d breaks, %q", cuts, said)
	}
	if n := c.got.Load(); n < 8<<20 || n > 8<<20+64<<10 {
		t.Errorf("%d bytes were sent for %d", n, 8<<20)
	}
	if log.count("PATCH") != 3 || log.count("POST") != 1 {
		t.Errorf("%s", log.all())
	}
	f, err := client.Fetcher(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if b, err := readAll(f, t.Context(), described("", img.layer), 0); err != nil || !bytes.Equal(b, img.layer) {
		t.Errorf("%d bytes, %v", len(b), err)
	}
}

// TestUploadsEnd: one that never gets anywhere is given up, with the reason.
func TestUploadsEnd(t *testing.T) {
	c := &counted{next: app(t), cut: func(*http.Request) int64 { return 0 }}
	log := &record{next: c}
	host := served(t, log)
	layer := sample(2 << 20)
	p, err := quick(Options{}).Client(t.Context(), parsed(t, host+"/a/b:1"), nil).Pusher(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Blob(t.Context(), Upload{Descriptor: described("", layer), Content: bytes.NewReader(layer)}); err == nil {
		t.Error("it says that it was sent")
	}
	if n := log.count("PUT"); n != tries {
		t.Errorf("sent %d times\n%s", n, log.all())
	}
}

// TestUploadInParts: a registry, or a proxy before it, that takes no large bodies gets small ones.
func TestUploadInParts(t *testing.T) {
	var most atomic.Int64
	next := app(t)
	log := &record{next: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength > 1<<20 {
			w.WriteHeader(http.StatusRequestEntityTooLarge)
			return
		}
		most.Store(max(most.Load(), r.ContentLength))
		next.ServeHTTP(w, r)
	})}
	img := imageOf(sample(3<<20 + 5))
	client := quick(Options{Chunk: 1 << 20}).Client(t.Context(), parsed(t, served(t, log)+"/a/b:1"), nil)
	if _, err := img.push(t.Context(), client); err != nil {
		t.Fatalf("%v\n%s", err, log.all())
	}
	if err := img.pull(t.Context(), client); err != nil {
		t.Error(err)
	}
	if log.count("PATCH") != 4 || most.Load() != 1<<20 {
		t.Errorf("parts of %d\n%s", most.Load(), log.all())
	}
}

// TestBlobsAreLent: what another repository of the registry has is not sent; one that has it not costs nothing but the question.
func TestBlobsAreLent(t *testing.T) {
	log := &record{next: app(t)}
	host := served(t, log)
	pool := quick(Options{})
	img := imageOf(sample(100_000))
	if _, err := img.push(t.Context(), pool.Client(t.Context(), parsed(t, host+"/team/base:1"), nil)); err != nil {
		t.Fatal(err)
	}
	sent := log.count("PUT /v2/team/app/blobs")
	how, err := img.push(t.Context(), pool.Client(t.Context(), parsed(t, host+"/team/app:1"), nil), "team/base")
	if err != nil || how.Mounted != "team/base" || log.count("PUT /v2/team/app/blobs") != sent+1 { // the config is sent
		t.Errorf("%+v %v\n%s", how, err, log.all())
	}
	if err := img.pull(t.Context(), pool.Client(t.Context(), parsed(t, host+"/team/app:1"), nil)); err != nil {
		t.Error(err)
	}
	how, err = img.push(t.Context(), pool.Client(t.Context(), parsed(t, host+"/team/third:1"), nil), "team/none", "team/neither", "team/base")
	if err != nil || how.Mounted != "team/base" || log.count("DELETE /v2/team/third/blobs/uploads/") != 2 { // what others have begun is given up
		t.Errorf("%+v %v\n%s", how, err, log.all())
	}
	how, err = img.push(t.Context(), pool.Client(t.Context(), parsed(t, host+"/team/other:1"), nil), "team/none", "team/neither")
	if err != nil || how.Mounted != "" || how.Existed {
		t.Errorf("%+v %v", how, err)
	}
	how, err = img.push(t.Context(), pool.Client(t.Context(), parsed(t, host+"/team/other:1"), nil))
	if err != nil || !how.Existed {
		t.Errorf("%+v %v", how, err)
	}
}

// TestBusyWhilePushing: 429 and 503 are waited for in uploads too, and connections that end are no end of a push.
func TestBusyWhilePushing(t *testing.T) {
	for _, status := range []int{429, 503, 0} {
		var n atomic.Int32
		next := app(t)
		host := served(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodHead && n.Add(1)%3 == 1 {
				if status == 0 {
					panic(http.ErrAbortHandler)
				}
				w.Header().Set("Retry-After", "0")
				w.WriteHeader(status)
				return
			}
			next.ServeHTTP(w, r)
		}))
		img := imageOf(sample(50_000))
		client := quick(Options{}).Client(t.Context(), parsed(t, host+"/a/b:1"), nil)
		if _, err := img.push(t.Context(), client); err != nil {
			t.Errorf("%d: %v", status, err)
		}
		if err := img.pull(t.Context(), client); err != nil {
			t.Errorf("%d: %v", status, err)
		}
	}
}

// TestUploadsStayAtTheRegistry: where a registry sends an upload is not its choice alone.
func TestUploadsStayAtTheRegistry(t *testing.T) {
	var reached atomic.Int32
	other := served(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Add(1) }))
	for _, at := range []string{"http://" + other + "/v2/a/b/blobs/uploads/1", "https://elsewhere.example/x", "//" + other + "/x", "http://%zz/", "", "http://user:pw@HOST/x",
		"ftp://HOST/x", "javascript:alert(1)", "http://HOST/" + strings.Repeat("a", 20<<10)} {
		var host string
		host = served(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPost {
				w.Header().Set("Location", strings.ReplaceAll(at, "HOST", host))
				w.WriteHeader(http.StatusAccepted)
				return
			}
			w.WriteHeader(http.StatusNotFound)
		}))
		p, err := quick(Options{}).Client(t.Context(), parsed(t, host+"/a/b:1"), nil).Pusher(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		_, err = p.Blob(ctx, Upload{Descriptor: described("", []byte("layer")), Content: strings.NewReader("layer")})
		cancel()
		if err == nil || reached.Load() != 0 || strings.ContainsAny(err.Error(), "\n\r") || len(err.Error()) > 600 {
			t.Errorf("%.40s: %v", at, err)
		}
	}
}

// TestUploadLocations: the registry's own address may be written in any way, and be behind a proxy that ends TLS.
func TestUploadLocations(t *testing.T) {
	e := &endpoint{settings: &settings{scheme: "https", host: "registry.example.com"}}
	e.base.Scheme, e.base.Host = "https", "registry.example.com"
	req, err := http.NewRequestWithContext(t.Context(), "POST", "https://registry.example.com/v2/a/blobs/uploads/?mount=x", nil)
	if err != nil {
		t.Fatal(err)
	}
	for location, want := range map[string]string{
		"/v2/a/blobs/uploads/1?_state=x%2F":  "https://registry.example.com/v2/a/blobs/uploads/1?_state=x%2F",
		"http://registry.example.com/v2/up":  "https://registry.example.com/v2/up",
		"https://REGISTRY.example.com:443/":  "https://registry.example.com/",
		"https://uploads.example.com/up?k=v": "https://uploads.example.com/up?k=v",
		"http://uploads.example.com/up":      "",
		"https://example.org/up":             "",
		"https://registry.example.com:444/":  "https://registry.example.com:444/",
		"http://registry.example.com:81/":    "",
	} {
		u, err := e.location(&http.Response{Request: req, Header: http.Header{"Location": {location}}})
		if got := fmt.Sprint(u); (err != nil) != (want == "") || err == nil && got != want {
			t.Errorf("%s: %s %v", location, got, err)
		}
	}
}

// TestWrongWordsOfUploads: what a registry says of its progress is not believed beyond reason.
func TestWrongWordsOfUploads(t *testing.T) {
	layer := sample(2 << 20)
	for _, row := range []struct{ name, have string }{{"more than was sent", "0-99999999"}, {"nothing", "0-0"}, {"backwards", "5-2"}, {"no number", "0-x"}, {"an overflow", "0-9223372036854775807"}} {
		var puts atomic.Int32
		host := served(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", "/v2/a/b/blobs/uploads/1")
			w.Header().Set("Range", row.have)
			switch r.Method {
			case http.MethodPost, http.MethodPatch:
				w.WriteHeader(http.StatusAccepted)
			case http.MethodGet:
				w.WriteHeader(http.StatusNoContent)
			case http.MethodPut:
				puts.Add(1)
				panic(http.ErrAbortHandler)
			default:
				w.WriteHeader(http.StatusNotFound)
			}
		}))
		p, err := quick(Options{}).Client(t.Context(), parsed(t, host+"/a/b:1"), nil).Pusher(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err = p.Blob(t.Context(), Upload{Descriptor: described("", layer), Content: bytes.NewReader(layer)}); err == nil || puts.Load() > tries {
			t.Errorf("%s: %v after %d", row.name, err, puts.Load())
		}
	}
}
