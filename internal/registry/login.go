package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/registry"

	"wherry.dev/wherry/internal/ref"
)

// Login tries credentials at their registry and returns an identity token if it gave one.
func (p *Pool) Login(ctx context.Context, a registry.AuthConfig) (registry.AuthResponse, error) {
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
	c := p.Client(ctx, r, &a)
	e, err := c.itself()
	if err != nil {
		return registry.AuthResponse{}, err
	}
	e.auth.offline = true
	at := e.base
	at.Path += "/"
	resp, err := e.ask(ctx, request{method: http.MethodGet, url: &at, header: http.Header{}}, http.StatusOK)
	if errors.Is(err, docker.ErrInvalidAuthorization) {
		if held := (*withheldError)(nil); errors.As(err, &held) {
			return registry.AuthResponse{}, fmt.Errorf("login to %s: %w: %w", domain, held, errdefs.ErrUnauthenticated)
		}
		return registry.AuthResponse{}, fmt.Errorf("login to %s: unauthorized: incorrect username or password (401 Unauthorized): %w", domain, errdefs.ErrUnauthenticated)
	}
	if statusOf(err) == http.StatusNotFound {
		return registry.AuthResponse{}, fmt.Errorf("login to %s: this is no registry: it has no %s: %w", domain, at.Path, errdefs.ErrInvalidArgument)
	}
	if err != nil {
		return registry.AuthResponse{}, Explain("login "+domain, domain, err)
	}
	drain(resp)
	return registry.AuthResponse{Status: "Login Succeeded", IdentityToken: e.auth.refresh}, nil
}
