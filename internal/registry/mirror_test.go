package registry

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// hostsFile writes a registry's hosts.toml and gives the folder for Options.HostDirs.
func hostsFile(t testing.TB, registry, text string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, registry), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, registry, "hosts.toml"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestMirrors: they are asked in their order, under the names that they have there; one that fails, lacks the image or lies is passed over;
// the digest is the caller's to check, and who served something else is not asked for it again.
func TestMirrors(t *testing.T) {
	img := imageOf(sample(3 << 20))
	good := app(t)
	origin := &record{next: app(t)}
	originHost := served(t, origin)
	mirror := &record{next: good}
	mirrorHost := served(t, mirror)
	name := originHost + "/library/debian:12"
	for _, to := range []string{name, mirrorHost + "/cache/debian:12"} {
		if _, err := img.push(t.Context(), quick(Options{}).Client(t.Context(), parsed(t, to), nil)); err != nil {
			t.Fatal(err)
		}
	}
	liar := served(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.Contains(r.URL.Path, "/blobs/") {
			good.ServeHTTP(w, r)
			return
		}
		_, _ = w.Write(make([]byte, len(img.layer)))
	}))
	server := fmt.Sprintf("server = %q\n", "http://"+originHost)
	pulls := "capabilities = [\"pull\", \"resolve\"]\n"
	rows := []struct {
		name, hosts          string
		atMirror, atHome     bool
		byDigest, distrusted bool
	}{
		{name: "path", hosts: fmt.Sprintf("[host.\"http://%s/v2/cache\"]\n%soverride_path = true\n[host.\"http://%s/v2/cache\".rewrite]\n\"library/\" = \"\"\n", mirrorHost, pulls, mirrorHost), atMirror: true},
		{name: "rewritten", hosts: fmt.Sprintf("[host.\"http://%s\"]\n%s[host.\"http://%s\".rewrite]\n\"library/\" = \"cache/\"\n\"lib\" = \"wrong\"\n", mirrorHost, pulls, mirrorHost), atMirror: true},
		{name: "lacks the image", hosts: fmt.Sprintf("[host.\"http://%s\"]\n%s", mirrorHost, pulls), atHome: true},
		{name: "down", hosts: fmt.Sprintf("[host.\"http://127.0.0.1:1\"]\n%s[host.\"http://%s\"]\n%s[host.\"http://%s\".rewrite]\n\"library/\" = \"cache/\"\n", pulls, mirrorHost, pulls, mirrorHost), atMirror: true},
		{name: "only content", hosts: fmt.Sprintf("[host.\"http://%s\"]\ncapabilities = [\"pull\"]\nrewrite = { \"library/\" = \"cache/\" }\n", mirrorHost), atMirror: true, byDigest: true},
		{name: "lies", hosts: fmt.Sprintf("[host.\"http://%s\"]\n%srewrite = { \"library/\" = \"cache/\" }\n", liar, pulls), atHome: true, distrusted: true},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			home, away := origin.count("GET /v2/library/debian/blobs"), mirror.count("GET /v2/cache/debian/blobs")
			tags := mirror.count("HEAD /v2/cache/debian/manifests/12")
			pool := quick(Options{HostDirs: []string{hostsFile(t, originHost, server+row.hosts)}})
			client := pool.Client(t.Context(), parsed(t, name), &registry.AuthConfig{Username: "me", Password: "secret", ServerAddress: originHost})
			if row.distrusted {
				f, err := client.Fetcher(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				d := described(ocispec.MediaTypeImageLayer, img.layer)
				if b, err := readAll(f, t.Context(), d, 0); err != nil || bytes.Equal(b, img.layer) || !f.Distrust(d.Digest) {
					t.Fatalf("%v", err)
				}
				if b, err := readAll(f, t.Context(), d, 0); err != nil || !bytes.Equal(b, img.layer) || f.Distrust(d.Digest) {
					t.Errorf("%d bytes %v", len(b), err)
				}
			} else if err := img.pull(t.Context(), client); err != nil {
				t.Fatal(err)
			}
			if got := origin.count("GET /v2/library/debian/blobs") > home; got != row.atHome {
				t.Errorf("the registry itself was asked: %v", got)
			}
			if got := mirror.count("GET /v2/cache/debian/blobs") > away; got != row.atMirror {
				t.Errorf("the mirror was asked: %v\n%s", got, mirror.all())
			}
			if got := mirror.count("HEAD /v2/cache/debian/manifests/12") > tags; row.byDigest && got {
				t.Error("it was asked for a tag")
			}
		})
	}
	for i, a := range mirror.auth {
		if a != "" {
			t.Errorf("request %d to the mirror had %q", i, a)
		}
	}
}

// TestMirrorsInTheMiddle: a mirror that breaks off in the middle and stays away is followed by the registry itself, from there on.
func TestMirrorsInTheMiddle(t *testing.T) {
	img := imageOf(sample(2 << 20))
	origin := &record{next: app(t)}
	host := served(t, origin)
	name := host + "/a/b:1"
	if _, err := img.push(t.Context(), quick(Options{}).Client(t.Context(), parsed(t, name), nil)); err != nil {
		t.Fatal(err)
	}
	var ranges []string
	log := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ranges = append(ranges, r.Header.Get("Range"))
		origin.ServeHTTP(w, r)
	})
	home := served(t, log)
	var asked atomic.Int32
	mirror := served(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1) > 1 {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(img.layer)))
		_, _ = w.Write(img.layer[:1<<20])
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}))
	pool := quick(Options{HostDirs: []string{hostsFile(t, home, fmt.Sprintf("server = \"http://%s\"\n[host.\"http://%s\"]\ncapabilities = [\"pull\"]\n", home, mirror))}})
	f, err := pool.Client(t.Context(), parsed(t, home+"/a/b:1"), nil).Fetcher(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b, err := readAll(f, t.Context(), described("", img.layer), 0)
	if err != nil || !bytes.Equal(b, img.layer) || len(ranges) != 1 || ranges[0] != fmt.Sprintf("bytes=%d-", 1<<20) {
		t.Errorf("%d bytes, %v, the registry was asked for %q", len(b), err, ranges)
	}
}

// TestErrorsNameMirrors: what the registry says counts, and what each mirror said stands beside it.
func TestErrorsNameMirrors(t *testing.T) {
	dir := hostsFile(t, "127.0.0.1:1", "[host.\"http://127.0.0.1:2\"]\ncapabilities = [\"pull\", \"resolve\"]\n")
	_, err := quick(Options{HostDirs: []string{dir}}).Client(t.Context(), parsed(t, "127.0.0.1:1/a/b"), nil).Resolve(t.Context())
	err = Explain("pull a/b", "127.0.0.1:1", err)
	if text := fmt.Sprint(err); !errdefs.IsUnavailable(err) || !strings.Contains(text, "nothing listens at 127.0.0.1:1") || !strings.Contains(text, "(mirror 127.0.0.1:2: ") || strings.Contains(text, "\n") {
		t.Error(err)
	}
}

// TestHeadersStayWithTheirHost: what the settings give for a host goes to no other, not even by a redirection.
func TestHeadersStayWithTheirHost(t *testing.T) {
	img := imageOf(sample(1000))
	var mu sync.Mutex
	var heard []string
	store := served(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		heard = append(heard, r.Header.Get("Authorization")+r.Header.Get("X-Key"))
		_, _ = w.Write(img.layer)
	}))
	var given []string
	mirror := served(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		given = append(given, r.Header.Get("Authorization")+r.Header.Get("X-Key"))
		http.Redirect(w, r, "http://"+store+"/blob", http.StatusTemporaryRedirect)
	}))
	dir := hostsFile(t, "registry.example", fmt.Sprintf("[host.\"http://%s\"]\ncapabilities = [\"pull\"]\n[host.\"http://%s\".header]\nauthorization = \"Basic c2VjcmV0\"\nx-key = [\"key\"]\n", mirror, mirror))
	f, err := quick(Options{HostDirs: []string{dir}}).Client(t.Context(), parsed(t, "registry.example/a/b"), nil).Fetcher(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b, err := readAll(f, t.Context(), described("", img.layer), 0)
	if err != nil || !bytes.Equal(b, img.layer) || strings.Join(heard, "") != "" || len(heard) != 1 || strings.Join(given, "") != "Basic c2VjcmV0key" {
		t.Errorf("%v; the mirror heard %q, the other host %q", err, given, heard)
	}
}

// TestSettingsThatAreWrong: they are named, and nothing is asked in another way instead.
func TestSettingsThatAreWrong(t *testing.T) {
	for text, says := range map[string]string{
		"server = \n":           "hosts.toml",
		"servr = \"https://x\"": `unknown key "servr"`,
		"[host.\"https://m\"]\ncapabilities = [\"puul\"]": "puul",
		"[host.\"ftp://m\"]":                              "no address",
		"[host.\"https://me:pw@m\"]":                      "no address",
		"[host.\"https://m\"]\nca = 5":                    "ca wants",
		"ca = \"none.crt\"":                               "none.crt",
		"client = [[\"a\",\"b\",\"c\"]]":                  "client wants",
		"dial_timeout = \"soon\"":                         "dial_timeout",
		"[header]\nx = 5":                                 "header",
		"capabilities = []":                               "no host that may be asked",
	} {
		client := quick(Options{HostDirs: []string{hostsFile(t, "registry.example", text)}}).Client(t.Context(), parsed(t, "registry.example/a"), nil)
		if _, err := client.Resolve(t.Context()); err == nil || !strings.Contains(err.Error(), says) || !errdefs.IsInvalidArgument(err) && !os.IsNotExist(err) && !strings.Contains(err.Error(), "no such file") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// TestSettingsOfAnyRegistry: _default is for those without their own, in whichever folder that is.
func TestSettingsOfAnyRegistry(t *testing.T) {
	p := quick(Options{HostDirs: []string{hostsFile(t, "_default", "[host.\"https://any.example\"]\n"), hostsFile(t, "own.example", "[host.\"own-mirror.example/path\"]\n"), hostsFile(t, "own.example_5000_", "server = \"port.example\"\n")}})
	for domain, want := range map[string]string{
		"other.example":    "https://any.example/v2 https://other.example/v2",
		"docker.io":        "https://any.example/v2 https://registry-1.docker.io/v2",
		"own.example":      "https://own-mirror.example/path/v2 https://own.example/v2",
		"own.example:5000": "https://port.example/v2",
	} {
		list, err := p.settings(domain)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, s := range list {
			got = append(got, s.scheme+"://"+s.host+s.path)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %q, want %q", domain, got, want)
		}
	}
}

// TestConnectionsAreKept: two pulls of one registry share a connection.
func TestConnectionsAreKept(t *testing.T) {
	img := imageOf(sample(300_000))
	var fresh atomic.Int32
	server := httptest.NewUnstartedServer(app(t))
	server.Config.ConnState = countNew(&fresh)
	server.Start()
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	pool := quick(Options{})
	if _, err := img.push(t.Context(), pool.Client(t.Context(), parsed(t, host+"/a/b:1"), nil)); err != nil {
		t.Fatal(err)
	}
	before := fresh.Load()
	for range 3 {
		if err := img.pull(t.Context(), pool.Client(t.Context(), parsed(t, host+"/a/b:1"), nil)); err != nil {
			t.Fatal(err)
		}
	}
	// Each client learns anew, by one connection, that there is no TLS.
	if n := fresh.Load() - before; n > 3 {
		t.Errorf("%d connections for 3 pulls of 3 requests each", n)
	}
}

// TestProxies of the environment are used for others' hosts, and not for this machine.
func TestProxies(t *testing.T) {
	img := imageOf(sample(1000))
	next := app(t)
	proxy := &record{next: next}
	t.Setenv("HTTP_PROXY", "http://"+served(t, proxy))
	t.Setenv("NO_PROXY", "")
	pool := quick(Options{HostDirs: []string{hostsFile(t, "far.example", "server = \"http://far.example\"\n")}})
	if _, err := img.push(t.Context(), pool.Client(t.Context(), parsed(t, "far.example/a/b:1"), nil)); err != nil {
		t.Fatal(err)
	}
	if err := img.pull(t.Context(), pool.Client(t.Context(), parsed(t, "far.example/a/b:1"), nil)); err != nil {
		t.Fatal(err)
	}
	if proxy.count("GET /v2/a/b/blobs/") == 0 {
		t.Errorf("%s", proxy.all())
	}
	n := len(proxy.seen)
	if _, err := img.push(t.Context(), pool.Client(t.Context(), parsed(t, served(t, next)+"/a/b:1"), nil)); err != nil || len(proxy.seen) != n {
		t.Errorf("%v, by the proxy: %d", err, len(proxy.seen)-n)
	}
}

// TestIPv6: addresses in brackets are hosts as others are.
func TestIPv6(t *testing.T) {
	server := httptest.NewUnstartedServer(app(t))
	l, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Fatal(err)
	}
	server.Listener.Close()
	server.Listener = l
	server.Start()
	defer server.Close()
	img := imageOf(sample(1000))
	client := quick(Options{}).Client(t.Context(), parsed(t, l.Addr().String()+"/a/b:1"), nil)
	if _, err := img.push(t.Context(), client); err != nil {
		t.Fatal(err)
	}
	if err := img.pull(t.Context(), client); err != nil {
		t.Error(err)
	}
}

// TestASlowReaderIsNoStall: what counts is how long the registry lets its reader wait.
func TestASlowReaderIsNoStall(t *testing.T) {
	layer := sample(100_000)
	var asked atomic.Int32
	host := served(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		_, _ = w.Write(layer)
	}))
	f, err := quick(Options{Patience: time.Second}).Client(t.Context(), parsed(t, host+"/a/b"), nil).Fetcher(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r, err := f.Open(t.Context(), described("", layer), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got := make([]byte, 0, len(layer))
	buf := make([]byte, 64<<10)
	for len(got) < len(layer) {
		n, err := r.Read(buf)
		got = append(got, buf[:n]...)
		if err != nil && len(got) < len(layer) {
			t.Fatal(err)
		}
		<-time.After(1200 * time.Millisecond) // longer than the registry would be given
	}
	if !bytes.Equal(got, layer) || asked.Load() != 1 {
		t.Errorf("%d bytes by %d requests", len(got), asked.Load())
	}
}

// TestTrickles: a registry that sends a little now and then does not hold a pull for ever.
func TestTrickles(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	host := served(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "1000000")
		for r.Context().Err() == nil {
			_, _ = w.Write([]byte{1})
			w.(http.Flusher).Flush()
			<-time.After(5 * time.Millisecond)
		}
	}))
	f, err := quick(Options{Patience: 100 * time.Millisecond}).Client(ctx, parsed(t, host+"/a/b"), nil).Fetcher(ctx)
	if err != nil {
		t.Fatal(err)
	}
	d := described("", make([]byte, 1000000))
	if _, err := readAll(f, ctx, d, 0); !errdefs.IsUnavailable(err) || ctx.Err() != nil {
		t.Errorf("%v", err)
	}
}

// TestMirrorsThatBreakAgainAndAgain: after a while the registry itself is asked, from where the mirror stopped.
func TestMirrorsThatBreakAgainAndAgain(t *testing.T) {
	layer := sample(2 << 20)
	serve := func(most int) (string, *atomic.Int32) {
		var asked atomic.Int32
		return served(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked.Add(1)
			from := 0
			if s := r.Header.Get("Range"); s != "" {
				fmt.Sscanf(s, "bytes=%d-", &from)
				w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(layer)-1, len(layer)))
			}
			w.Header().Set("Content-Length", fmt.Sprint(len(layer)-from))
			if from > 0 {
				w.WriteHeader(http.StatusPartialContent)
			}
			end := min(from+most, len(layer))
			_, _ = w.Write(layer[from:end])
			if end < len(layer) {
				w.(http.Flusher).Flush()
				panic(http.ErrAbortHandler)
			}
		})), &asked
	}
	home, atHome := serve(len(layer))
	mirror, atMirror := serve(1000)
	pool := quick(Options{HostDirs: []string{hostsFile(t, home, fmt.Sprintf("server = \"http://%s\"\n[host.\"http://%s\"]\ncapabilities = [\"pull\"]\n", home, mirror))}})
	f, err := pool.Client(t.Context(), parsed(t, home+"/a/b:1"), nil).Fetcher(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b, err := readAll(f, t.Context(), described("", layer), 0)
	if err != nil || !bytes.Equal(b, layer) || atHome.Load() != 1 || atMirror.Load() < 2 {
		t.Errorf("%d bytes, %v, %d requests to the mirror and %d to the registry", len(b), err, atMirror.Load(), atHome.Load())
	}
}

// TestHalfALie: of a mirror that sends a wrong half and breaks off, and the registry that sends the rest, the mirror is the liar.
func TestHalfALie(t *testing.T) {
	layer := sample(1 << 20)
	home := served(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(layer))
	}))
	var asked atomic.Int32
	mirror := served(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if asked.Add(1) > 1 {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(layer)))
		_, _ = w.Write(make([]byte, len(layer)/2))
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}))
	pool := quick(Options{HostDirs: []string{hostsFile(t, home, fmt.Sprintf("server = \"http://%s\"\n[host.\"http://%s\"]\ncapabilities = [\"pull\"]\n", home, mirror))}})
	f, err := pool.Client(t.Context(), parsed(t, home+"/a/b:1"), nil).Fetcher(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	d := described("", layer)
	if b, err := readAll(f, t.Context(), d, 0); err != nil || bytes.Equal(b, layer) || !f.Distrust(d.Digest) {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
	if b, err := readAll(f, t.Context(), d, 0); err != nil || !bytes.Equal(b, layer) || asked.Load() != 2 {
		t.Errorf("%d bytes, %v, the mirror was asked %d times", len(b), err, asked.Load())
	}
	if f.Distrust(d.Digest) {
		t.Error("there is nobody left to ask")
	}
}
