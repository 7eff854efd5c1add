package container

import (
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
)

// TestFirstProbes: a container is looked at first after its start interval while it starts, after its interval otherwise; what fails meanwhile does
// not count.
func TestFirstProbes(t *testing.T) {
	e := newEngine(t)
	const soon, never = 20 * time.Millisecond, time.Hour
	start := func(h container.HealthConfig) *Container {
		id := e.run(request{cmd: sh("sleep 3600"), c: container.Config{Healthcheck: &h}})
		c, err := e.index.find(id)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	healthy := func(c *Container) func() bool {
		return func() bool { return c.healthState().Status == container.Healthy }
	}
	plain := start(container.HealthConfig{Test: []string{"CMD", "true"}, Interval: soon, StartInterval: never})
	e.eventually("a probe after the interval, without a start period", healthy(plain))

	slow := start(container.HealthConfig{Test: []string{"CMD", "true"}, Interval: never, StartInterval: soon})
	starting := start(container.HealthConfig{Test: []string{"CMD-SHELL", "test -e /ready"}, Interval: never, StartPeriod: never, StartInterval: soon, Retries: 1})
	e.eventually("three probes that fail", func() bool { return len(starting.healthState().Log) >= 3 })
	if h := starting.healthState(); h.Status != container.Starting || h.FailingStreak != 0 || h.Log[0].ExitCode == 0 {
		t.Errorf("while it starts: %+v", h)
	}
	if h := slow.healthState(); h.Status != container.Starting || len(h.Log) > 0 {
		t.Errorf("a start interval without a start period: %+v", h)
	}
	if got := e.exec(starting.id, container.ExecCreateRequest{Cmd: []string{"touch", "/ready"}}, nil); got.code != 0 {
		t.Fatalf("%+v", got)
	}
	e.eventually("it has started", healthy(starting))
	log := starting.healthState().Log
	if h := starting.healthState(); h.Log[len(h.Log)-1] != log[len(log)-1] {
		t.Errorf("probed at the start interval after the start: %+v", h)
	}
	late := start(container.HealthConfig{Test: []string{"CMD", "false"}, Interval: soon, StartPeriod: time.Millisecond, StartInterval: never, Retries: 2})
	e.eventually("failures after the start period count", func() bool { return late.healthState().Status == container.Unhealthy })
}
