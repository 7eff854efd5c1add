package container

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"

	"wherry.dev/wherry/internal/shim"
	"wherry.dev/wherry/internal/task"
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

// health is a running container's health check. Container.mu guards it; state is replaced, never written to.
type health struct {
	stop  context.CancelFunc
	state container.Health
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

// startHealth begins to check a container that has been started, or found again.
func (l life) startHealth(ctx context.Context) {
	k := checkOf(l.c.record().Config)
	l.c.mu.Lock()
	defer l.c.mu.Unlock()
	l.c.health = nil
	t := l.c.task
	if k == nil || t == nil {
		return
	}
	h := &health{state: container.Health{Status: container.Starting}}
	l.c.health = h
	ctx, h.stop = context.WithCancel(context.WithoutCancel(ctx))
	ok := l.s.lives.run(ctx, func(life context.Context) {
		defer h.stop()
		defer context.AfterFunc(life, h.stop)()
		l.checkHealth(ctx, h, prober{check: k, task: t, dir: l.c.taskDir})
	})
	if !ok {
		h.stop()
	}
}

// stopHealth ends the checks; what the last ones said stays until the next start.
func (l life) stopHealth() {
	l.c.mu.Lock()
	defer l.c.mu.Unlock()
	if l.c.health != nil {
		l.c.health.stop()
	}
}

func (l life) checkHealth(ctx context.Context, h *health, p prober) {
	started := l.c.record().StartedAt
	for {
		wait := p.check.interval
		if p.check.startPeriod > 0 && time.Since(started) < p.check.startPeriod && l.c.healthOf(h).Status == container.Starting {
			wait = min(wait, p.check.startInterval)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
		if l.c.record().Status == Paused {
			continue
		}
		result := p.probe(ctx)
		if ctx.Err() != nil {
			return
		}
		before, after := l.c.noteProbe(h, result, p.check, time.Since(started) < p.check.startPeriod)
		if after != before {
			l.s.publish(l.c.record(), events.Action(string(events.ActionHealthStatus)+": "+string(after)))
		}
	}
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
	next := old
	log := append(append([]*container.HealthcheckResult{}, old.Log...), result)
	next.Log = log[max(0, len(log)-probesKept):]
	switch {
	case result.ExitCode == 0:
		next.Status, next.FailingStreak = container.Healthy, 0
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

// prober runs probes: the check's command as the container's own user, in its own environment.
type prober struct {
	check *check
	task  *task.Task
	dir   string // of the task
}

func (p prober) probe(ctx context.Context) *container.HealthcheckResult {
	result := &container.HealthcheckResult{Start: time.Now()}
	code, output, err := p.run(ctx)
	result.End = time.Now()
	result.ExitCode, result.Output = code, output
	if err != nil {
		result.ExitCode = -1
		var notRun *task.ExecError
		if errors.As(err, &notRun) {
			result.ExitCode = notRun.Code
		}
		result.Output = err.Error()
		if output != "" {
			result.Output += ": " + output
		}
	}
	return result
}

func (p prober) run(ctx context.Context) (code int, output string, err error) {
	process, err := shim.StartedAs(p.dir)
	if err != nil {
		return 0, "", fmt.Errorf("read how the container was started: %w", err)
	}
	process.Args, process.Terminal, process.ConsoleSize = p.check.args, false, nil
	r, w, err := os.Pipe()
	if err != nil {
		return 0, "", err
	}
	defer r.Close()
	if err := forProcess(w); err != nil {
		w.Close()
		return 0, "", err
	}
	text := make(chan string, 1)
	go func() { text <- readSome(r) }() // ends by the deadline below
	limited, cancel := context.WithTimeout(ctx, p.check.timeout)
	defer cancel()
	exec, err := p.task.Exec(limited, task.ExecOptions{ID: fmt.Sprintf("health-%d", time.Now().UnixNano()), Process: process, Out: w, Err: w})
	w.Close()
	if err != nil {
		_ = r.SetReadDeadline(time.Now())
		<-text
		return 0, "", p.late(limited, err)
	}
	code, err = exec.Wait(limited)
	if err != nil {
		_ = exec.Kill(context.WithoutCancel(ctx), sigkill)
		err = p.late(limited, err)
	}
	_ = r.SetReadDeadline(time.Now().Add(probeDrain))
	return code, <-text, err
}

// late says that a probe took too long, where it did.
func (p prober) late(ctx context.Context, err error) error {
	if ctx.Err() == context.DeadlineExceeded {
		return fmt.Errorf("Health check exceeded timeout (%v)", p.check.timeout) //nolint:staticcheck // Docker's words
	}
	return err
}

// readSome keeps the beginning of what comes and throws away the rest.
func readSome(r io.Reader) string {
	var b bytes.Buffer
	_, _ = io.Copy(&b, io.LimitReader(r, probeOutput))
	_, _ = io.Copy(io.Discard, r)
	return b.String()
}
