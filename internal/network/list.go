package network

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/network"
)

// find is the network of that name, of that id, or of the one id that begins so. The caller holds the lock.
func (s *Service) find(nameOrID string) (*lan, error) {
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
func (s *Service) Inspect(ctx context.Context, nameOrID string) (network.Inspect, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := s.find(nameOrID)
	if err != nil {
		return network.Inspect{}, err
	}
	return n.inspect(), nil
}

func (n *lan) inspect() network.Inspect {
	out := network.Inspect{Network: n.Network, Containers: map[string]network.EndpointResource{}}
	out.IPAM.Config = slices.Clone(n.IPAM.Config)
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
	for _, p := range []*pool{n.v4, n.v6} {
		if p != nil {
			subnets[p.subnet] = p.status()
		}
	}
	if len(subnets) > 0 {
		out.Status = &network.Status{IPAM: network.IPAMStatus{Subnets: subnets}}
	}
	return out
}

func (p *pool) status() network.SubnetStatus {
	used, within := uint64(len(p.used)), uint64(0)
	for a := range p.used {
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
func (s *Service) List(ctx context.Context, filters map[string]map[string]bool) ([]network.Inspect, error) {
	if err := checkFilters(filters, "driver", "id", "label", "name", "scope", "type", "dangling"); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	out := []network.Inspect{}
	for _, n := range s.networks {
		if n.matches(filters) {
			out = append(out, n.inspect())
		}
	}
	slices.SortFunc(out, func(a, b network.Inspect) int { return cmp.Compare(a.Name, b.Name) })
	return out, nil
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
				if _, err := strconv.ParseBool(v); err != nil {
					return invalid("invalid filter 'dangling=%s': it is true or false", v)
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
		any("id", func(v string) bool { return strings.HasPrefix(n.ID, v) }) &&
		any("name", func(v string) bool { return strings.Contains(n.Name, v) }) &&
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

// Remove deletes a network that nobody is on.
func (s *Service) Remove(ctx context.Context, nameOrID string) error {
	s.mu.Lock()
	n, err := s.find(nameOrID)
	if err == nil {
		err = n.removable()
	}
	if err != nil {
		s.mu.Unlock()
		return err
	}
	n.removing = true
	s.mu.Unlock()
	return s.demolish(ctx, n)
}

// removable says why a network cannot go. The caller holds the lock.
func (n *lan) removable() error {
	switch {
	case n.predefined():
		return fmt.Errorf("%s is a pre-defined network and cannot be removed: %w", n.Name, errdefs.ErrPermissionDenied)
	case n.removing:
		return fmt.Errorf("network %s is being removed: %w", n.Name, errdefs.ErrConflict)
	case len(n.endpoints) > 0:
		var who []string
		for _, e := range n.endpoints {
			who = append(who, fmt.Sprintf("name:%q id:%q", e.Name, e.ID[:12]))
		}
		slices.Sort(who)
		return fmt.Errorf("error while removing network: network %s has active endpoints (%s): disconnect or stop the containers: %w", n.Name, strings.Join(who, ", "), errdefs.ErrPermissionDenied)
	}
	return nil
}

// Prune removes user-defined networks that nobody is on: filters until, label and label!.
func (s *Service) Prune(ctx context.Context, filters map[string]map[string]bool) (network.PruneReport, error) {
	report := network.PruneReport{NetworksDeleted: []string{}}
	if err := checkFilters(filters, "until", "label", "label!"); err != nil {
		return report, err
	}
	until, err := untilOf(filters["until"])
	if err != nil {
		return report, err
	}
	s.mu.Lock()
	var idle []*lan
	for _, n := range s.networks {
		unwanted := false
		for v := range filters["label!"] {
			unwanted = unwanted || hasLabel(n.Labels, v)
		}
		if n.removable() != nil || unwanted || !until.IsZero() && n.Created.After(until) || !n.matches(map[string]map[string]bool{"label": filters["label"]}) {
			continue
		}
		n.removing = true
		idle = append(idle, n)
	}
	s.mu.Unlock()
	slices.SortFunc(idle, func(a, b *lan) int { return cmp.Compare(a.Name, b.Name) })
	for _, n := range idle {
		if err := s.demolish(ctx, n); err != nil {
			s.log(fmt.Errorf("prune network %s: %w", n.Name, err))
			continue
		}
		report.NetworksDeleted = append(report.NetworksDeleted, n.Name)
	}
	return report, nil
}

// untilOf reads a moment: RFC 3339, seconds since 1970, or how long ago.
func untilOf(values map[string]bool) (time.Time, error) {
	if len(values) > 1 {
		return time.Time{}, invalid("more than one until filter specified")
	}
	for v := range values {
		if t, err := time.Parse(time.RFC3339Nano, v); err == nil {
			return t, nil
		}
		if d, err := time.ParseDuration(v); err == nil {
			return time.Now().Add(-d), nil
		}
		seconds, err := strconv.ParseFloat(v, 64)
		if err != nil {
			return time.Time{}, invalid("until=%s: give a moment, seconds since 1970, or a duration such as 24h", v)
		}
		return time.Unix(0, int64(seconds*1e9)), nil
	}
	return time.Time{}, nil
}
