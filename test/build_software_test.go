package test

import (
	"path/filepath"
	"strings"
	"testing"
)

// TestRealDockerfiles builds nginx, Redis, PostgreSQL and a Python web application with apt, by both clients, and uses what comes out.
func TestRealDockerfiles(t *testing.T) {
	way, err := listenForApt()
	if err != nil {
		t.Fatal(err)
	}
	defer way.Close()
	e := newEngine(shared, t.TempDir())
	if err := e.start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := e.shutdown(); err != nil {
			t.Error(err)
		}
	}()
	if err := e.load("debian-12"); err != nil {
		t.Fatal(err)
	}
	software, err := filepath.Abs("testdata/software")
	if err != nil {
		t.Fatal(err)
	}
	withBuildx(t)
	do := func(client string, args ...string) string {
		t.Helper()
		out, err := e.run(client, args...)
		if err != nil {
			t.Fatalf("%s %s: %v\n%s", client, strings.Join(args, " "), err, out)
		}
		return strings.TrimSpace(out)
	}
	build := func(client, name string, more ...string) string {
		t.Helper()
		args := append([]string{"build", "--progress=plain", "-t", name + ":built", "--build-context", "files=" + filepath.Join(repository(), "test/images/files")}, aptArguments()...)
		return do(client, append(append(args, more...), filepath.Join(software, name))...)
	}
	build("wherry", "nginx")
	build("docker", "redis")
	build("wherry", "postgres")
	build("docker", "python", "--build-arg", "VERSION=built")

	do("wherry", "run", "-d", "--name", "nginx", "-p", "30080:80", "-p", "30081:81", "-e", "EXTRA_PORT=81", "nginx:built")
	do("wherry", "run", "-d", "--name", "redis", "-p", "30379:6379", "redis:built")
	do("wherry", "run", "-d", "--name", "db", "-e", "POSTGRES_PASSWORD=secret", "-p", "30432:5432", "postgres:built")
	do("wherry", "run", "-d", "--name", "web", "-p", "30082:8080", "-e", "COUNT_FILE=/tmp/n", "--health-cmd", "true", "python:built")
	fetch(t, "http://127.0.0.1:30080/", "hello from a built nginx")
	fetch(t, "http://127.0.0.1:30081/", "hello from port 81")
	client(t, "healthy", filepath.Join(shared.bin, "wherry"), "-H", e.host(), "inspect", "-f", "{{.State.Health.Status}}", "nginx")
	client(t, "PONG", "redis-cli", "-p", "30379", "ping")
	client(t, "OK", "redis-cli", "-p", "30379", "set", "ferry", "boat")
	client(t, "500500", "psql", "-At", "postgresql://postgres:secret@127.0.0.1:30432/postgres", "-c", "select sum(n) from generate_series(1, 1000) n")
	fetch(t, "http://127.0.0.1:30082/", "version built visit 1 ")
	if user := do("wherry", "exec", "web", "id", "-un"); user != "www-data" {
		t.Errorf("the application runs as %s", user)
	}

	// Nothing of the way to Debian is in an image: neither what apt fetched nor the proxy.
	for _, name := range []string{"nginx", "redis", "postgres", "python"} {
		config := do("wherry", "image", "inspect", name+":built") + do("wherry", "history", "--no-trunc", name+":built")
		if strings.Contains(config, aptProxyAddress) {
			t.Errorf("%s: the proxy is in its configuration", name)
		}
		if out := do("wherry", "run", "--rm", "--entrypoint", "", name+":built", "sh", "-c", "ls -A /var/cache/apt /var/lib/apt/lists | grep -c _dists_ || true"); !strings.HasSuffix(out, "0") {
			t.Errorf("%s: apt's lists are in it: %s", name, out)
		}
	}

	// Another version of the application builds what follows its argument, and no apt again.
	if out := build("docker", "python", "--build-arg", "VERSION=again"); strings.Contains(out, "Setting up") {
		t.Errorf("Python was installed again:\n%s", out)
	}
	if out := do("wherry", "run", "--rm", "python:built", "cat", "/app/VERSION"); out != "version again" {
		t.Errorf("it has %q", out)
	}
}
