// Package registry speaks to registries: it resolves references, reads and writes content, lists tags and tries logins.
//
// A Pool knows how registries are reached: certificates, mirrors, which may do without TLS. A Client is one repository of one registry with
// the credentials that were given for it. Both are safe for many goroutines, and nothing here is on disk. It stands on containerd's client
// of the distribution protocol; who is sent credentials is decided here (docs/decisions/0005).
package registry

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/core/remotes/docker/config"
	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"wherry.dev/wherry/internal/ref"
	"wherry.dev/wherry/internal/version"
)

// Options of NewPool.
type Options struct {
	Insecure []string      // hosts and networks whose certificates are not checked, and which may be spoken to over plain HTTP; loopback always may
	HostDirs []string      // folders with <host>/ca.crt, client certificates, or hosts.toml; nil: Docker's, containerd's and Wherry's in /etc
	Pause    time.Duration // before what failed is tried again; doubles; 0: 200 ms
	Patience time.Duration // how long a registry may send nothing in the middle of a download; 0: a minute
}

// Pool knows how registries are reached.
type Pool struct{ o Options }

// NewPool makes a pool.
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
	return &Pool{o}
}

// Client is one repository, with the credentials that were given for its registry.
type Client struct {
	Ref   ref.Reference
	pool  *Pool
	auth  *authorizer
	hosts func() ([]docker.RegistryHost, error) // sets auth
}

// Client is for r's repository; creds may be nil.
func (p *Pool) Client(ctx context.Context, r ref.Reference, creds *registry.AuthConfig) *Client {
	plain := p.plain(r.Domain)
	home := registryHost(r.Domain)
	o := config.HostOptions{UpdateClient: p.limitTransport, HostDir: p.hostDir}
	if plain && !docker.IsLocalhost(r.Domain) {
		o.DefaultScheme = "http" // tried after TLS has failed
		o.DefaultTLS = &tls.Config{InsecureSkipVerify: true}
	}
	hosts := config.ConfigureHosts(ctx, o)
	c := &Client{Ref: r, pool: p}
	c.hosts = sync.OnceValues(func() ([]docker.RegistryHost, error) {
		list, err := hosts(r.Domain)
		if err != nil {
			return nil, fmt.Errorf("settings of registry %s: %w", r.Domain, err)
		}
		if len(list) == 0 {
			return nil, fmt.Errorf("the settings of registry %s name no host: %w", r.Domain, errdefs.ErrInvalidArgument)
		}
		c.auth = newAuthorizer(home, plain, creds, list[len(list)-1].Client.Transport)
		for i := range list {
			list[i].Authorizer = c.auth
			client := *list[i].Client
			client.CheckRedirect = c.auth.checkRedirect
			list[i].Client = &client
		}
		return list, nil
	})
	return c
}

func (c *Client) resolver(tracker docker.StatusTracker) remotes.Resolver {
	return docker.NewResolver(docker.ResolverOptions{Tracker: tracker, Headers: http.Header{"User-Agent": {"wherry/" + version.Version}},
		Hosts: func(string) ([]docker.RegistryHost, error) { return c.hosts() }})
}

// Resolve asks the registry what the client's reference means. The answer is small: a registry that needs minutes for it is not there.
func (c *Client) Resolve(ctx context.Context) (ocispec.Descriptor, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	_, target, err := c.resolver(nil).Resolve(ctx, c.Ref.String())
	return target, err
}

// Fetcher reads the repository's content.
func (c *Client) Fetcher(ctx context.Context) (*Fetcher, error) {
	f, err := c.resolver(nil).Fetcher(ctx, c.Ref.String())
	if err != nil {
		return nil, err
	}
	return &Fetcher{f, c.pool.o.Patience}, nil
}

// Pusher writes content into the repository; the manifest with the digest root gets the reference's tag.
func (c *Client) Pusher(ctx context.Context, root digest.Digest) (remotes.Pusher, error) {
	return c.resolver(docker.NewInMemoryTracker()).Pusher(ctx, c.Ref.Name()+":"+c.Ref.Tag+"@"+root.String())
}

// plain says whether a registry may do without TLS: loopback addresses, and those named with --insecure-registry.
func (p *Pool) plain(host string) bool {
	if docker.IsLocalhost(host) {
		return true
	}
	ip := net.ParseIP(hostname(host))
	for _, insecure := range p.o.Insecure {
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
func (p *Pool) hostDir(host string) (string, error) {
	for _, dir := range p.o.HostDirs {
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
