package registry

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/registry"

	"wherry.dev/wherry/internal/ref"
)

// TestWhoIsTrustedWithCredentials holds the rule of docs/decisions/0005: the registry itself, and over TLS the site that it belongs to.
func TestWhoIsTrustedWithCredentials(t *testing.T) {
	rows := []struct {
		origin, realm string
		want, plain   bool
	}{
		{"registry-1.docker.io", "https://auth.docker.io/token", true, false},
		{"ghcr.io", "https://ghcr.io/token", true, false},
		{"quay.io", "https://quay.io/v2/auth", true, false},
		{"eu.gcr.io", "https://gcr.io/v2/token", true, false},
		{"name.azurecr.io", "https://name.azurecr.io/oauth2/token", true, false},
		{"registry.example.co.uk", "https://login.example.co.uk/token", true, false},
		{"registry.local:5000", "http://registry.local:5000/token", true, true},
		{"registry.local:5000", "http://registry.local:5000/token", false, false},
		{"registry.example.com", "http://auth.example.com/token", false, false},
		{"registry.example.com", "https://auth.example.org/token", false, false},
		{"registry.example.co.uk", "https://evil.co.uk/token", false, false},
		{"me.github.io", "https://you.github.io/token", false, false},
		{"127.0.0.1:5000", "http://127.0.0.1:5001/token", false, true},
		{"10.0.0.1", "https://20.0.0.1/token", false, false},
		{"registry.local:5000", "http://registry.local:5001/token", false, true},
	}
	for _, row := range rows {
		u, err := url.Parse(row.realm)
		if err != nil {
			t.Fatal(err)
		}
		if got := newAuthorizer(row.origin, row.plain, nil, nil).trusts(u); got != row.want {
			t.Errorf("%s sends credentials to %s: %v, want %v", row.origin, row.realm, got, row.want)
		}
	}
}

func TestTLSIsNotGivenUp(t *testing.T) {
	// A realm without TLS is refused even to those who have no credentials.
	c := NewPool(Options{}).Client(t.Context(), ref.Reference{Domain: "registry.example.com", Path: "a/b", Tag: "latest"}, &registry.AuthConfig{Username: "me", Password: "secret"})
	e, err := c.itself()
	if err != nil {
		t.Fatal(err)
	}
	req := httptest.NewRequest("GET", "https://registry.example.com/v2/", nil)
	resp := &http.Response{StatusCode: 401, Request: req, Header: http.Header{"Www-Authenticate": {`Bearer realm="http://auth.example.com/token"`}}}
	if err := e.auth.AddResponses(t.Context(), []*http.Response{resp}); err != nil {
		t.Fatal(err)
	}
	if err := e.auth.Authorize(t.Context(), req); !errdefs.IsPermissionDenied(err) {
		t.Fatal(err)
	}
	if err := e.auth.checkRedirect(httptest.NewRequest("GET", "http://registry.example.com/v2/", nil), nil); !errdefs.IsPermissionDenied(err) {
		t.Fatal(err)
	}
}

func TestServerAddresses(t *testing.T) {
	for in, want := range map[string]string{
		"https://index.docker.io/v1/": "registry-1.docker.io", "": "registry-1.docker.io", "docker.io": "registry-1.docker.io",
		"https://": "", "/": "", "http:///v2/": "", // not Docker Hub's, which would be told the password
		"ghcr.io": "ghcr.io", "https://ghcr.io": "ghcr.io", "http://localhost:5000/v2/": "localhost:5000", "registry-1.docker.io": "registry-1.docker.io",
	} {
		if got := serverHost(in); got != want {
			t.Errorf("%q is %q, want %q", in, got, want)
		}
	}
	hub := newAuthorizer("registry-1.docker.io", false, &registry.AuthConfig{Username: "me", Password: "secret", ServerAddress: "https://index.docker.io/v1/"}, nil)
	if hub.creds == nil {
		t.Error("a login to Docker Hub is not used for Docker Hub")
	}
	req := httptest.NewRequest("GET", "https://registry-1.docker.io/v2/", nil)
	resp := &http.Response{StatusCode: 401, Request: req, Header: http.Header{"Www-Authenticate": {`Basic realm="x"`}}}
	if err := hub.AddResponses(t.Context(), []*http.Response{resp}); err != nil {
		t.Fatal(err)
	}
	if err := hub.AddResponses(t.Context(), []*http.Response{resp, resp}); !errors.Is(err, docker.ErrInvalidAuthorization) {
		t.Errorf("the same password is tried for ever: %v", err)
	}
}
