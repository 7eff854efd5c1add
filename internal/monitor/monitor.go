// Package monitor measures running containers: processes and counters.
package monitor

import (
	"context"

	"github.com/moby/moby/api/types/container"

	containers "wherry.dev/wherry/internal/container"
)

type Service struct{}

func New(c *containers.Service) *Service { return &Service{} }

// Top lists the container's processes with the host's ps and the given arguments ("" means "-ef"). Nothing of the image is run.
func (s *Service) Top(ctx context.Context, id, psArgs string) (container.TopResponse, error) {
	panic("not written yet")
}

// Stats calls fn with a sample each second (Stream) or once; a stopped container gives one empty sample.
func (s *Service) Stats(ctx context.Context, id string, stream, oneShot bool, fn func(container.StatsResponse) error) error {
	panic("not written yet")
}
