package test

import (
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// shopAddress is where the balancer is published.
const shopAddress = "127.0.0.1:30090"

// shop is an application of a balancer, web servers, PostgreSQL and Redis, run by compose.
type shop struct {
	t   *testing.T
	e   *engine
	env []string
}

// answer is what one of the web servers said of itself.
type answer struct {
	version, visits, hits int
	host                  string
}

// TestShop: the application comes up in order and healthy, is scaled to ten behind its balancer, keeps its data over down and up, gets
// killed services back, and serves a new version. Who asks through the balancer meanwhile does not notice that services are scaled, that a new
// version is put beside the old one, or that the balancer itself is replaced: what compose would recreate, wherry replaces.
func TestShop(t *testing.T) {
	way, err := listenForApt()
	ok(t, err)
	defer way.Close()
	withBuildx(t)
	proxy := "http://" + aptProxyAddress
	s := &shop{t: t, e: ownEngine(t, "python-1", "nginx-1", "postgres-1", "redis-1"), env: []string{"http_proxy=" + proxy, "https_proxy=" + proxy, "PASSWORD=a-word"}}

	t.Cleanup(func() {
		if t.Failed() {
			for _, args := range [][]string{{"ps", "-a"}, {"inspect", "-f", "{{json .State}}", "shop-web-1"}, {"logs", "shop-web-1"}} {
				out, _ := s.e.run("docker", args...)
				t.Log(out)
			}
		}
	})
	s.compose("up", "-d", "--build", "--wait")
	first := s.ask()
	if first.version != 1 || first.visits != 1 || first.hits != 1 {
		t.Errorf("the first answer is %+v", first)
	}
	load := beginPaced(t, shopAddress, 20*time.Millisecond)
	s.compose("up", "-d", "--wait", "--scale", "web=10")
	before := s.hosts(10, 1)
	load.end(t, "scaled to ten")

	for _, service := range []string{"web", "db", "cache", "balancer"} {
		s.killed(service)
	}
	s.hosts(10, 1)

	s.compose("down")
	s.compose("up", "-d", "--wait", "--scale", "web=2")
	now := s.ask()
	if now.visits <= before.visits || now.hits <= before.hits {
		t.Errorf("after down and up: %+v, before: %+v", now, before)
	}

	// The next version beside the old one, and then in its place.
	s.env = append(s.env, "TAG=2")
	old := strings.Fields(s.compose("ps", "-q", "web"))
	s.compose("build", "web")
	load = beginPaced(t, shopAddress, 20*time.Millisecond)
	s.compose("up", "-d", "--wait", "--no-recreate", "--scale", "web=4", "web")
	time.Sleep(1500 * time.Millisecond) // each of the balancer's processes keeps what it is told of names for a second
	s.docker(append([]string{"rm", "-f"}, old...)...)
	s.compose("up", "-d", "--wait", "--scale", "web=2")
	last := s.hosts(2, 2)
	load.end(t, "rolled to a new version")
	if last.visits <= now.visits || last.hits <= now.hits {
		t.Errorf("of the new version: %+v, before: %+v", last, now)
	}

	// Another balancer, which compose takes for its own.
	load = beginPaced(t, shopAddress, 20*time.Millisecond)
	balancer := wherryOf(t, s.e, "replace", "-q", "shop-balancer-1", "nginx:1")
	s.compose("up", "-d", "--wait", "--scale", "web=2")
	load.end(t, "the balancer is replaced")
	if got := strings.TrimSpace(s.compose("ps", "-q", "--no-trunc", "balancer")); got != balancer {
		t.Errorf("%s took the balancer's place, and compose has %s", balancer, got)
	}
	s.compose("down", "-v", "--rmi", "local", "-t", "0")
	if left := s.docker("ps", "-aq") + s.docker("volume", "ls", "-q"); left != "" {
		t.Errorf("left: %s", left)
	}
}

func (s *shop) compose(args ...string) string {
	s.t.Helper()
	dir, err := filepath.Abs("testdata/shop")
	ok(s.t, err)
	return runClient(s.t, s.e, dir, s.env, "docker", append([]string{"compose"}, args...)...)
}

func (s *shop) docker(args ...string) string {
	s.t.Helper()
	return strings.TrimSpace(runClient(s.t, s.e, ".", nil, "docker", args...))
}

// ask asks through the balancer until there is an answer.
func (s *shop) ask() (a answer) {
	s.t.Helper()
	ok(s.t, eventually(60*time.Second, func() (err error) {
		a, err = s.askOnce()
		return err
	}))
	return a
}

func (s *shop) askOnce() (a answer, err error) {
	web := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	got, err := web.Get("http://" + shopAddress + "/")
	if err != nil {
		return a, err
	}
	defer got.Body.Close()
	body, err := io.ReadAll(got.Body)
	if err != nil {
		return a, err
	}
	if _, err := fmt.Sscanf(string(body), "version %d visits %d hits %d on %s\n", &a.version, &a.visits, &a.hits, &a.host); err != nil {
		return a, fmt.Errorf("%s: %w: %s", got.Status, err, body)
	}
	return a, nil
}

// hosts waits until so many web servers of a version have answered, and nobody else among as many answers. It returns the last.
func (s *shop) hosts(count, version int) (last answer) {
	s.t.Helper()
	ok(s.t, eventually(60*time.Second, func() error {
		seen := map[string]bool{}
		for range 10 * count {
			var err error
			if last, err = s.askOnce(); err != nil {
				return err
			}
			if last.version != version {
				return fmt.Errorf("it is still version %d", last.version)
			}
			seen[last.host] = true
		}
		if len(seen) != count {
			return fmt.Errorf("%d of %d answer", len(seen), count)
		}
		return nil
	}))
	return last
}

// killed kills the first process of a service from outside, as the kernel does when there is no memory left, and waits for the next.
func (s *shop) killed(service string) {
	s.t.Helper()
	id := strings.Fields(s.compose("ps", "-q", service))[0]
	pid, err := strconv.Atoi(s.docker("inspect", "-f", "{{.State.Pid}}", id))
	ok(s.t, err)
	ok(s.t, syscall.Kill(pid, syscall.SIGKILL))
	ok(s.t, eventually(60*time.Second, func() error {
		state := s.docker("inspect", "-f", "{{.RestartCount}} {{.State.Status}} {{.State.Health.Status}}", id)
		if state != "1 running healthy" {
			return fmt.Errorf("%s is %s", service, state)
		}
		return nil
	}))
}
