package container

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
)

// Docker's defaults of a health check.
const (
	defaultInterval      = 30 * time.Second
	defaultProbeTimeout  = 30 * time.Second
	defaultStartInterval = 5 * time.Second
	defaultRetries       = 3

	probesKept  = 5
	probeOutput = 4 << 10
	// probeDrain is how long output is read after a probe has ended: what it left behind may hold its pipe for ever.
	probeDrain = 100 * time.Millisecond
)

// health is a container's health check. Container.mu guards it; state is replaced, never written to.
type health struct {
	stop   context.CancelFunc // nil until it is run
	done   chan struct{}      // closed when it is run no more
	state  container.Health
	paused bool // the container was frozen since the last probe began, which then says nothing
}

// check is a health check with its defaults filled in.
type check struct {
	args                                          []string
	interval, timeout, startPeriod, startInterval time.Duration
	retries                                       int
}

// checkOf is nil where there is nothing to check.
func checkOf(c *container.Config) *check {
	h := c.Healthcheck
	if h == nil || len(h.Test) < 2 && (len(h.Test) == 0 || h.Test[0] != "CMD-SHELL") || h.Test[0] == "NONE" {
		return nil
	}
	k := &check{interval: h.Interval, timeout: h.Timeout, startPeriod: h.StartPeriod, startInterval: h.StartInterval, retries: h.Retries}
	switch h.Test[0] {
	case "CMD":
		k.args = h.Test[1:]
	case "CMD-SHELL":
		shell := c.Shell
		if len(shell) == 0 {
			shell = []string{"/bin/sh", "-c"}
		}
		k.args = append(append([]string{}, shell...), h.Test[1:]...)
	}
	for _, row := range []struct {
		d       *time.Duration
		instead time.Duration
	}{{&k.interval, defaultInterval}, {&k.timeout, defaultProbeTimeout}, {&k.startInterval, defaultStartInterval}} {
		if *row.d == 0 {
			*row.d = row.instead
		}
	}
	if k.retries == 0 {
		k.retries = defaultRetries
	}
	return k
}

// healthState is the container's health as inspect shows it; nil where nothing is checked.
func (c *Container) healthState() *container.Health {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.health == nil {
		return nil
	}
	state := c.health.state
	return &state
}

// resetHealth has the next life begin as starting, before anybody can see that the container runs. What the last probes said stays.
func resetHealth(c *Container) {
	k := checkOf(c.record().Config)
	c.mu.Lock()
	defer c.mu.Unlock()
	old := c.health
	if c.health = nil; k == nil {
		return
	}
	c.health = &health{state: container.Health{Status: container.Starting}}
	if old != nil {
		c.health.state.Log = old.state.Log
	}
}

// rememberHealth is for a container of an earlier life of the engine: one that has ended is as it was then, one that runs is looked at anew.
func rememberHealth(c *Container) {
	r := c.record()
	if checkOf(r.Config) == nil || r.StartedAt.IsZero() {
		return
	}
	h := &health{state: container.Health{Status: container.Unhealthy}}
	if r.Health != nil {
		h.state = *r.Health
	}
	if r.Status.Alive() {
		h.state = container.Health{Status: container.Starting}
	}
	c.health = h
}

// startHealth begins to check a container that has been started, or found again.
func (l life) startHealth(ctx context.Context) {
	k := checkOf(l.c.record().Config)
	l.c.mu.Lock()
	defer l.c.mu.Unlock()
	t := l.c.task
	if k == nil || t == nil {
		return
	}
	if l.c.health == nil {
		l.c.health = &health{state: container.Health{Status: container.Starting}}
	}
	h := l.c.health
	ctx, h.stop = context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	h.done = done
	ok := l.s.lives.run(ctx, func(life context.Context) {
		defer close(done)
		defer h.stop()
		defer context.AfterFunc(life, h.stop)()
		if l.checkHealth(ctx, h, prober{life: l, check: k, task: t}) {
			l.s.log(endUnhealthy(life, l))
		}
	})
	if !ok {
		h.stop()
		close(done)
	}
}

// awaitNoProbe ends the checks, and a probe that is under way, and waits for that.
func awaitNoProbe(ctx context.Context, l life) {
	l.stopHealth()
	l.c.mu.Lock()
	var done chan struct{}
	if l.c.health != nil {
		done = l.c.health.done
	}
	l.c.mu.Unlock()
	if done == nil {
		return
	}
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// stopHealth ends the checks.
func (l life) stopHealth() {
	l.c.mu.Lock()
	defer l.c.mu.Unlock()
	if h := l.c.health; h != nil && h.stop != nil {
		h.stop()
	}
}

// settleHealth says what the health of a container is that has ended: unhealthy, as Docker has it, or starting where it is started again, so
// that nobody who waits for it sees its last life.
func settleHealth(c *Container, again bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.health == nil {
		return
	}
	state := c.health.state
	if state.Status = container.Unhealthy; again || c.policy.keep {
		state.Status = container.Starting
	}
	c.health.state = state
}

// pauseHealth makes a probe that runs count for nothing.
func pauseHealth(c *Container) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.health != nil {
		c.health.paused = true
	}
}

// mayProbe says that the container does not stand still; what is paused from then on is noted.
func mayProbe(c *Container, h *health) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	h.paused = false
	return c.rec.Load().Status != Paused
}

// checkHealth probes until ctx ends, or, which is what it says, until the container is to be ended because it is unhealthy. Its clock is the
// monotonic one: setting the machine's clock fires no probe.
func (l life) checkHealth(ctx context.Context, h *health, p prober) (end bool) {
	up := time.Now().Add(-max(0, time.Since(l.c.record().StartedAt)))
	for {
		starting := p.check.startPeriod > 0 && time.Since(up) < p.check.startPeriod
		wait := p.check.interval
		if starting && l.c.healthOf(h).Status == container.Starting {
			wait = min(wait, p.check.startInterval)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return false
		}
		if !mayProbe(l.c, h) {
			continue
		}
		result := p.probe(ctx)
		if ctx.Err() != nil {
			return false
		}
		before, after := l.c.noteProbe(h, result, p.check, time.Since(up) < p.check.startPeriod)
		if after != before {
			tellHealth(l, after, result)
		}
		if after == container.Unhealthy && l.c.record().onUnhealthy() != unhealthyNone {
			return true
		}
	}
}

// tellHealth publishes a change; Docker has no words about the reason in it.
func tellHealth(l life, status container.HealthStatus, result *container.HealthcheckResult) {
	var more []string
	if status == container.Unhealthy {
		more = []string{"healthExitCode", strconv.Itoa(result.ExitCode), "healthOutput", firstLine(result.Output)}
	}
	l.s.publish(l.c.record(), events.Action(string(events.ActionHealthStatus)+": "+string(status)), more...)
}

// firstLine is what of a probe's output fits a line.
func firstLine(output string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(output), "\n")
	if len(line) > 200 {
		line = strings.ToValidUTF8(line[:200], "") + "…"
	}
	return strings.TrimSpace(line)
}

func (c *Container) healthOf(h *health) container.Health {
	c.mu.Lock()
	defer c.mu.Unlock()
	return h.state
}

// noteProbe adds a result; failures while the container is starting do not count.
func (c *Container) noteProbe(h *health, result *container.HealthcheckResult, k *check, starting bool) (before, after container.HealthStatus) {
	c.mu.Lock()
	defer c.mu.Unlock()
	old := h.state
	if h.paused || c.health != h {
		return old.Status, old.Status
	}
	next := old
	log := append(append([]*container.HealthcheckResult{}, old.Log...), result)
	next.Log = log[max(0, len(log)-probesKept):]
	switch {
	case result.ExitCode == 0:
		next.Status, next.FailingStreak = container.Healthy, 0
		c.policy.unhealthy = 0
	case starting && old.Status == container.Starting:
	default:
		next.FailingStreak++
		if next.FailingStreak >= k.retries {
			next.Status = container.Unhealthy
		}
	}
	h.state = next
	close(c.changed)
	c.changed = make(chan struct{})
	return old.Status, next.Status
}
