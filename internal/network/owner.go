package network

import (
	"fmt"

	"github.com/containerd/errdefs"

	"wherry.dev/wherry/internal/access"
)

// Named is a network as others speak of it.
type Named struct{ ID, Name, Owner string }

// NameOf finds a network by its name, its id, or the beginning of its id.
func NameOf(s *Service, ref string) (Named, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := s.find(ref)
	if err != nil {
		return Named{}, err
	}
	return Named{ID: n.ID, Name: n.Name, Owner: n.Owner}, nil
}

// seenBy says that a network may be used with a context: the predefined ones are everybody's.
func (d *definition) seenBy(s access.Scope) bool { return d.predefined() || s.Sees(d.Owner) }

// seen is find for one who may not see all networks.
func seen(s *state, scope access.Scope, nameOrID string) (*lan, error) {
	n, err := s.find(nameOrID)
	if err == nil && !n.seenBy(scope) {
		return nil, fmt.Errorf("network %s belongs to somebody else, and you may use your own: %w", nameOrID, errdefs.ErrPermissionDenied)
	}
	return n, err
}

// ownShare refuses a network whose owner's networks would take more of the engine's memory than theirs may.
func ownShare(s *state, scope access.Scope, d *definition) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	have := 0
	for _, n := range s.networks {
		if n.Owner == scope.Owner {
			have += taken(n.definition)
		}
	}
	return scope.Afford("networks", have, taken(d))
}

// taken is what a network takes in memory, roughly.
func taken(d *definition) int { return 4<<10 + len(d.Name) + access.Weight(d.Labels, d.Options) }
