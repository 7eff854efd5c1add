// Package registry speaks to registries: it resolves references, reads and writes content, lists tags and tries logins.
//
// A Pool knows how registries are reached: certificates, mirrors, which may do without TLS; it keeps connections. A Client is one
// repository of one registry with the credentials that were given for it. Both are safe for many goroutines, and nothing here is on disk.
// Settings are read in the forms that Docker and containerd have for them (certs.d, hosts.toml), each time that a client is made. Who is sent
// credentials is decided here (docs/decisions/0005); what comes is held against sizes here and against digests by who reads it.
package registry

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/registry"
	"golang.org/x/net/http/httpproxy"

	"wherry.dev/wherry/internal/ref"
)

// Options of NewPool.
type Options struct {
	Insecure []string      // hosts and networks whose certificates are not checked, and which may be spoken to over plain HTTP; loopback always may
	HostDirs []string      // folders with <host>/ca.crt, client certificates, or hosts.toml; nil: Docker's, containerd's and Wherry's in /etc
	Pause    time.Duration // before what failed is tried again; doubles; 0: 200 ms
	Patience time.Duration // how long a registry may send next to nothing in the middle of an answer; 0: a minute
	Answer   time.Duration // how long it may take to begin an answer, or to take what is sent; 0: a minute
	Chunk    int64         // size of the parts of an upload to a registry that takes no large ones; 0: 16 MiB
}

// Pool knows how registries are reached, and keeps connections to them.
type Pool struct {
	o     Options
	proxy func(*http.Request) (*url.URL, error)

	mu         sync.Mutex // guards what follows
	transports map[[sha256.Size]byte]*http.Transport
}

// NewPool makes a pool. Proxies are those that the environment names now.
func NewPool(o Options) *Pool {
	if o.HostDirs == nil {
		o.HostDirs = []string{"/etc/wherry/certs.d", "/etc/containerd/certs.d", "/etc/docker/certs.d"}
	}
	if o.Pause == 0 {
		o.Pause = 200 * time.Millisecond
	}
	if o.Patience == 0 {
		o.Patience = time.Minute
	}
	if o.Answer == 0 {
		o.Answer = time.Minute
	}
	if o.Chunk == 0 {
		o.Chunk = 16 << 20
	}
	proxy := httpproxy.FromEnvironment().ProxyFunc() // loopback addresses have none
	return &Pool{o: o, transports: map[[sha256.Size]byte]*http.Transport{}, proxy: func(r *http.Request) (*url.URL, error) { return proxy(r.URL) }}
}

// Client is one repository, with the credentials that were given for its registry.
type Client struct {
	Ref       ref.Reference
	pool      *Pool
	endpoints func() ([]*endpoint, error) // mirrors, then the registry itself
}

// Client is for r's repository; creds may be nil.
func (p *Pool) Client(_ context.Context, r ref.Reference, creds *registry.AuthConfig) *Client {
	c := &Client{Ref: r, pool: p}
	c.endpoints = sync.OnceValues(func() ([]*endpoint, error) {
		list, err := p.settings(r.Domain)
		if err != nil {
			return nil, fmt.Errorf("settings of registry %s: %w", r.Domain, err)
		}
		var out []*endpoint
		for i := range list {
			e, err := p.endpoint(&list[i], r, creds)
			if err != nil {
				return nil, fmt.Errorf("settings of registry %s: %w", r.Domain, err)
			}
			out = append(out, e)
		}
		return out, nil
	})
	return c
}

// endpoint is one host that may be asked for a repository's content.
type endpoint struct {
	*settings
	base   url.URL // of the API
	name   string  // of the repository, at this host
	ns     string  // the registry that a mirror is asked for, "" for the registry itself
	auth   *authorizer
	client *http.Client
}

// rank puts the registry itself before its mirrors.
func (e *endpoint) rank() int {
	if e.mirror {
		return 1
	}
	return 0
}

func (p *Pool) endpoint(s *settings, r ref.Reference, creds *registry.AuthConfig) (*endpoint, error) {
	home, err := p.transport(s)
	if err != nil {
		return nil, err
	}
	others := settings{host: s.host, tls: tlsSettings{authorities: s.tls.authorities}} // no connections of other registries: they may go elsewhere
	away, err := p.transport(&others)
	if err != nil {
		return nil, err
	}
	others.tls.unchecked = true
	loose, err := p.transport(&others)
	if err != nil {
		return nil, err
	}
	e := &endpoint{settings: s, base: url.URL{Scheme: s.scheme, Host: s.host, Path: s.path}, name: s.repository(r.Path)}
	plain := s.scheme == "http" || s.fallback || p.plain(s.host)
	tries := tries
	if s.mirror {
		creds, tries, e.ns = nil, 1, r.Domain
	} else {
		creds = moved(creds, r.Domain, s.host)
	}
	answer := p.o.Answer
	if s.mirror {
		answer = min(answer, 20*time.Second) // there is somebody else to ask
	}
	way := &route{home: home, away: away, loose: loose, plain: p.plain, proxy: p.proxy, host: s.host}
	transport := patient{answering{way, answer, p.o.Patience}, p.o.Pause, tries}
	e.auth = newAuthorizer(s.host, plain, creds, transport)
	e.auth.header = s.header
	way.isHome = e.auth.isHome
	if s.fallback {
		way.home = docker.NewHTTPFallback(home)
	}
	e.client = &http.Client{Transport: transport, CheckRedirect: e.auth.checkRedirect}
	return e, nil
}

// moved gives what was given for a registry to the host that the settings name in its place ("server").
func moved(creds *registry.AuthConfig, domain, host string) *registry.AuthConfig {
	if creds == nil || creds.ServerAddress == "" || serverHost(creds.ServerAddress) != registryHost(domain) {
		return creds
	}
	there := *creds
	there.ServerAddress = host
	return &there
}

// route chooses the connections for an address: certificates of a client are shown to the host that they are for only, and what is
// unchecked there is not for others. Other hosts' certificates may be of the same private authority.
type route struct {
	home, away, loose http.RoundTripper
	isHome            func(*url.URL) bool
	plain             func(host string) bool
	proxy             func(*http.Request) (*url.URL, error)
	host              string // the registry's
}

func (w *route) RoundTrip(r *http.Request) (*http.Response, error) {
	switch {
	case w.isHome(r.URL):
		return w.home.RoundTrip(r)
	case w.plain(r.URL.Host):
		return w.loose.RoundTrip(w.elsewhere(r))
	}
	return w.away.RoundTrip(w.elsewhere(r))
}

// able lists the endpoints that may be asked for something.
func (c *Client) able(need docker.HostCapabilities) ([]*endpoint, error) {
	list, err := c.endpoints()
	if err != nil {
		return nil, err
	}
	var out []*endpoint
	for _, e := range list {
		if e.can.Has(need) {
			out = append(out, e)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("the settings of registry %s name no host that may be asked for this (capabilities in hosts.toml): %w", c.Ref.Domain, errdefs.ErrInvalidArgument)
	}
	return out, nil
}

// itself is the registry, not a mirror.
func (c *Client) itself() (*endpoint, error) {
	list, err := c.endpoints()
	if err != nil {
		return nil, err
	}
	return list[len(list)-1], nil
}
