package container

import (
	"context"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
)

// ProbeNow runs a container's health check once, besides those that its interval brings, and counts the result as one of them.
// errdefs.ErrInvalidArgument for a container without a check, ErrConflict for one that stands still.
func ProbeNow(ctx context.Context, s *Service, id string) (*container.HealthcheckResult, error) {
	c, err := s.index.find(id)
	if err != nil {
		return nil, err
	}
	r := c.record()
	k := checkOf(r.Config)
	if k == nil {
		return nil, invalid("container %s has no health check to run: give it one with --health-cmd, or HEALTHCHECK in its image", r.Name)
	}
	c.mu.Lock()
	t, h := c.task, c.health
	c.mu.Unlock()
	switch {
	case r.Status == Paused:
		return nil, fail(errdefs.ErrConflict, "container %s is paused: wherry unpause %[1]s lets it go on", r.Name)
	case !r.Status.Alive() || t == nil || h == nil:
		return nil, fail(errdefs.ErrConflict, "container %s is not running: start it first", r.Name)
	}
	p := prober{life: life{s, c}, check: k, task: t}
	result := p.probe(ctx)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	starting := k.startPeriod > 0 && time.Since(r.StartedAt) < k.startPeriod
	if before, after := c.noteProbe(h, result, k, starting); before != after {
		tellHealth(p.life, after, result)
	}
	return result, nil
}
