package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/core/remotes/docker/auth"
	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/registry"
	"golang.org/x/net/publicsuffix"

	"wherry.dev/wherry/internal/version"
)

// authorizer answers the challenges of one host with the credentials that were given for it (docs/decisions/0005): they go to the
// registry's own host and port, and to a token service over TLS within the same registrable domain. Whoever else asks is treated as if
// there were none. It is a docker.Authorizer.
type authorizer struct {
	home   string // host[:port] that the credentials were given for
	plain  bool   // home may be spoken to without TLS
	creds  *registry.AuthConfig
	header http.Header  // what the settings give for home beside them
	client *http.Client // of token requests; follows no redirects

	mu       sync.Mutex // guards what follows
	asked    map[string]auth.Challenge
	tokens   map[tokenKey]token
	refresh  string // an identity token that a token service gave, when offline is set
	withheld string // who wanted the credentials and did not get them
	offline  bool
}

type tokenKey struct{ host, scopes string }

type token struct {
	value   string
	expires time.Time
}

func newAuthorizer(home string, plain bool, creds *registry.AuthConfig, tr http.RoundTripper) *authorizer {
	a := &authorizer{home: home, plain: plain, asked: map[string]auth.Challenge{}, tokens: map[tokenKey]token{}}
	a.client = &http.Client{Transport: tr, Timeout: 30 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	if creds != nil && (creds.Username != "" || creds.IdentityToken != "" || creds.RegistryToken != "") {
		if at := serverHost(creds.ServerAddress); creds.ServerAddress != "" && at != home {
			a.withheld = fmt.Sprintf("the credentials were given for %s, not for %s", at, home)
		} else {
			a.creds = creds
		}
	}
	return a
}

// isHome says that a request to u reaches the registry itself.
func (a *authorizer) isHome(u *url.URL) bool {
	if u.Scheme != "https" && !(u.Scheme == "http" && a.plain) {
		return false
	}
	return sameHost(u.Host, a.home, u.Scheme)
}

// trusts says that a token service at u may see the credentials.
func (a *authorizer) trusts(u *url.URL) bool {
	if a.isHome(u) {
		return true
	}
	mine, theirs := site(hostname(a.home)), site(u.Hostname())
	return u.Scheme == "https" && mine != "" && mine == theirs
}

// site is a name's registrable domain: the part below a public suffix such as com, co.uk or github.io. "" for addresses and single labels.
func site(host string) string {
	if net.ParseIP(host) != nil {
		return ""
	}
	s, err := publicsuffix.EffectiveTLDPlusOne(strings.ToLower(strings.TrimSuffix(host, ".")))
	if err != nil {
		return ""
	}
	return s
}

// Authorize puts on a request what its host asked for, and takes off what a redirect may have carried along.
func (a *authorizer) Authorize(ctx context.Context, req *http.Request) error {
	req.Header.Del("Authorization")
	home := a.isHome(req.URL)
	for key, values := range a.header {
		if req.Header.Del(key); home {
			req.Header[key] = values
		}
	}
	if home && a.header.Get("Authorization") != "" {
		return nil
	}
	if a.creds != nil && a.creds.RegistryToken != "" && home {
		req.Header.Set("Authorization", "Bearer "+a.creds.RegistryToken)
		return nil
	}
	a.mu.Lock()
	c, ok := a.asked[req.URL.Host]
	a.mu.Unlock()
	switch {
	case !ok:
		return nil
	case c.Scheme == auth.BasicAuth:
		if a.creds != nil && home {
			req.SetBasicAuth(a.creds.Username, a.creds.Password)
		}
		return nil
	}
	t, err := a.bearer(ctx, req.URL, c)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+t)
	return nil
}

// mostRefusals of one request are answered, wherever it is redirected to.
const mostRefusals = 6

// AddResponses learns from a 401 what its host wants. An error ends the request.
func (a *authorizer) AddResponses(_ context.Context, responses []*http.Response) error {
	last := responses[len(responses)-1]
	refused := 0
	for _, r := range responses {
		if r.StatusCode == http.StatusUnauthorized && r.Request.URL.Host == last.Request.URL.Host {
			refused++
		}
	}
	host := last.Request.URL.Host
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(responses) > mostRefusals {
		return a.denied()
	}
	for _, c := range auth.ParseAuthHeader(last.Header) {
		if c.Scheme != auth.BasicAuth && c.Scheme != auth.BearerAuth {
			continue
		}
		_, known := a.asked[host]
		if c.Scheme == auth.BasicAuth && a.creds == nil && a.withheld == "" && a.isHome(last.Request.URL) {
			return &refusedError{"no basic auth credentials"}
		}
		if refused > 2 || c.Scheme == auth.BasicAuth && (known && refused > 1 || a.creds == nil || !a.isHome(last.Request.URL)) {
			return a.denied()
		}
		for k := range a.tokens {
			if k.host == host {
				delete(a.tokens, k) // whatever was tried is not good any more
			}
		}
		a.asked[host] = c
		return nil
	}
	return a.denied()
}

// denied is called with mu held.
func (a *authorizer) denied() error {
	if a.withheld != "" {
		return &withheldError{a.withheld}
	}
	return docker.ErrInvalidAuthorization
}

// withheldError says why credentials that were given were not sent.
type withheldError struct{ why string }

func (e *withheldError) Error() string { return e.why + ": they were not sent" }
func (e *withheldError) Unwrap() error { return docker.ErrInvalidAuthorization }

// refusedError says who refuses, and why.
type refusedError struct{ why string }

func (e *refusedError) Error() string { return e.why }
func (e *refusedError) Unwrap() error { return docker.ErrInvalidAuthorization }

// bearer finds or fetches a token for the scopes of a request.
func (a *authorizer) bearer(ctx context.Context, at *url.URL, c auth.Challenge) (string, error) {
	var common []string
	if s := c.Parameters["scope"]; s != "" {
		common = strings.Split(s, " ")
	}
	scopes := docker.GetTokenScopes(ctx, common)
	key := tokenKey{at.Host, strings.Join(scopes, " ")}
	a.mu.Lock()
	t, ok := a.tokens[key]
	a.mu.Unlock()
	if ok && time.Now().Before(t.expires) {
		return t.value, nil
	}
	realm, err := url.Parse(c.Parameters["realm"])
	if err != nil || realm.Host == "" {
		return "", fmt.Errorf("registry %s names %q as its token service, which is no address: %w", at.Host, c.Parameters["realm"], errdefs.ErrInvalidArgument)
	}
	if realm.Scheme != "https" && !(realm.Scheme == "http" && a.plain) {
		return "", fmt.Errorf("registry %s names a token service without TLS, %s: refused: %w", at.Host, realm.Redacted(), errdefs.ErrPermissionDenied)
	}
	creds := a.creds
	if creds != nil && !(a.isHome(at) && a.trusts(realm)) {
		creds = nil
		a.mu.Lock()
		a.withheld = fmt.Sprintf("registry %s wants the credentials sent to %s://%s, which is another site", at.Host, realm.Scheme, realm.Host)
		a.mu.Unlock()
	}
	return a.fetch(ctx, tokenRequest{realm: realm, service: c.Parameters["service"], scopes: scopes, key: key, creds: creds})
}

type tokenRequest struct {
	realm   *url.URL
	service string
	scopes  []string
	key     tokenKey
	creds   *registry.AuthConfig // nil: anonymous
}

// fetch asks a token service: with an identity token by its OAuth form, else by GET.
// https://distribution.github.io/distribution/spec/auth/
func (a *authorizer) fetch(ctx context.Context, r tokenRequest) (string, error) {
	q := r.realm.Query()
	if r.service != "" {
		q.Set("service", r.service)
	}
	var req *http.Request
	var err error
	if r.creds != nil && r.creds.IdentityToken != "" {
		q.Set("grant_type", "refresh_token")
		q.Set("refresh_token", r.creds.IdentityToken)
		q.Set("client_id", "wherry")
		q.Set("scope", strings.Join(r.scopes, " "))
		if req, err = http.NewRequestWithContext(ctx, http.MethodPost, r.realm.String(), strings.NewReader(q.Encode())); err != nil {
			return "", err
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	} else {
		for _, s := range r.scopes {
			q.Add("scope", s)
		}
		if a.offline {
			q.Set("offline_token", "true")
			q.Set("client_id", "wherry")
		}
		u := *r.realm
		u.User, u.RawQuery = nil, q.Encode()
		if req, err = http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil); err != nil {
			return "", err
		}
		if r.creds != nil {
			req.SetBasicAuth(r.creds.Username, r.creds.Password)
		}
	}
	req.Header.Set("User-Agent", "wherry/"+version.Version)
	return a.exchange(req, r)
}

func (a *authorizer) exchange(req *http.Request, r tokenRequest) (string, error) {
	resp, err := a.client.Do(req)
	if err != nil {
		return "", fmt.Errorf("ask token service %s: %w", r.realm.Host, withoutQuery(err))
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		why := fmt.Sprintf("token service %s answers %s", r.realm.Host, strings.TrimSpace(clip(resp.Status)))
		if said := newStatusError(resp).Said; said != "" {
			why += " (" + said + ")"
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		switch resp.StatusCode {
		case http.StatusUnauthorized, http.StatusForbidden, http.StatusBadRequest:
			if a.withheld != "" {
				return "", fmt.Errorf("%s: %w", why, a.denied())
			}
			return "", &refusedError{why}
		}
		return "", fmt.Errorf("%s: %w", why, errdefs.ErrUnavailable)
	}
	var answer struct {
		Token        string `json:"token"`
		AccessToken  string `json:"access_token"`
		RefreshToken string `json:"refresh_token"`
		ExpiresIn    int    `json:"expires_in"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&answer); err != nil {
		return "", fmt.Errorf("read the answer of token service %s: %w: %w", r.realm.Host, err, errdefs.ErrUnavailable)
	}
	value := answer.Token
	if value == "" {
		value = answer.AccessToken
	}
	if value == "" {
		return "", fmt.Errorf("token service %s gives no token: %w", r.realm.Host, errdefs.ErrUnavailable)
	}
	seconds := min(max(answer.ExpiresIn, 60), 24*3600) // the specification's least is 60
	a.mu.Lock()
	defer a.mu.Unlock()
	a.tokens[r.key] = token{value: value, expires: time.Now().Add(time.Duration(seconds)*time.Second - 5*time.Second)}
	a.refresh = answer.RefreshToken
	return value, nil
}

// withoutQuery takes the address out of an error of net/http: its query may be long, or secret.
func withoutQuery(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// checkRedirect is for clients of requests to the registry: what was meant for it is not carried elsewhere, and TLS is not given up.
func (a *authorizer) checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) >= 10 {
		return errors.New("stopped after 10 redirects")
	}
	if req.URL.Scheme != "https" && !a.plain {
		return fmt.Errorf("the registry redirects to %s://%s, without TLS: refused: %w", req.URL.Scheme, req.URL.Host, errdefs.ErrPermissionDenied)
	}
	return a.Authorize(req.Context(), req)
}
