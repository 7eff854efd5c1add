package image

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
	registrytypes "github.com/moby/moby/api/types/registry"

	"wherry.dev/wherry/internal/registry"
)

// tokenService gives tokens to whom it knows, and remembers what was sent to it.
type tokenService struct {
	mu    sync.Mutex
	heard []string // authorization headers and forms
}

func (s *tokenService) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_ = r.ParseForm()
	s.mu.Lock()
	s.heard = append(s.heard, r.Header.Get("Authorization")+" "+r.PostForm.Encode())
	s.mu.Unlock()
	user, password, _ := r.BasicAuth()
	switch {
	case r.Method == http.MethodPost && r.PostForm.Get("refresh_token") == "identity":
		fmt.Fprint(w, `{"access_token":"good"}`)
	case user == "me" && password == "secret":
		refresh := ""
		if r.Form.Get("offline_token") == "true" {
			refresh = `,"refresh_token":"identity"`
		}
		fmt.Fprintf(w, `{"token":"good"%s}`, refresh)
	case user == "" && r.Method == http.MethodGet:
		fmt.Fprint(w, `{"token":"anonymous"}`)
	default:
		w.WriteHeader(http.StatusUnauthorized)
	}
}

func (s *tokenService) all() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.heard, "\n")
}

// tokenRegistry wants a token of a service for everything; realm "" is its own.
func tokenRegistry(t *testing.T, realm string) (host string, own *tokenService) {
	own = &tokenService{}
	var h http.Handler
	host = realRegistry(t, func(next http.Handler) http.Handler {
		h = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/token" {
				own.ServeHTTP(w, r)
				return
			}
			if r.Header.Get("Authorization") != "Bearer good" {
				at := realm
				if at == "" {
					at = "http://" + r.Host + "/token"
				}
				w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s",service="test",scope="repository:a/b:pull,push"`, at))
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			next.ServeHTTP(w, r)
		})
		return h
	})
	return host, own
}

func TestTokensOfTheRegistryItself(t *testing.T) {
	s := open(t)
	host, _ := tokenRegistry(t, "")
	name := host + "/a/b:1"
	imported(t, s, name, file1("a", "b"))
	auth := registrytypes.AuthConfig{Username: "me", Password: "secret", ServerAddress: host}
	if err := s.Push(t.Context(), name, TransferOptions{Auth: &auth}); err != nil {
		t.Fatal(err)
	}
	got, err := s.Login(t.Context(), auth)
	if err != nil || got.IdentityToken != "identity" {
		t.Fatalf("%+v %v", got, err)
	}
	// The identity token alone is as good as the password.
	fresh := open(t)
	if err := fresh.Pull(t.Context(), name, TransferOptions{Auth: &registrytypes.AuthConfig{IdentityToken: "identity", ServerAddress: host}}); err != nil {
		t.Fatal(err)
	}
	for what, a := range map[string]*registrytypes.AuthConfig{
		"nothing": nil, "a wrong password": {Username: "me", Password: "x"}, "another server's": {Username: "me", Password: "secret", ServerAddress: "example.com"},
	} {
		if err := fresh.Pull(t.Context(), host+"/a/b:2", TransferOptions{Auth: a}); !errdefs.IsPermissionDenied(err) {
			t.Errorf("with %s: %v", what, err)
		}
	}
}

// TestNothingReachesAnotherTokenService: it is asked for a public image's token only, and the error says why.
func TestNothingReachesAnotherTokenService(t *testing.T) {
	thief := &tokenService{}
	other := httptest.NewServer(thief)
	defer other.Close()
	for _, realm := range []string{other.URL + "/token", strings.Replace(other.URL, "http://", "http://user:pass@", 1) + "/token"} {
		host, _ := tokenRegistry(t, realm)
		s := open(t)
		for _, auth := range []*registrytypes.AuthConfig{{Username: "me", Password: "secret"}, {IdentityToken: "identity"}, {Username: "me", Password: "secret", ServerAddress: host}} {
			err := s.Pull(t.Context(), host+"/a/b:1", TransferOptions{Auth: auth})
			if !errdefs.IsPermissionDenied(err) || !strings.Contains(err.Error(), "another site") || !strings.Contains(err.Error(), "not sent") {
				t.Errorf("%v", err)
			}
			login := *auth
			login.ServerAddress = host
			if _, err := s.Login(t.Context(), login); !errdefs.IsUnauthorized(err) {
				t.Errorf("login: %v", err)
			}
		}
	}
	basic := base64.StdEncoding.EncodeToString([]byte("me:secret"))
	if heard := thief.all(); strings.Contains(heard, basic) || strings.Contains(heard, "identity") || strings.Contains(heard, "secret") || strings.Contains(heard, "Basic") {
		t.Fatalf("it heard %s", heard)
	}
}

// TestRedirectsTakeNothingAlong: neither to another port, nor to another name.
func TestRedirectsTakeNothingAlong(t *testing.T) {
	var mu sync.Mutex
	var heard []string
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		heard = append(heard, r.Header.Get("Authorization"))
		w.Header().Set("WWW-Authenticate", `Basic realm="give it to me"`)
		w.WriteHeader(http.StatusUnauthorized)
	}))
	defer other.Close()
	for _, to := range []string{other.URL, strings.Replace(other.URL, "127.0.0.1", "localhost", 1)} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if _, _, ok := r.BasicAuth(); !ok {
				w.Header().Set("WWW-Authenticate", `Basic realm="here"`)
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			http.Redirect(w, r, to+r.URL.Path, http.StatusTemporaryRedirect)
		}))
		s := open(t)
		if err := s.Pull(t.Context(), strings.TrimPrefix(server.URL, "http://")+"/a/b:1", TransferOptions{Auth: &registrytypes.AuthConfig{Username: "me", Password: "secret"}}); err == nil {
			t.Error("pulled")
		}
		server.Close()
	}
	mu.Lock()
	defer mu.Unlock()
	if len(heard) == 0 || strings.Join(heard, "") != "" {
		t.Fatalf("the other server was asked %d times and heard %q", len(heard), heard)
	}
}

// everywhere is an address that is no loopback address by its name, but is served here.
func everywhere(host string) string { return strings.Replace(host, "127.0.0.1", "0.0.0.0", 1) }

func TestTLSIsNotGivenUp(t *testing.T) {
	s := open(t)
	plain := realRegistry(t, nil)
	err := s.Pull(t.Context(), everywhere(plain)+"/a/b", TransferOptions{})
	if !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), "--insecure-registry") {
		t.Fatal(err)
	}
	for _, insecure := range []string{everywhere(plain), "0.0.0.0/32"} {
		s.registries = reach(registry.Options{Insecure: []string{insecure}})
		if err := s.Pull(t.Context(), everywhere(plain)+"/a/b", TransferOptions{}); !errdefs.IsNotFound(err) {
			t.Fatalf("insecure %s: %v", insecure, err)
		}
	}
	s.registries = reach(registry.Options{})
	var asked []string
	secure := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.Path)
		w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+plain+`/token"`)
		w.WriteHeader(http.StatusUnauthorized)
	}))
	defer secure.Close()
	host := everywhere(strings.TrimPrefix(secure.URL, "https://"))
	if err := s.Pull(t.Context(), host+"/a/b", TransferOptions{}); err == nil || !strings.Contains(err.Error(), "certificate is not for the name") || len(asked) != 0 {
		t.Fatalf("%v %v", err, asked)
	}
}

// TestMirrorsSeeNoLogin: a mirror named in hosts.toml serves a pull; one that asks for a login gets none, and the registry itself is asked.
func TestMirrorsSeeNoLogin(t *testing.T) {
	var mu sync.Mutex
	var heard []string
	closed := true
	mirror := realRegistry(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			heard = append(heard, r.Header.Get("Authorization"))
			refuse := closed
			mu.Unlock()
			if refuse {
				w.Header().Set("WWW-Authenticate", `Basic realm="mirror"`)
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			next.ServeHTTP(w, r)
		})
	})
	origin, _ := tokenRegistry(t, "")
	auth := &registrytypes.AuthConfig{Username: "me", Password: "secret", ServerAddress: origin}
	from := open(t)
	imported(t, from, origin+"/a/b:1", file1("a", "origin's"))
	if err := from.Push(t.Context(), origin+"/a/b:1", TransferOptions{Auth: auth}); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, origin), 0o755); err != nil {
		t.Fatal(err)
	}
	toml := fmt.Sprintf("server = \"http://%s\"\n[host.\"http://%s\"]\ncapabilities = [\"pull\", \"resolve\"]\n", origin, mirror)
	if err := os.WriteFile(filepath.Join(dir, origin, "hosts.toml"), []byte(toml), 0o644); err != nil {
		t.Fatal(err)
	}
	s := open(t)
	s.registries = reach(registry.Options{HostDirs: []string{dir}})
	if err := s.Pull(t.Context(), origin+"/a/b:1", TransferOptions{Auth: auth}); err != nil {
		t.Errorf("with a mirror that wants a login: %v", err)
	}
	mu.Lock()
	if len(heard) == 0 || strings.Join(heard, "") != "" {
		t.Errorf("the mirror was asked %d times and heard %q", len(heard), heard)
	}
	closed = false
	mu.Unlock()
	// What only the mirror has comes from there.
	imported(t, from, mirror+"/a/c:1", file1("a", "mirror's"))
	if err := from.Push(t.Context(), mirror+"/a/c:1", TransferOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := s.Pull(t.Context(), origin+"/a/c:1", TransferOptions{Auth: auth}); err != nil {
		t.Errorf("from the mirror: %v", err)
	}
	mu.Lock()
	defer mu.Unlock()
	if strings.Join(heard, "") != "" {
		t.Errorf("the mirror heard %q", heard)
	}
}
