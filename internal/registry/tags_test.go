package registry

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/registry"

	"wherry.dev/wherry/internal/ref"
)

// pagedTags is a registry over TLS with a certificate of its own, as people run them on their machines. It wants a login and hands out a
// tag at a time.
func pagedTags(t *testing.T, link func(n int) string) (host string) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "me" || password != "secret" {
			w.Header().Set("WWW-Authenticate", `Basic realm="here"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if r.URL.Path == "/v2/" {
			return
		}
		n := 0
		fmt.Sscan(r.URL.Query().Get("last"), &n)
		if n < 3 {
			w.Header().Set("Link", link(n+1))
		}
		fmt.Fprintf(w, `{"name":"a/b","tags":["t%d"]}`, n)
	}))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "https://")
}

func TestTagsComeInPages(t *testing.T) {
	p := NewPool(Options{})
	host := pagedTags(t, func(n int) string { return fmt.Sprintf(`</v2/a/b/tags/list?last=%d&n=1>; rel="next"`, n) })
	r := ref.Reference{Domain: host, Path: "a/b", Tag: "latest"}
	auth := &registry.AuthConfig{Username: "me", Password: "secret", ServerAddress: "https://" + host + "/v2/"}
	tags, err := p.Client(t.Context(), r, auth).Tags(t.Context())
	if err != nil || !slices.Equal(tags, []string{"t0", "t1", "t2", "t3"}) {
		t.Errorf("%v %v", tags, err)
	}
	if _, err := p.Client(t.Context(), r, nil).Tags(t.Context()); !errors.Is(err, docker.ErrInvalidAuthorization) {
		t.Errorf("without a login: %v", err)
	}
	if _, err := p.Login(t.Context(), *auth); err != nil {
		t.Errorf("login over TLS: %v", err)
	}
	auth.Password = "wrong"
	if _, err := p.Login(t.Context(), *auth); !errdefs.IsUnauthorized(err) {
		t.Errorf("login with a wrong password: %v", err)
	}
}

func TestTagPagesStayAtTheRegistry(t *testing.T) {
	p := NewPool(Options{})
	auth := &registry.AuthConfig{Username: "me", Password: "secret"}
	for _, link := range []string{`<https://evil.example/v2/a/b/tags/list>; rel="next"`, `<//evil.example/x>; rel="next"`, `<http://%zz>; rel=next`} {
		host := pagedTags(t, func(int) string { return link })
		if tags, err := p.Client(t.Context(), ref.Reference{Domain: host, Path: "a/b"}, auth).Tags(t.Context()); err == nil {
			t.Errorf("%s: %v", link, tags)
		}
	}
}
