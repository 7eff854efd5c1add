package network

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/network"

	"wherry.dev/wherry/internal/access"
)

// demolish takes away a network that is marked as being removed.
func (s *Service) demolish(ctx context.Context, n *lan) error {
	if err := os.Remove(filepath.Join(s.o.definitions(), n.ID+".json")); err != nil && !os.IsNotExist(err) {
		s.mu.Lock()
		n.removing = false
		s.mu.Unlock()
		return fmt.Errorf("remove the definition of network %s: %w", n.Name, err)
	}
	s.mu.Lock()
	unlist(&s.state, n)
	s.mu.Unlock()
	s.publish(events.ActionDestroy, n, "")
	return s.unbuild(n)
}

// Remove deletes a network that nobody is on.
func (s *Service) Remove(ctx context.Context, nameOrID string) error {
	awaited := awaitedOf(s)
	s.mu.Lock()
	n, err := seen(&s.state, access.ScopeOf(ctx), nameOrID)
	if err == nil {
		err = removable(&s.state, n, awaited)
	}
	if err != nil {
		s.mu.Unlock()
		return err
	}
	n.removing = true
	s.mu.Unlock()
	return s.demolish(ctx, n)
}

// Await has the networks stay that containers need again which are on none at the moment: they wait for their restart. names gives the
// containers' names by those of the networks, or their ids. It is called once, before anything is removed.
func Await(s *Service, names func() map[string]string) { s.waiting = names }

// awaitedOf asks who waits for which network.
func awaitedOf(s *Service) map[string]string {
	if s.waiting == nil {
		return nil
	}
	return s.waiting()
}

// removable says why a network cannot go. The caller holds the lock.
func removable(s *state, n *lan, awaited map[string]string) error {
	user := usedBy(s, n)
	switch {
	case user != "":
		return fmt.Errorf("configuration network %q is in use: network %s takes its configuration from it: %w", n.Name, user, errdefs.ErrPermissionDenied)
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
	for name, who := range awaited {
		if other, err := s.find(name); err == nil && other == n {
			return fmt.Errorf("network %s is needed by container %s, which is being restarted: stop it first: %w", n.Name, who, errdefs.ErrPermissionDenied)
		}
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
	awaited := awaitedOf(s)
	s.mu.Lock()
	var idle []*lan
	for _, n := range s.networks {
		unwanted := !access.ScopeOf(ctx).Sees(n.Owner)
		for v := range filters["label!"] {
			unwanted = unwanted || hasLabel(n.Labels, v)
		}
		if n.ConfigOnly || removable(&s.state, n, awaited) != nil || unwanted || !until.IsZero() && n.Created.After(until) || !n.matches(map[string]map[string]bool{"label": filters["label"]}) {
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
	if s.o.Events != nil {
		s.o.Events.Publish(events.NetworkEventType, events.ActionPrune, "", map[string]string{"reclaimed": "0"})
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
