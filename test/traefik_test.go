package test

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// scratchImage builds an image of one program.
func scratchImage(t *testing.T, e *engine, name, program string) {
	t.Helper()
	dir := t.TempDir()
	binary, err := os.ReadFile(program)
	ok(t, err, os.WriteFile(filepath.Join(dir, "program"), binary, 0o755),
		os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM scratch\nCOPY program /\nENTRYPOINT [\"/program\"]\n"), 0o644))
	if out, err := e.run("wherry", "build", "-q", "-t", name, dir); err != nil {
		t.Fatalf("build %s: %v\n%s", name, err, out)
	}
}

// TestTraefik runs Traefik's provider in a container that has the engine's socket, read-only as its documentation says. It finds containers
// by their labels and the engine's events, and routes to them as they come, become healthy, and go.
func TestTraefik(t *testing.T) {
	e := ownEngine(t, "busybox-1")
	scratchImage(t, e, "traefik:3", filepath.Join(clientsDir(), "traefik"))
	docker := func(args ...string) string {
		t.Helper()
		out, err := e.run("docker", args...)
		if err != nil {
			t.Fatalf("docker %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return strings.TrimSpace(out)
	}
	docker("network", "create", "web")
	docker("run", "-d", "--name", "traefik", "--network", "web", "-p", "127.0.0.1:0:8000", "-v", e.socket()+":/var/run/docker.sock:ro", "traefik:3")
	address := docker("port", "traefik", "8000/tcp")
	serve := func(name, rule string, more ...string) {
		t.Helper()
		args := append([]string{"run", "-d", "--name", name, "--network", "web", "--label", "traefik.enable=true"}, more...)
		if rule != "" {
			args = append(args, "--label", "traefik.http.routers."+name+".rule="+rule)
		}
		docker(append(args, "busybox:1", "sh", "-c", "mkdir -p /www/path && echo "+name+" | tee /www/path/index.html >/www/index.html && exec httpd -f -p 8080 -h /www")...)
	}
	port := func(service string) []string {
		return []string{"--label", "traefik.http.services." + service + ".loadbalancer.server.port=8080"}
	}
	serve("one", "Host(`one.test`)", port("one")...)
	serve("two", "Host(`two.test`) && PathPrefix(`/path`)", port("two")...)
	serve("three", "Host(`three.test`)", port("three")...)
	serve("unlabelled", "", "--label", "traefik.enable=false")
	routes(t, address, "one.test", "/", "one")
	routes(t, address, "two.test", "/path/", "two")
	routes(t, address, "two.test", "/", "404")
	routes(t, address, "three.test", "/", "three")
	routes(t, address, "unlabelled", "/", "404")

	// Containers go and come.
	docker("stop", "-t", "0", "one")
	routes(t, address, "one.test", "/", "404")
	docker("start", "one")
	routes(t, address, "one.test", "/", "one")
	docker("rm", "-f", "two")
	routes(t, address, "two.test", "/path/", "404")
	serve("four", "HostRegexp(`^fo.r\\.test$`)", port("four")...)
	routes(t, address, "four.test", "/", "four")
	// Two behind one name take turns.
	serve("more", "", "--label", "traefik.http.routers.three.rule=Host(`three.test`)", "--label", "traefik.http.services.three.loadbalancer.server.port=8080")
	routes(t, address, "three.test", "/", "more")
	routes(t, address, "three.test", "/", "three")
	// One that is not healthy is left out until it is.
	serve("sick", "Host(`sick.test`)", append(port("sick"), "--health-cmd", "test -e /tmp/well", "--health-interval", "100ms", "--health-retries", "1")...)
	ok(t, eventually(30*time.Second, func() error {
		if status := docker("inspect", "-f", "{{.State.Health.Status}}", "sick"); status != "unhealthy" {
			return fmt.Errorf("the container is %s", status)
		}
		return nil
	}))
	routes(t, address, "sick.test", "/", "404")
	docker("exec", "sick", "touch", "/tmp/well")
	routes(t, address, "sick.test", "/", "sick")
}

// routes waits until a request for a host and path is answered by the page or the status.
func routes(t *testing.T, address, host, path, want string) {
	t.Helper()
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	if err := eventually(30*time.Second, func() error {
		r, err := http.NewRequest("GET", "http://"+address+path, nil)
		if err != nil {
			return err
		}
		r.Host = host
		answer, err := client.Do(r)
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		body, err := io.ReadAll(answer.Body)
		if got := strings.TrimSpace(string(body)); got != want && fmt.Sprint(answer.StatusCode) != want {
			return fmt.Errorf("%s%s: %s %q, not %s: %w", host, path, answer.Status, got, want, err)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}
