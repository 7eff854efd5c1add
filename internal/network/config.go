package network

import (
	"fmt"
	"maps"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/network"

	"wherry.dev/wherry/internal/access"
)

// Networks that are only a configuration: nothing is made for them and nobody can be on them; others take their addresses and options from them.

func configOf(r network.CreateRequest) string {
	if r.ConfigFrom == nil {
		return ""
	}
	return r.ConfigFrom.Network
}

// configured is a request with what the configuration that it names says.
func configured(s *state, scope access.Scope, r network.CreateRequest) (network.CreateRequest, error) {
	name := configOf(r)
	switch {
	case r.ConfigOnly && name != "":
		return r, fmt.Errorf("a configuration network cannot depend on another configuration network: %w", errdefs.ErrPermissionDenied)
	case r.ConfigOnly && (r.Internal || r.Attachable || r.Ingress || r.Scope != "" && r.Scope != "local"):
		return r, fmt.Errorf("configuration network can only contain network specific fields. Network operator fields like [ ingress | internal | attachable | scope ] are not supported.: %w", errdefs.ErrPermissionDenied)
	case name == "":
		return r, nil
	case r.IPAM != nil && (len(r.IPAM.Config) > 0 || len(r.IPAM.Options) > 0 || r.IPAM.Driver != "" && r.IPAM.Driver != ipamDefault), len(r.Labels) > 0,
		r.EnableIPv4 != nil && !*r.EnableIPv4, r.EnableIPv6 != nil && *r.EnableIPv6:
		return r, fmt.Errorf("user specified configurations are not supported if the network depends on a configuration network: %w", errdefs.ErrPermissionDenied)
	case len(r.Options) > 0:
		return r, fmt.Errorf("network driver options are not supported if the network depends on a configuration network: %w", errdefs.ErrPermissionDenied)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c, err := seen(s, scope, name)
	if errdefs.IsPermissionDenied(err) {
		return r, err
	}
	if err != nil {
		return r, fmt.Errorf("configuration network %q does not exist: %w", name, errdefs.ErrNotFound)
	}
	if !c.ConfigOnly {
		return r, fmt.Errorf("network %q is not a configuration network: %w", name, errdefs.ErrPermissionDenied)
	}
	four, six := c.EnableIPv4, c.EnableIPv6
	r.ConfigFrom = &network.ConfigReference{Network: c.Name}
	r.EnableIPv4, r.EnableIPv6 = &four, &six
	r.Options, r.Labels = maps.Clone(c.Options), maps.Clone(c.Labels)
	r.IPAM = &network.IPAM{Driver: c.IPAM.Driver, Options: maps.Clone(c.IPAM.Options), Config: slices.Clone(c.IPAM.Config)}
	return r, nil
}

// usedBy is a network that takes its configuration from n, "" where there is none. The caller holds the lock.
func usedBy(s *state, n *lan) string {
	for _, other := range s.networks {
		if n.ConfigOnly && other.ConfigFrom.Network == n.Name {
			return other.Name
		}
	}
	return ""
}
