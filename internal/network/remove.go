package network

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/moby/moby/api/types/events"
)

// demolish takes away a network that is marked as being removed.
func (s *Service) demolish(ctx context.Context, n *lan) error {
	if err := os.Remove(filepath.Join(s.definitionsDir(), n.ID+".json")); err != nil && !os.IsNotExist(err) {
		s.mu.Lock()
		n.removing = false
		s.mu.Unlock()
		return fmt.Errorf("remove the definition of network %s: %w", n.Name, err)
	}
	s.mu.Lock()
	delete(s.networks, n.ID)
	s.mu.Unlock()
	s.publish(events.ActionDestroy, n, "")
	return s.unbuild(n)
}
