package container

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"

	"wherry.dev/wherry/internal/why"
)

// What is done about an unhealthy container is said by an annotation, which is of this container alone and counts more, or by a label, which
// any client can give and which may be the image's.
const (
	unhealthyAnnotation = "wherry.on-unhealthy"
	unhealthyLabel      = "dev.wherry.on-unhealthy"
	unhealthyNone       = "none"
	unhealthyRestart    = "restart" // stopped, and started again after a while
	unhealthyStop       = "stop"    // stopped, and left so
	unhealthyKill       = "kill"    // killed; its restart policy decides what follows
)

func (r *Record) onUnhealthy() string {
	return cmp.Or(r.HostConfig.Annotations[unhealthyAnnotation], r.Config.Labels[unhealthyLabel], unhealthyNone)
}

// checkOnUnhealthy wants one of the words.
func checkOnUnhealthy(value string) error {
	if known := []string{unhealthyNone, unhealthyRestart, unhealthyStop, unhealthyKill}; !slices.Contains(known, value) {
		return invalid("invalid value %q of --on-unhealthy (label %s): it can be %s", value, unhealthyLabel, strings.Join(known, ", "))
	}
	return nil
}

func (v *validation) unhealthy() error {
	r := Record{Config: v.config, HostConfig: v.host}
	return checkOnUnhealthy(r.onUnhealthy())
}

// SetOnUnhealthy changes what is done about a container that is, or gets, unhealthy.
func SetOnUnhealthy(s *Service, id, value string) error {
	if err := checkOnUnhealthy(value); err != nil {
		return err
	}
	c, err := s.index.find(id)
	if err != nil {
		return err
	}
	r, err := c.change(true, func(r *Record) error {
		if r.Status == Removing || r.Status == Dead {
			return fail(errdefs.ErrConflict, "container %s is marked for removal and cannot be updated", r.Name)
		}
		h := *r.HostConfig
		h.Annotations = map[string]string{unhealthyAnnotation: value}
		for k, v := range r.HostConfig.Annotations {
			if k != unhealthyAnnotation {
				h.Annotations[k] = v
			}
		}
		r.HostConfig = &h
		return nil
	})
	if err == nil {
		s.publish(r, events.ActionUpdate)
	}
	return err
}

// endUnhealthy does what the container's owner wants done about it. ctx is the engine's: where that closes in the middle, its next life sees.
func endUnhealthy(ctx context.Context, l life) error {
	ctx = asking(ctx, why.AskUnhealthy)
	signal, timeout, err := stopRules(l.c.record(), StopOptions{})
	if err != nil {
		return err
	}
	var n *stopping
	mode := l.c.record().onUnhealthy()
	if mode == unhealthyStop {
		n, err = l.beginStop()
	} else {
		n, err = l.alive()
	}
	if n == nil || err != nil {
		return nil // it has ended meanwhile
	}
	switch mode {
	case unhealthyStop:
		r, err := n.end(ctx, signal, timeout)
		if err == nil {
			l.s.publish(r, events.ActionStop)
		}
		return endedUnhealthy(n, err)
	case unhealthyRestart:
		l.c.mu.Lock()
		l.c.policy.again = true
		l.c.mu.Unlock()
		_, err = n.end(ctx, signal, timeout)
	case unhealthyKill:
		err = n.kill(ctx)
	}
	return endedUnhealthy(n, err)
}

func endedUnhealthy(n *stopping, err error) error {
	if err == nil || n.c.isGone() {
		return nil
	}
	return fmt.Errorf("end container %s, which is unhealthy: %w", n.r.Name, err)
}

// againAfter says whether the container that has ended is to be started again since it was unhealthy, and after how long: longer each time
// until it is healthy.
func againAfter(c *Container, stopped bool) (time.Duration, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := &c.policy
	again := p.again && !stopped
	p.again = false
	if !again {
		return 0, false
	}
	p.unhealthy = min(max(2*p.unhealthy, firstBackoff), maxBackoff)
	return p.unhealthy, true
}

// WaitHealthy returns when the container is healthy, or says why it is not to be.
func WaitHealthy(ctx context.Context, s *Service, id string) error {
	c, err := s.index.find(id)
	if err != nil {
		return err
	}
	if checkOf(c.record().Config) == nil {
		return invalid("container %s has no health check to wait for: give it one with --health-cmd, or HEALTHCHECK in its image", c.record().Name)
	}
	for {
		changed := c.next()
		r, h := c.record(), c.healthState()
		switch {
		case c.isGone():
			return noSuchContainer(id)
		case r.Status.Alive() && h != nil && h.Status == container.Healthy:
			return nil
		case r.Status.Alive() && h != nil && h.Status == container.Unhealthy:
			return fail(errdefs.ErrConflict, "container %s is unhealthy because %s", r.Name, whyUnhealthy(h))
		case !r.Status.Alive() && r.Status != Restarting:
			return fail(errdefs.ErrConflict, "container %s is not running, and was not healthy: %s", r.Name, reportOf(r, deathsOf(c)).Summary)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func whyUnhealthy(h *container.Health) string {
	if len(h.Log) == 0 {
		return "its check failed"
	}
	last := h.Log[len(h.Log)-1]
	text := fmt.Sprintf("its check failed with exit code %d", last.ExitCode)
	if h.FailingStreak > 1 {
		text = fmt.Sprintf("its check failed %d times in a row, the last time with exit code %d", h.FailingStreak, last.ExitCode)
	}
	if line := firstLine(last.Output); line != "" {
		text += ": " + line
	}
	return text
}

// HealthOutputs are the first lines that the last probes of containers in a list printed, of those whose check fails, by container id.
func HealthOutputs(s *Service, list []container.Summary) map[string]string {
	out := map[string]string{}
	for _, sum := range list {
		c, err := s.index.find(sum.ID)
		if err != nil {
			continue
		}
		if h := c.healthState(); h != nil && h.FailingStreak > 0 && len(h.Log) > 0 {
			out[sum.ID] = firstLine(h.Log[len(h.Log)-1].Output)
		}
	}
	return out
}
