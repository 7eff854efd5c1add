package container

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"

	"wherry.dev/wherry/internal/cgroup"
	"wherry.dev/wherry/internal/why"
)

func failing(test string) *container.HealthConfig {
	return &container.HealthConfig{Test: []string{"CMD-SHELL", test}, Interval: 50 * time.Millisecond, Retries: 2}
}

func TestOnUnhealthy(t *testing.T) {
	e := newEngine(t)
	program := sh("trap 'exit 5' TERM; while :; do sleep 0.05; done")
	for _, row := range []struct {
		mode   string
		policy string
		code   int
	}{{"stop", "always", 5}, {"kill", "no", 137}} {
		t.Run(row.mode, func(t *testing.T) {
			id := e.run(request{cmd: program, c: container.Config{Healthcheck: failing("echo no answer; exit 1"), Labels: map[string]string{unhealthyLabel: row.mode}},
				h: container.HostConfig{RestartPolicy: container.RestartPolicy{Name: container.RestartPolicyMode(row.policy)}}})
			e.eventually("ended", func() bool { return e.rec(id).Status == Exited })
			report, err := Why(e.Service, id)
			if err != nil || report.Cause != why.Unhealthy || report.Deaths[0].Evidence.Code != row.code || !strings.Contains(report.Summary, "no answer") {
				t.Errorf("%+v, %v", report, err)
			}
		})
	}
	t.Run("kill, and the policy starts it again", func(t *testing.T) {
		id := e.run(request{cmd: program, c: container.Config{Healthcheck: failing("exit 1")}, h: container.HostConfig{RestartPolicy: container.RestartPolicy{Name: "always"},
			Annotations: map[string]string{unhealthyAnnotation: "kill"}}})
		e.eventually("started again", func() bool { return e.rec(id).RestartCount > 0 })
	})
	t.Run("restart", func(t *testing.T) {
		id := e.run(request{cmd: program, c: container.Config{Healthcheck: failing("test -e /ok")}, h: container.HostConfig{Annotations: map[string]string{unhealthyAnnotation: "restart"}}})
		c, _ := e.index.find(id)
		wait := func() time.Duration {
			c.mu.Lock()
			defer c.mu.Unlock()
			return c.policy.unhealthy
		}
		e.eventually("started again, after twice as long", func() bool { return e.rec(id).RestartCount > 1 && wait() >= 2*firstBackoff })
		if err := SetOnUnhealthy(e.Service, id, "stop"); err != nil {
			t.Fatal(err)
		}
		e.eventually("stopped for good", func() bool { return e.rec(id).Status == Exited })
	})
	t.Run("healthy again", func(t *testing.T) {
		id := e.run(request{cmd: sh("trap 'exit 5' TERM; test -e /first && touch /ok; touch /first; while :; do sleep 0.05; done"),
			c: container.Config{Healthcheck: failing("test -e /ok")}, h: container.HostConfig{Annotations: map[string]string{unhealthyAnnotation: "restart"}}})
		c, _ := e.index.find(id)
		e.eventually("healthy", func() bool { return c.healthState().Status == container.Healthy })
		c.mu.Lock()
		wait := c.policy.unhealthy
		c.mu.Unlock()
		if n := e.rec(id).RestartCount; n < 1 || wait != 0 {
			t.Errorf("%d restarts, the next one would come after %s", n, 2*wait)
		}
	})
	if _, err := e.tryCreate(request{cmd: program, c: container.Config{Labels: map[string]string{unhealthyLabel: "heal"}}}); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "none, restart, stop, kill") {
		t.Errorf("a word that there is not: %v", err)
	}
}

// TestHealthIsNeverOld: who looks at a container that is restarted never sees that its last life was healthy.
func TestHealthIsNeverOld(t *testing.T) {
	e := newEngine(t)
	check := &container.HealthConfig{Test: []string{"CMD-SHELL", "test -e /ok"}, Interval: 200 * time.Millisecond, Retries: 1}
	id := e.run(request{cmd: sh("rm /ok 2>/dev/null || touch /ok; exec sleep 3600"), c: container.Config{Healthcheck: check}})
	c, _ := e.index.find(id)
	e.eventually("healthy", func() bool { return c.healthState().Status == container.Healthy })
	first, seen := e.rec(id).StartedAt, make(chan bool)
	go func() {
		stale := false
		for {
			r, h := c.record(), c.healthState()
			if r.StartedAt != first && r.Status.Alive() {
				stale = stale || h.Status == container.Healthy
				if h.Status == container.Unhealthy {
					seen <- stale
					return
				}
			}
		}
	}()
	now := 0
	if err := e.Restart(context.Background(), id, StopOptions{Timeout: &now}); err != nil {
		t.Fatal(err)
	}
	if <-seen {
		t.Error("its second life was healthy before it was probed")
	}
	if err := e.Stop(context.Background(), id, StopOptions{Timeout: &now}); err != nil {
		t.Fatal(err)
	}
	if h := c.healthState(); h.Status != container.Unhealthy || len(h.Log) == 0 {
		t.Errorf("ended: %+v", h)
	}
}

// TestPausedIsNotProbed: what stands still is not unhealthy, and a probe that stood still with it says nothing.
func TestPausedIsNotProbed(t *testing.T) {
	e := newEngine(t)
	check := &container.HealthConfig{Test: []string{"CMD-SHELL", "touch /began; sleep 0.3"}, Interval: 20 * time.Millisecond, Timeout: 4 * time.Second, Retries: 1}
	id := e.run(request{cmd: sh("sleep 3600"), c: container.Config{Healthcheck: check}})
	c, _ := e.index.find(id)
	e.eventually("healthy", func() bool { return c.healthState().Status == container.Healthy })
	if err := e.Pause(context.Background(), id, PauseOptions{}); err != nil {
		t.Fatal(err)
	}
	before := len(e.happened(id))
	time.Sleep(4500 * time.Millisecond) // longer than a probe may take
	var probes int
	for _, event := range e.happened(id)[before:] {
		if strings.HasPrefix(event, "exec_create") {
			probes++
		}
	}
	if h := c.healthState(); probes > 0 || h.Status != container.Healthy {
		t.Errorf("while it was paused: %d probes, %+v", probes, h)
	}
	if err := e.Unpause(context.Background(), id); err != nil {
		t.Fatal(err)
	}
	last := c.healthState().Log
	e.eventually("probed again", func() bool { h := c.healthState(); return h.Log[len(h.Log)-1] != last[len(last)-1] })
	if h := c.healthState(); h.Status != container.Healthy {
		t.Errorf("%+v", h)
	}
}

// TestProbeEndsWhole: a probe that takes too long ends with all that it has started, also in a session of its own.
func TestProbeEndsWhole(t *testing.T) {
	e := newEngine(t)
	check := &container.HealthConfig{Test: []string{"CMD-SHELL", "sleep 71 & (sleep 72 & setsid sleep 73); sleep 74"}, Interval: time.Second, Timeout: 300 * time.Millisecond, Retries: 1}
	id := e.run(request{cmd: sh("sleep 3600 & wait"), c: container.Config{Healthcheck: check}})
	c, _ := e.index.find(id)
	e.eventually("unhealthy", func() bool { return c.healthState().Status == container.Unhealthy })
	g, err := cgroup.Open(e.rec(id).Cgroup)
	if err != nil {
		t.Fatal(err)
	}
	e.eventually("only its own processes are left", func() bool {
		pids, err := g.Procs()
		return err == nil && len(pids) == 2
	})
}

func TestWaitHealthy(t *testing.T) {
	e := newEngine(t)
	ctx := context.Background()
	for _, row := range []struct {
		test, program, want string
	}{
		{"true", "sleep 3600", ""},
		{"echo connection refused; exit 2", "sleep 3600", "is unhealthy because its check failed 2 times in a row, the last time with exit code 2: connection refused"},
		{"true", "echo no config; exit 3", "is not running, and was not healthy: sh ended by itself, with exit code 3, after it had said: no config"},
	} {
		check := failing(row.test)
		if strings.Contains(row.program, "exit") {
			check.Interval = time.Hour
		}
		id := e.run(request{cmd: sh(row.program), c: container.Config{Healthcheck: check}})
		err := WaitHealthy(ctx, e.Service, id)
		if row.want == "" && err != nil || row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)) {
			t.Errorf("%s: %v", row.test, err)
		}
	}
	id := e.run(request{cmd: sh("sleep 3600")})
	if err := WaitHealthy(ctx, e.Service, id); !errdefs.IsInvalidArgument(err) {
		t.Errorf("without a check: %v", err)
	}
}
