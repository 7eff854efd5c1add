package test

import (
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// TestRealSoftware runs nginx, Redis, PostgreSQL and a Python web server with limits, volumes and published ports, talks to each with
// its own client, kills the engine in between, moves PostgreSQL to a new tag and finds its data again.
func TestRealSoftware(t *testing.T) {
	e := newEngine(shared, t.TempDir())
	if err := e.start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := e.shutdown(); err != nil {
			t.Error(err)
		}
	}()
	for _, name := range []string{"nginx-1", "redis-1", "postgres-1", "postgres-2", "web-1", "web-2"} {
		if err := e.load(name); err != nil {
			t.Fatal(err)
		}
	}
	wherry := func(args ...string) string {
		t.Helper()
		out, err := e.run("wherry", args...)
		if err != nil {
			t.Fatalf("wherry %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return strings.TrimSpace(out)
	}
	wherry("run", "-d", "--name", "nginx", "-m", "128m", "--cpus", "1", "-p", "29080:80", "nginx:1")
	wherry("run", "-d", "--name", "redis", "-m", "128m", "-v", "redisdata:/data", "-p", "29379:6379", "redis:1")
	wherry("run", "-d", "--name", "db", "-m", "512m", "-e", "POSTGRES_PASSWORD=secret", "-v", "pgdata:/var/lib/postgresql/data", "-p", "29432:5432", "postgres:1")
	wherry("run", "-d", "--name", "web", "-m", "128m", "--pids-limit", "64", "-v", "counts:/counts", "-u", "0", "-e", "COUNT_FILE=/counts/n", "-p", "29081:8080", "web:1")

	fetch(t, "http://127.0.0.1:29080/", "hello from nginx")
	client(t, "PONG", "redis-cli", "-p", "29379", "ping")
	client(t, "OK", "redis-cli", "-p", "29379", "set", "ferry", "boat")
	psql(t, "CREATE TABLE", "create table crossings (n int)")
	psql(t, "INSERT 0 1000", "insert into crossings select generate_series(1, 1000)")
	fetch(t, "http://127.0.0.1:29081/", "version 1 visit 1 ")

	if err := e.kill(); err != nil {
		t.Fatal(err)
	}
	fetch(t, "http://127.0.0.1:29080/", "hello from nginx")
	psql(t, "1000", "select count(*) from crossings")
	if err := e.start(); err != nil {
		t.Fatal(err)
	}
	client(t, "boat", "redis-cli", "-p", "29379", "get", "ferry")
	fetch(t, "http://127.0.0.1:29081/", "version 1 visit 2 ")

	wherry("stop", "db")
	if code := wherry("inspect", "-f", "{{.State.ExitCode}}", "db"); code != "0" {
		t.Errorf("PostgreSQL's exit code after stop is %s, not 0:\n%s", code, wherry("logs", "--tail", "20", "db"))
	}
	wherry("rm", "db")
	wherry("run", "-d", "--name", "db", "-m", "512m", "-e", "POSTGRES_PASSWORD=secret", "-v", "pgdata:/var/lib/postgresql/data", "-p", "29432:5432", "postgres:2")
	psql(t, "500500", "select sum(n) from crossings")
	if out := wherry("exec", "db", "cat", "/etc/postgres-image"); out != "2" {
		t.Errorf("the new container is not of the new tag: %s", out)
	}
	wherry("rm", "-f", "web")
	wherry("run", "-d", "--name", "web", "-v", "counts:/counts", "-u", "0", "-e", "COUNT_FILE=/counts/n", "-p", "29081:8080", "web:2")
	fetch(t, "http://127.0.0.1:29081/", "version 2 visit 3 ")
}

func fetch(t *testing.T, url, want string) {
	t.Helper()
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	err := eventually(30*time.Second, func() error {
		r, err := client.Get(url)
		if err != nil {
			return err
		}
		defer r.Body.Close()
		body, err := io.ReadAll(r.Body)
		if err == nil && !strings.Contains(string(body), want) {
			t.Fatalf("%s answers %q, not %q", url, body, want)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// client runs a program until it can be reached and prints want.
func client(t *testing.T, want, name string, args ...string) {
	t.Helper()
	err := eventually(60*time.Second, func() error {
		out, err := exec.Command(name, args...).CombinedOutput()
		if err != nil || !strings.Contains(string(out), want) {
			return fmt.Errorf("%s %s: %v: %q, not %q", name, strings.Join(args, " "), err, out, want)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func psql(t *testing.T, want, statement string) {
	t.Helper()
	client(t, want, "psql", "-At", "postgresql://postgres:secret@127.0.0.1:29432/postgres", "-c", statement)
}
