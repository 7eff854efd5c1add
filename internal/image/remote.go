package image

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/core/remotes/docker/config"
	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/registry"

	"wherry.dev/wherry/internal/ref"
	"wherry.dev/wherry/internal/version"
)

// registries knows how registries are reached.
type registries struct {
	pause    time.Duration // before a request is made again that the registry was too busy for; doubles
	insecure []string      // hosts and networks whose certificates are not checked, and which may be spoken to over plain HTTP
	hostDirs []string      // folders with <host>/ca.crt, client certificates, or hosts.toml
}

// remote is one registry, with the credentials that were given for it.
type remote struct {
	ref   ref.Reference
	auth  *authorizer
	hosts func() ([]docker.RegistryHost, error) // sets auth
}

func (g *registries) remote(ctx context.Context, r ref.Reference, creds *registry.AuthConfig) *remote {
	plain := g.plain(r.Domain)
	home := registryHost(r.Domain)
	o := config.HostOptions{UpdateClient: g.limitTransport, HostDir: g.hostDir}
	if plain && !docker.IsLocalhost(r.Domain) {
		o.DefaultScheme = "http" // tried after TLS has failed
		o.DefaultTLS = &tls.Config{InsecureSkipVerify: true}
	}
	hosts := config.ConfigureHosts(ctx, o)
	m := &remote{ref: r}
	m.hosts = sync.OnceValues(func() ([]docker.RegistryHost, error) {
		list, err := hosts(r.Domain)
		if err != nil {
			return nil, fmt.Errorf("settings of registry %s: %w", r.Domain, err)
		}
		if len(list) == 0 {
			return nil, fmt.Errorf("the settings of registry %s name no host: %w", r.Domain, errdefs.ErrInvalidArgument)
		}
		m.auth = newAuthorizer(home, plain, creds, list[len(list)-1].Client.Transport)
		for i := range list {
			list[i].Authorizer = m.auth
			client := *list[i].Client
			client.CheckRedirect = m.auth.checkRedirect
			list[i].Client = &client
		}
		return list, nil
	})
	return m
}

func (m *remote) resolver(tracker docker.StatusTracker) remotes.Resolver {
	return docker.NewResolver(docker.ResolverOptions{Tracker: tracker, Headers: http.Header{"User-Agent": {"wherry/" + version.Version}},
		Hosts: func(string) ([]docker.RegistryHost, error) { return m.hosts() }})
}

// plain says whether a registry may do without TLS: loopback addresses, and those named with --insecure-registry.
func (g *registries) plain(host string) bool {
	if docker.IsLocalhost(host) {
		return true
	}
	ip := net.ParseIP(hostname(host))
	for _, insecure := range g.insecure {
		if host == insecure {
			return true
		}
		if _, network, err := net.ParseCIDR(insecure); err == nil && ip != nil && network.Contains(ip) {
			return true
		}
	}
	return false
}

// hostDir finds the folder with a registry's certificates.
func (g *registries) hostDir(host string) (string, error) {
	for _, dir := range g.hostDirs {
		if found, err := config.HostDirFromRoot(dir)(host); err == nil {
			return found, nil
		}
	}
	return "", errdefs.ErrNotFound
}

func registryHost(domain string) string {
	if domain == "docker.io" {
		return "registry-1.docker.io"
	}
	return domain
}

// limitTransport gives up on a registry that does not answer; a download that moves may take any time.
func (g *registries) limitTransport(c *http.Client) error {
	t, ok := c.Transport.(*http.Transport)
	if !ok {
		return nil
	}
	t.DialContext = (&net.Dialer{Timeout: 15 * time.Second, KeepAlive: 30 * time.Second}).DialContext
	t.ResponseHeaderTimeout = 60 * time.Second
	t.TLSHandshakeTimeout = 15 * time.Second
	t.MaxIdleConnsPerHost = 8
	t.MaxResponseHeaderBytes = 1 << 20
	c.Transport = patient{t, g.pause}
	return nil
}

// patient makes a request again that a registry was too busy for, after the time that it names, or a growing one.
type patient struct {
	next  http.RoundTripper
	pause time.Duration
}

func (p patient) RoundTrip(r *http.Request) (*http.Response, error) {
	wait := p.pause
	for try := 1; ; try++ {
		resp, err := p.next.RoundTrip(r)
		if err != nil || try == tries || r.Method != http.MethodGet && r.Method != http.MethodHead ||
			resp.StatusCode != http.StatusTooManyRequests && resp.StatusCode != http.StatusServiceUnavailable {
			return resp, err
		}
		after := wait
		if seconds, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && seconds >= 0 {
			after = time.Duration(seconds) * time.Second
		}
		if after > time.Minute {
			return resp, nil // nobody waits that long without a word
		}
		resp.Body.Close()
		select {
		case <-time.After(after):
			wait *= 2
		case <-r.Context().Done():
			return nil, context.Cause(r.Context())
		}
	}
}

// get asks the registry for something small that has no place in a resolver.
func (m *remote) get(ctx context.Context, path string, query url.Values, scope string) (*http.Response, error) {
	hosts, err := m.hosts()
	if err != nil {
		return nil, err
	}
	host := hosts[len(hosts)-1]
	address := url.URL{Scheme: host.Scheme, Host: host.Host, Path: host.Path + path, RawQuery: query.Encode()}
	if scope != "" {
		ctx = docker.WithScope(ctx, scope)
	}
	client := *host.Client
	client.Timeout = 60 * time.Second
	var responses []*http.Response
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, address.String(), nil)
		if err != nil {
			return nil, err
		}
		req.Header.Set("User-Agent", "wherry/"+version.Version)
		if err := m.auth.Authorize(ctx, req); err != nil {
			return nil, err
		}
		resp, err := client.Do(req)
		if err != nil {
			return nil, err
		}
		switch resp.StatusCode {
		case http.StatusOK:
			return resp, nil
		case http.StatusUnauthorized:
			resp.Body.Close()
			responses = append(responses, resp)
			if err := m.auth.AddResponses(ctx, responses); err != nil {
				return nil, err
			}
		case http.StatusForbidden:
			resp.Body.Close()
			return nil, fmt.Errorf("the registry answers %s: %w", resp.Status, docker.ErrInvalidAuthorization)
		case http.StatusNotFound:
			resp.Body.Close()
			return nil, errdefs.ErrNotFound
		default:
			resp.Body.Close()
			return nil, fmt.Errorf("the registry answers %s", resp.Status)
		}
	}
}

// Login tries credentials at their registry and returns an identity token if it gave one.
func (s *Service) Login(ctx context.Context, a registry.AuthConfig) (registry.AuthResponse, error) {
	host := serverHost(a.ServerAddress)
	domain := host
	if host == registryHost("docker.io") {
		domain = "docker.io"
	}
	r := ref.Reference{Domain: domain, Path: "library/login", Tag: "latest"}
	if _, err := ref.Parse(domain + "/a/b"); err != nil || strings.Trim(domain, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-:[]_") != "" {
		return registry.AuthResponse{}, fmt.Errorf("login to %q: this is no registry's address: give a host, or host:port: %w", a.ServerAddress, errdefs.ErrInvalidArgument)
	}
	a.ServerAddress = ""
	m := s.remote(ctx, r, &a)
	if _, err := m.hosts(); err != nil {
		return registry.AuthResponse{}, err
	}
	m.auth.offline = true
	resp, err := m.get(in(ctx), "/", nil, "")
	if errors.Is(err, docker.ErrInvalidAuthorization) {
		if held := (*withheldError)(nil); errors.As(err, &held) {
			return registry.AuthResponse{}, fmt.Errorf("login to %s: %w: %w", domain, held, errdefs.ErrUnauthenticated)
		}
		return registry.AuthResponse{}, fmt.Errorf("login to %s: unauthorized: incorrect username or password: %w", domain, errdefs.ErrUnauthenticated)
	}
	if err != nil {
		return registry.AuthResponse{}, explain("login "+domain, domain, err)
	}
	resp.Body.Close()
	return registry.AuthResponse{Status: "Login Succeeded", IdentityToken: m.auth.refresh}, nil
}

// explain turns what a registry or the network answered into one line for people.
func explain(what, host string, err error) error {
	var dns *net.DNSError
	var op *net.OpError
	text, status := fmt.Sprint(err), statusOf(err)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.Canceled):
		return err
	case errdefs.IsNotFound(err):
		return fmt.Errorf("%s: manifest unknown: the registry has no such repository or tag, or hides it: check the spelling, or log in: %w", what, errdefs.ErrNotFound)
	case errors.Is(err, docker.ErrInvalidAuthorization), status == http.StatusUnauthorized, status == http.StatusForbidden:
		verb, _, _ := strings.Cut(what, " ")
		text = fmt.Sprintf("%s: %s access denied: the registry refuses this login, or none was given: run `wherry login %s`", what, verb, host)
		if held := (*withheldError)(nil); errors.As(err, &held) {
			text = fmt.Sprintf("%s: %s access denied: %s", what, verb, held)
		}
		return &explained{text, []error{err, errdefs.ErrPermissionDenied}}
	case status == http.StatusTooManyRequests:
		return fmt.Errorf("%s: registry %s counts too many requests from here: try again later, or log in: %w: %w", what, host, err, errdefs.ErrUnavailable)
	case errors.As(err, &dns):
		text = fmt.Sprintf("%s: the registry's name %s cannot be resolved: %v", what, host, dns)
		return &explained{text, []error{err, errdefs.ErrUnavailable}}
	case errors.Is(err, syscall.ECONNREFUSED):
		text = fmt.Sprintf("%s: connection refused: nothing listens at %s: is the registry running?", what, host)
		return &explained{text, []error{err, errdefs.ErrUnavailable}}
	case strings.Contains(text, "server gave HTTP response to HTTPS client"):
		return fmt.Errorf("%s: the registry speaks plain HTTP: start wherryd with --insecure-registry %s if that is meant: %w: %w", what, host, err, errdefs.ErrUnavailable)
	case strings.Contains(text, "x509:"), strings.Contains(text, "tls:"):
		return fmt.Errorf("%s: the registry's certificate is not trusted: put that of its authority into /etc/docker/certs.d/%s/ca.crt: %w: %w", what, host, err, errdefs.ErrUnavailable)
	case errors.Is(err, syscall.ENOSPC):
		return fmt.Errorf("%s: the disk is full: free space, or remove images with `wherry rmi`: %w", what, err)
	case errors.As(err, &op), errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%s: %w: %w", what, err, errdefs.ErrUnavailable)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// statusOf is the answer of a registry that an error is about, 0 for none.
func statusOf(err error) int {
	var unexpected remoteerrors.ErrUnexpectedStatus
	if errors.As(err, &unexpected) {
		return unexpected.StatusCode
	}
	return 0
}

// explained is an error whose causes a person need not read.
type explained struct {
	text   string
	causes []error
}

func (e *explained) Error() string   { return e.text }
func (e *explained) Unwrap() []error { return e.causes }

// isNetwork says whether an error came from the connection, not from an answer.
func isNetwork(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && !errors.Is(err, syscall.ECONNREFUSED)
}
