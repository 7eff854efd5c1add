package registry

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// referrer sends a manifest whose subject is an image, and describes it as lists do.
func referrer(t *testing.T, p *Pusher, subject ocispec.Descriptor, note string) ocispec.Descriptor {
	t.Helper()
	b, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": ocispec.MediaTypeImageManifest, "artifactType": "text/note", "config": described(ocispec.MediaTypeImageConfig, []byte("{}")),
		"layers": []any{}, "subject": subject, "annotations": map[string]string{"note": note}})
	if err != nil {
		t.Fatal(err)
	}
	d := described(ocispec.MediaTypeImageManifest, b)
	if err := p.Manifest(t.Context(), d, b, ""); err != nil {
		t.Fatal(err)
	}
	d.ArtifactType, d.Annotations = "text/note", map[string]string{"note": note}
	return d
}

// raw reads what is under a tag.
func raw(t *testing.T, host, repository, tag string) (text, mediaType string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+host+"/v2/"+repository+"/manifests/"+tag, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header["Accept"] = manifestTypes()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b), resp.Header.Get("Content-Type")
}

// TestReferWhereThereIsNoAPI: the index under the tag keeps what others wrote there, is written once for all that are added, and again when
// somebody else undoes it meanwhile.
func TestReferWhereThereIsNoAPI(t *testing.T) {
	next := app(t)
	undo := func() {}
	log := &record{}
	log.next = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r)
		if r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/manifests/sha256-") {
			undo()
		}
	})
	host := served(t, log)
	img := imageOf(sample(1000))
	c := quick(Options{}).Client(t.Context(), parsed(t, host+"/a/b:1"), nil)
	if _, err := img.push(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	p, err := c.Pusher(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	tag := referrersTag(img.root.Digest)
	first, second, third := referrer(t, p, img.root, "first"), referrer(t, p, img.root, "second"), referrer(t, p, img.root, "third")
	// Somebody else's index: with annotations of its own, and an entry whose type and field nobody here knows.
	odd := referrer(t, p, img.root, "odd")
	theirs := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"annotations":{"by":"them"},"manifests":[{"mediaType":"application/x-odd","digest":%q,"size":%d,"x-more":7}]}`,
		ocispec.MediaTypeImageIndex, odd.Digest, odd.Size)
	write := func(text string) {
		t.Helper()
		if err := p.Manifest(t.Context(), described(ocispec.MediaTypeImageIndex, []byte(text)), []byte(text), tag); err != nil {
			t.Error(err)
		}
	}
	write(theirs)
	before := log.count("PUT /v2/a/b/manifests/" + tag)
	if err := p.Refer(t.Context(), img.root.Digest, first, second); err != nil {
		t.Fatal(err)
	}
	if n := log.count("PUT /v2/a/b/manifests/"+tag) - before; n != 1 {
		t.Errorf("two referrers were noted by %d writes", n)
	}
	text, _ := raw(t, host, "a/b", tag)
	for _, want := range []string{`"by":"them"`, `"x-more":7`, first.Digest.String(), second.Digest.String()} {
		if !strings.Contains(text, want) {
			t.Errorf("the index lacks %s: %s", want, text)
		}
	}
	undone := false
	undo = func() {
		if !undone {
			undone = true
			write(theirs)
		}
	}
	if err := p.Refer(t.Context(), img.root.Digest, third); err != nil {
		t.Fatal(err)
	}
	list, err := c.Referrers(t.Context(), img.root.Digest, "")
	if err != nil || len(list) != 1 || list[0].Digest != third.Digest || !undone {
		t.Errorf("%+v %v", list, err)
	}
}

// TestATagOfSomebodyElseStays: what stands under the tag and is no index is not written over.
func TestATagOfSomebodyElseStays(t *testing.T) {
	host := served(t, app(t))
	img := imageOf(sample(1000))
	c := quick(Options{}).Client(t.Context(), parsed(t, host+"/a/b:1"), nil)
	if _, err := img.push(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	p, err := c.Pusher(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	tag := referrersTag(img.root.Digest)
	if err := p.Manifest(t.Context(), img.root, img.manifest, tag); err != nil {
		t.Fatal(err)
	}
	if err := p.Refer(t.Context(), img.root.Digest, referrer(t, p, img.root, "x")); err == nil || !strings.Contains(err.Error(), tag) {
		t.Errorf("%v", err)
	}
	if text, _ := raw(t, host, "a/b", tag); text != string(img.manifest) {
		t.Errorf("%s", text)
	}
}

// TestReferAsksTheRegistryItself: what a mirror lists is not written into the registry.
func TestReferAsksTheRegistryItself(t *testing.T) {
	img := imageOf(sample(1000))
	mirror, home := served(t, app(t)), served(t, app(t))
	var kept ocispec.Descriptor
	for _, host := range []string{mirror, home} {
		c := quick(Options{}).Client(t.Context(), parsed(t, host+"/a/b:1"), nil)
		if _, err := img.push(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		if host == home {
			p, err := c.Pusher(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			kept = referrer(t, p, img.root, "at home only")
			if err := p.Refer(t.Context(), img.root.Digest, kept); err != nil {
				t.Fatal(err)
			}
		}
	}
	dirs := []string{hostsFile(t, home, fmt.Sprintf("server = \"http://%s\"\n[host.\"http://%s\"]\ncapabilities = [\"pull\", \"resolve\", \"referrers\"]\n", home, mirror))}
	p, err := quick(Options{HostDirs: dirs}).Client(t.Context(), parsed(t, home+"/a/b:1"), nil).Pusher(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Refer(t.Context(), img.root.Digest, referrer(t, p, img.root, "new")); err != nil {
		t.Fatal(err)
	}
	if text, _ := raw(t, home, "a/b", referrersTag(img.root.Digest)); strings.Count(text, `"text/note"`) != 2 || !strings.Contains(text, kept.Digest.String()) {
		t.Errorf("%s", text)
	}
}

// TestPagesOfReferrers: they come from one host each, empty ones in the middle are no end, and what is kept of them is bounded.
func TestPagesOfReferrers(t *testing.T) {
	subject := digest.FromString("subject")
	entry := func(i int, more string) string {
		return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":5%s}`, ocispec.MediaTypeImageManifest, digest.FromString(fmt.Sprint(i)), more)
	}
	pages := func(serve func(n int) string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			n := 0
			fmt.Sscan(r.URL.Query().Get("page"), &n)
			text := serve(n)
			if text == "" {
				w.WriteHeader(http.StatusInternalServerError)
				return
			}
			w.Header().Set("Content-Type", ocispec.MediaTypeImageIndex)
			if !strings.HasPrefix(text, "last ") {
				w.Header().Set("Link", fmt.Sprintf(`<%s?page=%d>; rel="next"`, r.URL.Path, n+1))
			}
			fmt.Fprintf(w, `{"schemaVersion":2,"manifests":[%s]}`, strings.TrimPrefix(text, "last "))
		})
	}
	home := &record{next: pages(func(n int) string {
		return []string{entry(0, ""), " ", "last " + entry(1, "")}[min(n, 2)]
	})}
	mirror := &record{next: pages(func(n int) string {
		if n == 0 {
			return entry(7, "")
		}
		return ""
	})}
	homeHost, mirrorHost := served(t, home), served(t, mirror)
	dirs := []string{hostsFile(t, homeHost, fmt.Sprintf("server = \"http://%s\"\n[host.\"http://%s\"]\n", homeHost, mirrorHost))}
	list, err := quick(Options{HostDirs: dirs}).Client(t.Context(), parsed(t, homeHost+"/a/b"), nil).Referrers(t.Context(), subject, "")
	if err != nil || len(list) != 2 || list[0].Digest != digest.FromString("0") || list[1].Digest != digest.FromString("1") {
		t.Errorf("%+v %v", list, err)
	}
	for _, at := range mirror.seen {
		if !strings.Contains(at, "ns="+strings.ReplaceAll(homeHost, ":", "%3A")) {
			t.Errorf("the mirror is not told whose repository it is: %s", at)
		}
	}
	for name, serve := range map[string]func(n int) string{
		"much is said of each": func(n int) string {
			return entry(n, `,"annotations":{"x":"`+strings.Repeat("x", 1<<20)+`"}`)
		},
		"many on a page":  func(int) string { return strings.Repeat("{},", 2*maxReferrers) + "{}" },
		"a page for ever": func(n int) string { return entry(n, "") },
	} {
		var asked atomic.Int32
		h := pages(serve)
		host := served(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked.Add(1)
			h.ServeHTTP(w, r)
		}))
		list, err := quick(Options{}).Client(t.Context(), parsed(t, host+"/a/b"), nil).Referrers(t.Context(), subject, "")
		if !errdefs.IsInvalidArgument(err) || asked.Load() > maxPages {
			t.Errorf("%s: %d, %v after %d pages", name, len(list), err, asked.Load())
		}
	}
}

// TestTheRegistryByAnotherWay: a login is for the registry wherever the settings say that it is, and by whichever of its paths.
func TestTheRegistryByAnotherWay(t *testing.T) {
	img := imageOf(sample(1000))
	next := app(t)
	log := &record{next: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "me" || password != "secret" {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		r.URL.Path = strings.Replace(r.URL.Path, "/proxied/v2/", "/v2/", 1)
		next.ServeHTTP(w, r)
	})}
	host := served(t, log)
	for domain, text := range map[string]string{
		"registry.example": fmt.Sprintf("server = \"http://%s\"\n", host),
		host:               fmt.Sprintf("[host.\"http://%s/proxied\"]\ncapabilities = [\"pull\", \"resolve\", \"push\"]\n", host),
	} {
		n := log.count("")
		pool := quick(Options{HostDirs: []string{hostsFile(t, domain, text)}})
		c := pool.Client(t.Context(), parsed(t, domain+"/a/b:1"), &registry.AuthConfig{Username: "me", Password: "secret", ServerAddress: domain})
		if _, err := img.push(t.Context(), c); err != nil {
			t.Errorf("%s: %v", domain, err)
			continue
		}
		if err := img.pull(t.Context(), c); err != nil {
			t.Errorf("%s: %v", domain, err)
		}
		for _, at := range log.seen[n:] {
			if strings.Contains(at, "ns=") || domain == host && !strings.Contains(at, "/proxied/v2/") && !strings.Contains(at, "/uploads/") {
				t.Errorf("%s: asked for %s", domain, at)
			}
		}
	}
	// A login for a third host is for neither.
	pool := quick(Options{HostDirs: []string{hostsFile(t, "registry.example", fmt.Sprintf("server = \"http://%s\"\n", host))}})
	_, err := pool.Client(t.Context(), parsed(t, "registry.example/a/b:1"), &registry.AuthConfig{Username: "me", Password: "secret", ServerAddress: "other.example"}).Resolve(t.Context())
	if err == nil || !strings.Contains(err.Error(), "were not sent") {
		t.Errorf("%v", err)
	}
}

// TestSmallOfALyingMirror: what a mirror makes up is asked of the registry itself.
func TestSmallOfALyingMirror(t *testing.T) {
	content := []byte("small content")
	home := served(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(content) }))
	mirror := served(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, len(content))) }))
	dirs := []string{hostsFile(t, home, fmt.Sprintf("server = \"http://%s\"\n[host.\"http://%s\"]\n", home, mirror))}
	f, err := quick(Options{HostDirs: dirs}).Client(t.Context(), parsed(t, home+"/a/b"), nil).Fetcher(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if b, err := f.Small(t.Context(), described("", content), 100); err != nil || !bytes.Equal(b, content) {
		t.Errorf("%q %v", b, err)
	}
	f, err = quick(Options{}).Client(t.Context(), parsed(t, mirror+"/a/b"), nil).Fetcher(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if b, err := f.Small(t.Context(), described("", content), 100); !errdefs.IsInvalidArgument(err) {
		t.Errorf("%q %v", b, err)
	}
}
