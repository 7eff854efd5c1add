package registry

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/moby/moby/api/types/registry"
)

// FuzzChallenges: whatever a registry wants, the password goes to its own host and site only.
func FuzzChallenges(f *testing.F) {
	for _, s := range []string{`Basic realm="x"`, `Bearer realm="https://auth.example.com/token",service="s",scope="repository:a/b:pull"`, `Bearer realm="http://registry.example.com/token"`,
		`Bearer realm="https://evil.example/token"`, `bearer realm="https://registry.example.com\@evil.example/"`, `Bearer realm=`, `Bearer realm="https://user:pw@evil.example"`, `Negotiate`, "Bearer realm=\"\\", `Digest realm="a", Basic realm="b"`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, challenge string) {
		spy := &spying{t: t}
		a := newAuthorizer("registry.example.com", false, &registry.AuthConfig{Username: "me", Password: "secret"}, spy)
		req := httptest.NewRequestWithContext(t.Context(), "GET", "https://registry.example.com/v2/", nil)
		resp := &http.Response{StatusCode: 401, Request: req, Header: http.Header{"Www-Authenticate": {challenge}}}
		if a.AddResponses(t.Context(), []*http.Response{resp}) == nil {
			_ = a.Authorize(t.Context(), req)
		}
		other := httptest.NewRequestWithContext(t.Context(), "GET", "https://elsewhere.example/", nil)
		_ = a.Authorize(t.Context(), other)
		if other.Header.Get("Authorization") != "" {
			t.Errorf("another host gets %q", other.Header.Get("Authorization"))
		}
	})
}

// spying is the network of token requests.
type spying struct{ t *testing.T }

func (s *spying) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" {
		s.t.Errorf("%s is asked without TLS", r.URL)
	}
	if _, _, ok := r.BasicAuth(); ok && site(r.URL.Hostname()) != "example.com" {
		s.t.Errorf("%s gets the password", r.URL)
	}
	return &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(`{"token":"t"}`)), Request: r}, nil
}

// FuzzPlaces: where uploads and lists of tags go on stays at the registry.
func FuzzPlaces(f *testing.F) {
	for _, s := range []string{"/v2/a/b/blobs/uploads/1?_state=x", "http://registry.example.com/x", "https://evil.example/", "//evil.example", `</v2/a/tags/list?last=1>; rel="next"`, `<x>; rel=prev, <y>; rel=next`, "<", "<>", "\\evil", "https://registry.example.com:443@evil.example/", "0-9", "bytes 1-2/3", "bytes 1-2/*", "120", "Fri, 31 Dec 1999 23:59:59 GMT"} {
		f.Add(s)
	}
	e := &endpoint{settings: &settings{scheme: "https", host: "registry.example.com"}, base: url.URL{Scheme: "https", Host: "registry.example.com"}}
	f.Fuzz(func(t *testing.T, s string) {
		req := httptest.NewRequestWithContext(t.Context(), "POST", "https://registry.example.com/v2/a/tags/list?n=1", nil)
		if u, err := e.location(&http.Response{Request: req, Header: http.Header{"Location": {s}}}); err == nil && (u.Scheme != "https" || site(u.Hostname()) != "example.com") {
			t.Errorf("location %q is %s", s, u)
		}
		body := io.NopCloser(strings.NewReader(`{"tags":["a"]}`))
		if _, q, err := readTags(&http.Response{Request: req, Header: http.Header{"Link": {s}}, Body: body}); err == nil && q != nil && nextLink(s) == "" {
			t.Errorf("link %q goes on at %v", s, q)
		}
		if n, ok := parseUploadRange(s); ok && n < 1 {
			t.Errorf("range %q is %d", s, n)
		}
		if from, total, ok := parseContentRange(s); ok && (from < 0 || total < -1 || total >= 0 && from >= total) {
			t.Errorf("part %q is %d of %d", s, from, total)
		}
		if d, ok := retryAfter(s, time.Unix(0, 0)); ok && d < 0 {
			t.Errorf("after %q is %s", s, d)
		}
	})
}

// FuzzSaid: a registry's words are one short printable line.
func FuzzSaid(f *testing.F) {
	f.Add([]byte(`{"errors":[{"code":"DENIED","message":"no\nreally \u001b[2J"}]}`))
	f.Add([]byte(`{"errors":[]}`))
	f.Add([]byte(`<html>`))
	f.Fuzz(func(t *testing.T, b []byte) {
		e := newStatusError(&http.Response{StatusCode: 400, Body: io.NopCloser(strings.NewReader(string(b)))})
		if len([]rune(e.Said)) > 201 || strings.ContainsFunc(e.Said, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%q", e.Said)
		}
		if list, _, err := readReferrersIndex(strings.NewReader(string(b))); err == nil {
			for _, d := range list {
				if d.Digest.Validate() != nil || d.URLs != nil {
					t.Errorf("%+v", d)
				}
			}
		}
	})
}
