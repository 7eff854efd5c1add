package network

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/network"

	"wherry.dev/wherry/internal/access"
)

// find is the network of that name, of that id, or of the one id that begins so. The caller holds the lock.
func (s *state) find(nameOrID string) (*lan, error) {
	if nameOrID == network.NetworkDefault {
		nameOrID = network.NetworkBridge
	}
	if n := s.networks[nameOrID]; n != nil {
		return n, nil
	}
	var found *lan
	matches := 0
	for _, n := range s.networks {
		if n.Name == nameOrID {
			return n, nil
		}
		if nameOrID != "" && strings.HasPrefix(n.ID, nameOrID) {
			found = n
			matches++
		}
	}
	switch matches {
	case 0:
		return nil, fmt.Errorf("network %s not found: %w", nameOrID, errdefs.ErrNotFound)
	case 1:
		return found, nil
	}
	return nil, invalid("network %s is ambiguous (%d matches found on prefix): give more of the id", nameOrID, matches)
}

// Inspect shows a network with the containers on it.
func (s *state) Inspect(ctx context.Context, nameOrID string) (network.Inspect, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := seen(s, access.ScopeOf(ctx), nameOrID)
	if err != nil {
		return network.Inspect{}, err
	}
	return n.inspect(), nil
}

func (n *lan) inspect() network.Inspect {
	out := network.Inspect{Network: n.Network, Containers: map[string]network.EndpointResource{}}
	out.IPAM.Config = append([]network.IPAMConfig{}, n.IPAM.Config...) // never null: Vagrant asks host and none too how many they have
	out.Options, out.Labels = maps.Clone(n.Options), maps.Clone(n.Labels)
	for id, e := range n.endpoints {
		r := network.EndpointResource{Name: e.Name, EndpointID: e.ID, MacAddress: e.MAC}
		if e.V4.IsValid() {
			r.IPv4Address = n.v4.prefix(e.V4)
		}
		if e.V6.IsValid() {
			r.IPv6Address = n.v6.prefix(e.V6)
		}
		out.Containers[id] = r
	}
	subnets := network.SubnetStatuses{}
	for p := range n.pools() {
		subnets[p.subnet] = p.status()
	}
	if len(subnets) > 0 {
		out.Status = &network.Status{IPAM: network.IPAMStatus{Subnets: subnets}}
	}
	return out
}

// UnaskedGateways are those that the engine chose in subnets that somebody asked for.
func UnaskedGateways(s *Service, id string) []netip.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := s.networks[id]; n != nil {
		return n.Unasked
	}
	return nil
}

func (p *pool) status() network.SubnetStatus {
	taken := maps.Clone(p.used)
	for _, q := range p.beside {
		for a := range q.used {
			if p.subnet.Contains(a) {
				taken[a] = true
			}
		}
	}
	used, within := uint64(len(taken)), uint64(0)
	for a := range taken {
		if p.within.Contains(a) {
			within++
		}
	}
	all := ^uint64(0)
	if bits := p.within.Addr().BitLen() - p.within.Bits(); bits < 64 {
		all = 1<<bits - within
	}
	return network.SubnetStatus{IPsInUse: used, DynamicIPsAvailable: all}
}

// List shows the networks that all filters let through, by name: driver, id, label, name, scope, type and dangling.
func (s *state) List(ctx context.Context, filters map[string]map[string]bool) ([]network.Inspect, error) {
	if err := checkFilters(filters, "driver", "id", "label", "name", "scope", "type", "dangling"); err != nil {
		return nil, err
	}
	called, err := patterns(filters, "id", "name")
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	out := []network.Inspect{}
	for _, n := range s.networks {
		if n.seenBy(access.ScopeOf(ctx)) && n.matches(filters) && called(n) {
			out = append(out, n.inspect())
		}
	}
	slices.SortFunc(out, func(a, b network.Inspect) int { return cmp.Compare(a.Name, b.Name) })
	return out, nil
}

// patterns compiles the filters whose values are regular expressions, as Docker's are: ^web$ is one network, web each with that in its name.
func patterns(filters map[string]map[string]bool, names ...string) (func(*lan) bool, error) {
	compiled := map[string][]*regexp.Regexp{}
	for _, name := range names {
		for v := range filters[name] {
			p, err := regexp.Compile(v)
			if err != nil {
				return nil, invalid("invalid filter '%s=%s': %v", name, v, err)
			}
			compiled[name] = append(compiled[name], p)
		}
	}
	return func(n *lan) bool {
		for name, of := range map[string]string{"id": n.ID, "name": n.Name} {
			if l := compiled[name]; len(l) > 0 && !slices.ContainsFunc(l, func(p *regexp.Regexp) bool { return p.MatchString(of) }) {
				return false
			}
		}
		return true
	}, nil
}

func checkFilters(filters map[string]map[string]bool, known ...string) error {
	for name, values := range filters {
		if !slices.Contains(known, name) {
			return invalid("invalid filter '%s': networks have %s", name, strings.Join(known, ", "))
		}
		for v := range values {
			switch name {
			case "type":
				if v != "custom" && v != "builtin" {
					return invalid("invalid filter: 'type'='%s': it is custom or builtin", v)
				}
			case "dangling":
				if _, err := strconv.ParseBool(v); err != nil || len(values) > 1 {
					return invalid("invalid filter 'dangling=%s': it is true or false, not both", v)
				}
			}
		}
	}
	return nil
}

// matches says whether the network passes every filter; of a filter's values one must fit, of labels all.
func (n *lan) matches(filters map[string]map[string]bool) bool {
	any := func(name string, fits func(v string) bool) bool {
		values := filters[name]
		if len(values) == 0 {
			return true
		}
		for v := range values {
			if fits(v) {
				return true
			}
		}
		return false
	}
	for v := range filters["label"] {
		if !hasLabel(n.Labels, v) {
			return false
		}
	}
	return any("driver", func(v string) bool { return v == n.Driver }) &&
		any("scope", func(v string) bool { return v == n.Scope }) &&
		any("type", func(v string) bool { return (v == "builtin") == n.predefined() }) &&
		any("dangling", func(v string) bool {
			want, _ := strconv.ParseBool(v)
			return want == (len(n.endpoints) == 0 && !n.predefined())
		})
}

func hasLabel(labels map[string]string, want string) bool {
	key, value, hasValue := strings.Cut(want, "=")
	got, ok := labels[key]
	return ok && (!hasValue || got == value)
}
