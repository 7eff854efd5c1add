package build

import (
	"context"
	"crypto/tls"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/core/remotes/docker/config"
)

// hostDirs are where certificates and hosts.toml of registries lie, as for package registry.
func hostDirs() []string {
	return []string{"/etc/wherry/certs.d", "/etc/containerd/certs.d", "/etc/docker/certs.d"}
}

// registryHosts is how BuildKit itself reaches registries, for what is no image: caches that lie there. Its rules are the engine's own.
func (o *Options) registryHosts(ctx context.Context) docker.RegistryHosts {
	ctx = context.WithoutCancel(ctx)
	return func(host string) ([]docker.RegistryHost, error) {
		c := config.HostOptions{HostDir: hostDir}
		if o.insecure(host) && !docker.IsLocalhost(host) {
			c.DefaultScheme, c.DefaultTLS = "http", &tls.Config{InsecureSkipVerify: true} //nolint:gosec // so --insecure-registry says
		}
		return config.ConfigureHosts(ctx, c)(host)
	}
}

// hostDir is where a registry's own files lie, "" where it has none.
func hostDir(host string) (string, error) {
	for _, dir := range hostDirs() {
		at := filepath.Join(dir, host)
		if strings.Contains(host, "/") || host == ".." {
			continue
		}
		if fi, err := os.Stat(at); err == nil && fi.IsDir() {
			return at, nil
		}
	}
	return "", nil
}

// insecure says whether a registry may do without TLS: those of --insecure-registry.
func (o *Options) insecure(host string) bool {
	if slices.Contains(o.Insecure, host) {
		return true
	}
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		name = host
	}
	ip := net.ParseIP(strings.Trim(name, "[]"))
	return ip != nil && slices.ContainsFunc(o.Insecure, func(text string) bool {
		_, network, err := net.ParseCIDR(text)
		return err == nil && network.Contains(ip)
	})
}
