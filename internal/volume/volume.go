// Package volume keeps named volumes: directories that outlive containers.
package volume

import (
	"context"

	"github.com/moby/moby/api/types/volume"

	"wherry.dev/wherry/internal/event"
)

// Service owns <root>/volumes. A volume's data lies in <root>/volumes/<name>/_data with ids as seen inside (0…65535): it is id-mapped
// into each container that mounts it.
type Service struct{}

func Open(root string, ev *event.Bus) (*Service, error) { panic("not written yet") }

// Create returns the existing volume when name is taken by one with the same driver. An empty name gets 64 random hex digits and the
// label com.docker.volume.anonymous.
func (s *Service) Create(ctx context.Context, r volume.CreateRequest) (*volume.Volume, error) {
	panic("not written yet")
}
func (s *Service) Inspect(ctx context.Context, name string) (*volume.Volume, error) {
	panic("not written yet")
}

// List takes Docker's filters (name, driver, label, dangling).
func (s *Service) List(ctx context.Context, filters map[string]map[string]bool) ([]volume.Volume, error) {
	panic("not written yet")
}

// Remove refuses with errdefs.ErrFailedPrecondition (409) while a container refers to the volume.
func (s *Service) Remove(ctx context.Context, name string, force bool) error {
	panic("not written yet")
}
func (s *Service) Prune(ctx context.Context, filters map[string]map[string]bool) (*volume.PruneReport, error) {
	panic("not written yet")
}

// Acquire notes that a container refers to the volume (created on demand) and returns its data directory, and whether it is empty
// (then the caller copies the image's content up on first use). References live in memory: containers are re-acquired at start.
func (s *Service) Acquire(ctx context.Context, name, containerID string) (dir string, fresh bool, err error) {
	panic("not written yet")
}
func (s *Service) Release(ctx context.Context, name, containerID string) { panic("not written yet") }
func (s *Service) Close() error                                          { return nil }
