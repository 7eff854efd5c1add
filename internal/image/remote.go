package image

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/core/remotes/docker/config"
	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/registry"
	"golang.org/x/net/publicsuffix"

	"wherry.dev/wherry/internal/ref"
	"wherry.dev/wherry/internal/version"
)

// resolver speaks to the registry of one reference with the credentials that were given for it.
func (s *Service) resolver(ctx context.Context, r ref.Reference, auth *registry.AuthConfig, tracker docker.StatusTracker) remotes.Resolver {
	guard := &originGuard{origin: registryHost(r.Domain), next: transport()}
	client := &http.Client{Transport: guard}
	authorizer := docker.NewDockerAuthorizer(docker.WithAuthClient(client), docker.WithAuthCreds(func(host string) (string, string, error) {
		if host != guard.origin && host != r.Domain {
			return "", "", nil
		}
		return credentialsOf(auth)(host)
	}))
	return docker.NewResolver(docker.ResolverOptions{Tracker: tracker, Headers: http.Header{"User-Agent": {"wherry/" + version.Version}},
		Hosts: func(host string) ([]docker.RegistryHost, error) {
			list, err := s.hosts(ctx, host, guard)
			for i := range list {
				list[i].Authorizer = authorizer
			}
			return list, err
		}})
}

// credentialsOf are a user and a password, or nobody and a token; nil is nobody.
func credentialsOf(a *registry.AuthConfig) func(host string) (string, string, error) {
	return func(string) (string, string, error) {
		switch {
		case a == nil:
			return "", "", nil
		case a.IdentityToken != "":
			return "", a.IdentityToken, nil
		}
		return a.Username, a.Password, nil
	}
}

// hosts says how to speak to a registry: TLS or not, and with which certificates.
func (s *Service) hosts(ctx context.Context, host string, guard *originGuard) ([]docker.RegistryHost, error) {
	return config.ConfigureHosts(ctx, config.HostOptions{DefaultScheme: s.scheme(host),
		UpdateClient: func(c *http.Client) error { c.Transport = guarded{guard, c.Transport}; return nil }})(host)
}

// scheme is "http" only for hosts that were named insecure; "" leaves loopback addresses to be tried.
func (s *Service) scheme(host string) string {
	for _, insecure := range s.o.InsecureRegistries {
		if host == insecure {
			return "http"
		}
	}
	if docker.IsLocalhost(host) {
		return ""
	}
	return "https"
}

func registryHost(domain string) string {
	if domain == "docker.io" {
		return "registry-1.docker.io"
	}
	return domain
}

// transport gives up on a registry that does not answer or stalls; a download that moves may take any time.
func transport() *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.DialContext = (&net.Dialer{Timeout: 15 * time.Second, KeepAlive: 30 * time.Second}).DialContext
	t.ResponseHeaderTimeout = 60 * time.Second
	t.TLSHandshakeTimeout = 15 * time.Second
	t.MaxIdleConnsPerHost = 8
	return t
}

// originGuard lets credentials go to the registry that they were given for, and to a token service of the same site over TLS; to nobody
// else, whatever a challenge says.
type originGuard struct {
	origin string
	next   http.RoundTripper
}

func (g *originGuard) RoundTrip(r *http.Request) (*http.Response, error) { return g.forward(r, g.next) }

func (g *originGuard) forward(r *http.Request, next http.RoundTripper) (*http.Response, error) {
	basic := strings.HasPrefix(r.Header.Get("Authorization"), "Basic ")
	form := r.Method == http.MethodPost && strings.HasPrefix(r.Header.Get("Content-Type"), "application/x-www-form-urlencoded")
	if (basic || form) && !g.trusts(r.URL) {
		return nil, fmt.Errorf("registry %s asks for its credentials to be sent to %s://%s: refused: %w", g.origin, r.URL.Scheme, r.URL.Host, errdefs.ErrPermissionDenied)
	}
	return next.RoundTrip(r)
}

func (g *originGuard) trusts(u *url.URL) bool {
	if u.Host == g.origin {
		return true
	}
	return u.Scheme == "https" && site(u.Hostname()) == site(hostname(g.origin)) && net.ParseIP(u.Hostname()) == nil
}

func hostname(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		return h
	}
	return host
}

// site is the part of a name that one owner has registered ("example.co.uk" of "registry.example.co.uk"), by the public suffix list.
// A name that is itself a suffix, under which strangers register, is a site of its own.
func site(host string) string {
	registered, err := publicsuffix.EffectiveTLDPlusOne(host)
	if err != nil {
		return host
	}
	return registered
}

// guarded puts a guard before a client's own transport.
type guarded struct {
	*originGuard
	own http.RoundTripper
}

func (g guarded) RoundTrip(r *http.Request) (*http.Response, error) {
	next := g.own
	if next == nil {
		next = g.next
	}
	return g.forward(r, next)
}

// explain turns what a registry or the network answered into one line for people.
func explain(what, host string, err error) error {
	var dns *net.DNSError
	var op *net.OpError
	switch {
	case err == nil:
		return nil
	case errdefs.IsNotFound(err):
		return fmt.Errorf("%s: manifest unknown: the registry has no such repository or tag, or hides it: check the spelling, or log in: %w", what, errdefs.ErrNotFound)
	case errors.Is(err, docker.ErrInvalidAuthorization), strings.Contains(err.Error(), "401"), strings.Contains(err.Error(), "403 Forbidden"):
		verb, _, _ := strings.Cut(what, " ")
		text := fmt.Sprintf("%s: %s access denied: the registry refuses this login, or none was given: run `wherry login %s`", what, verb, host)
		return &explained{text, []error{err, errdefs.ErrPermissionDenied}}
	case errors.As(err, &dns):
		return fmt.Errorf("%s: the registry's name %s cannot be resolved: %w: %w", what, host, err, errdefs.ErrUnavailable)
	case errors.Is(err, syscall.ECONNREFUSED):
		text := fmt.Sprintf("%s: connection refused: nothing listens at %s: is the registry running?", what, host)
		return &explained{text, []error{err, errdefs.ErrUnavailable}}
	case strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		return fmt.Errorf("%s: the registry speaks plain HTTP: start wherryd with --insecure-registry %s if that is meant: %w: %w", what, host, err, errdefs.ErrUnavailable)
	case strings.Contains(err.Error(), "x509:"), strings.Contains(err.Error(), "tls:"):
		return fmt.Errorf("%s: the registry's certificate is not trusted: %w: %w", what, err, errdefs.ErrUnavailable)
	case errors.Is(err, syscall.ENOSPC):
		return fmt.Errorf("%s: the disk is full: %w", what, err)
	case errors.As(err, &op):
		return fmt.Errorf("%s: %w: %w", what, err, errdefs.ErrUnavailable)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// explained is an error whose causes a person need not read.
type explained struct {
	text   string
	causes []error
}

func (e *explained) Error() string   { return e.text }
func (e *explained) Unwrap() []error { return e.causes }

// Login tries credentials at their registry and returns an identity token if it gave one.
func (s *Service) Login(ctx context.Context, a registry.AuthConfig) (registry.AuthResponse, error) {
	host := strings.TrimSuffix(strings.TrimPrefix(strings.TrimPrefix(a.ServerAddress, "https://"), "http://"), "/")
	host, _, _ = strings.Cut(host, "/")
	if host == "" || host == "index.docker.io" {
		host = "docker.io"
	}
	guard := &originGuard{origin: registryHost(host), next: transport()}
	list, err := s.hosts(ctx, host, guard)
	if err != nil {
		return registry.AuthResponse{}, err
	}
	h := list[0]
	client := *h.Client // of a registry on this machine it takes any certificate, and no TLS, as for pulls
	client.Timeout = 30 * time.Second
	authorizer := docker.NewDockerAuthorizer(docker.WithAuthClient(&client), docker.WithAuthCreds(credentialsOf(&a)))
	if err := tryLogin(ctx, &client, authorizer, h.Scheme+"://"+h.Host+"/v2/"); err != nil {
		if errdefs.IsUnauthorized(err) {
			return registry.AuthResponse{}, fmt.Errorf("login to %s: unauthorized: incorrect username or password: %w", host, errdefs.ErrUnauthenticated)
		}
		return registry.AuthResponse{}, explain("login "+host, host, err)
	}
	return registry.AuthResponse{Status: "Login Succeeded"}, nil
}

func tryLogin(ctx context.Context, client *http.Client, authorizer docker.Authorizer, address string) error {
	var responses []*http.Response
	for range 2 {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
		if err != nil {
			return err
		}
		if err := authorizer.Authorize(docker.WithScope(ctx, "registry:catalog:*"), req); err != nil && len(responses) > 0 {
			return fmt.Errorf("%w: %w", err, errdefs.ErrUnauthenticated)
		}
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			return nil
		}
		if resp.StatusCode != http.StatusUnauthorized {
			return fmt.Errorf("the registry answers %s", resp.Status)
		}
		responses = append(responses, resp)
		if err := authorizer.AddResponses(ctx, responses); err != nil {
			return fmt.Errorf("%w: %w", err, errdefs.ErrUnauthenticated)
		}
	}
	return errdefs.ErrUnauthenticated
}

// isNetwork says whether an error came from the connection, not from an answer.
func isNetwork(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && !errors.Is(err, syscall.ECONNREFUSED)
}
