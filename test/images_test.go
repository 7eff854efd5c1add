package test

import (
	"strings"
	"testing"
	"time"
)

// TestCommonImages: images whose entrypoints do what the official ones do (own a volume, step down from root by gosu or setpriv, make a
// database, write configuration) run unchanged by default and under --strict, and what runs in them does real work.
func TestCommonImages(t *testing.T) {
	e := newEngine(shared, t.TempDir())
	if err := e.start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := e.shutdown(); err != nil {
			t.Error(err)
		}
	}()
	for _, name := range []string{"nginx-1", "redis-1", "postgres-1", "python-1", "node-1", "debian-12"} {
		if err := e.load(name); err != nil {
			t.Fatal(err)
		}
	}
	for mode, options := range map[string][]string{"default": nil, "strict": {"--strict"}} {
		t.Run(mode, func(t *testing.T) {
			c := &commonImages{t: t, e: e, mode: mode, options: options}
			t.Run("nginx", c.nginx)
			t.Run("redis", c.redis)
			t.Run("postgres", c.postgres)
			t.Run("python", c.python)
			t.Run("node", c.node)
			t.Run("debian", c.debian)
		})
	}
	t.Run("what only the default can", func(t *testing.T) { (&commonImages{t: t, e: e}).debianAsRoot(t) })
	t.Run("what strict takes away", func(t *testing.T) { strictTakesAway(t, e) })
}

// commonImages are run with the same options.
type commonImages struct {
	t       *testing.T
	e       *engine
	mode    string
	options []string
}

// wherry runs a command that must succeed.
func (c *commonImages) wherry(t *testing.T, args ...string) string {
	t.Helper()
	if args[0] == "run" {
		args = append(append([]string{"run"}, c.options...), args[1:]...)
	}
	out, err := c.e.run("wherry", args...)
	if err != nil {
		t.Fatalf("wherry %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(out)
}

// serve starts a server that is asked by programs inside; it goes with the test.
func (c *commonImages) serve(t *testing.T, name string, args ...string) (container string) {
	t.Helper()
	container = name + "-" + c.mode
	c.wherry(t, append([]string{"run", "-d", "--name", container}, args...)...)
	t.Cleanup(func() {
		if t.Failed() {
			out, _ := c.e.run("wherry", "logs", container)
			t.Log(out)
		}
		c.wherry(t, "rm", "-f", "-v", container)
	})
	return container
}

// answers repeats an exec until it prints want.
func (c *commonImages) answers(t *testing.T, container, want string, args ...string) {
	t.Helper()
	var out string
	err := eventually(60*time.Second, func() (err error) {
		if out, err = c.e.run("wherry", append([]string{"exec", container}, args...)...); err == nil && !strings.Contains(out, want) {
			t.Fatalf("%v prints %q, not %q", args, out, want)
		}
		return err
	})
	if err != nil {
		t.Fatalf("%v: %v: %s", args, err, out)
	}
}

// users are the owners of all processes of a container but those of ps itself.
func (c *commonImages) users(t *testing.T, container string) string {
	t.Helper()
	seen := map[string]bool{}
	var list []string
	for _, line := range strings.Split(c.wherry(t, "exec", container, "ps", "-eo", "user:20,comm", "--no-headers"), "\n") {
		if f := strings.Fields(line); len(f) == 2 && f[1] != "ps" && !seen[f[0]] {
			seen[f[0]] = true
			list = append(list, f[0])
		}
	}
	return strings.Join(list, " ")
}

func (c *commonImages) stops(t *testing.T, container string) {
	t.Helper()
	c.wherry(t, "stop", "-t", "30", container)
	if code := c.wherry(t, "inspect", "-f", "{{.State.ExitCode}}", container); code != "0" {
		t.Errorf("exit code %s after stop", code)
	}
}

const fetchByBash = `exec 3<>/dev/tcp/127.0.0.1/$0; printf 'GET / HTTP/1.0\r\n\r\n' >&3; cat <&3`

func (c *commonImages) nginx(t *testing.T) {
	id := c.serve(t, "nginx", "-e", "EXTRA_PORT=81", "nginx:1")
	c.answers(t, id, "hello from nginx", "bash", "-c", fetchByBash, "80")
	c.answers(t, id, "hello from port 81", "bash", "-c", fetchByBash, "81")
	if users := c.users(t, id); users != "root www-data" {
		t.Errorf("its processes are of %s", users)
	}
	c.stops(t, id)
}

func (c *commonImages) redis(t *testing.T) {
	for _, by := range []string{"gosu", "setpriv"} {
		id := c.serve(t, "redis-"+by, "-e", "DROP_BY="+by, "-v", "/data", "redis:1")
		c.answers(t, id, "PONG", "redis-cli", "ping")
		c.answers(t, id, "OK", "redis-cli", "set", "ferry", "boat")
		c.answers(t, id, "boat", "redis-cli", "get", "ferry")
		c.answers(t, id, "OK", "redis-cli", "save")
		c.answers(t, id, "redis", "stat", "-c", "%U", "/data/dump.rdb")
		if users := c.users(t, id); users != "redis" {
			t.Errorf("by %s its processes are of %s", by, users)
		}
		c.stops(t, id)
	}
}

func (c *commonImages) postgres(t *testing.T) {
	id := c.serve(t, "postgres", "-e", "POSTGRES_PASSWORD=secret", "-e", "POSTGRES_DB=ferry", "-v", "/var/lib/postgresql/data", "postgres:1")
	sql := func(want, statement string) {
		t.Helper()
		// By the network, which the server that prepares the database does not have.
		c.answers(t, id, want, "psql", "-At", "postgresql://postgres:secret@127.0.0.1/ferry", "-c", statement)
	}
	sql("CREATE TABLE", "create table crossings (n int)")
	sql("INSERT 0 1000", "insert into crossings select generate_series(1, 1000)")
	sql("500500", "select sum(n) from crossings")
	if users := c.users(t, id); users != "postgres" {
		t.Errorf("its processes are of %s", users)
	}
	c.stops(t, id)
}

func (c *commonImages) python(t *testing.T) {
	id := c.serve(t, "python", "-u", "www-data", "-w", "/usr/share", "--stop-signal", "INT", "python:1", "python3", "-c",
		"import http.server as h\ntry: h.ThreadingHTTPServer(('', 80), h.SimpleHTTPRequestHandler).serve_forever()\nexcept KeyboardInterrupt: pass")
	c.answers(t, id, "Directory listing", "python3", "-c", "import urllib.request as u; print(u.urlopen('http://127.0.0.1:80/').read().decode())")
	if users := c.users(t, id); users != "www-data" {
		t.Errorf("its processes are of %s", users)
	}
	c.stops(t, id)
	out := c.wherry(t, "run", "--rm", "python:1", "sh", "-ec", `python3 -m venv --without-pip /venv
		mkdir -p /venv/lib/python3.11/site-packages/own; echo "import multiprocessing, sqlite3, ssl, ctypes" >/venv/lib/python3.11/site-packages/own/__init__.py
		. /venv/bin/activate
		python -c 'import own, sys; from concurrent.futures import ProcessPoolExecutor as P
with P(4) as p: print(sys.prefix, sum(p.map(abs, range(-100, 1))))'`)
	if out != "/venv 5050" {
		t.Errorf("in a venv: %q", out)
	}
}

func (c *commonImages) node(t *testing.T) {
	id := c.serve(t, "node", "-u", "node", "node:1", "server.js") // which the entrypoint takes for node's
	c.answers(t, id, "uid 1000 sums 500500 2001000 4501500 8002000", "node", "-e",
		"require('http').get('http://127.0.0.1/', r => r.pipe(process.stdout))")
	if users := c.users(t, id); users != "node" {
		t.Errorf("its processes are of %s", users)
	}
	c.stops(t, id)
}

// debian is what works everywhere.
func (c *commonImages) debian(t *testing.T) {
	out := c.wherry(t, "run", "--rm", "debian:12", "sh", "-ec", `ping -c 1 -q 127.0.0.1 | grep -c '1 received'
		mkdir t; touch t/a t/b; chown 1:2 t/a; chown 1000:1000 t/b; tar cf t.tar t; rm -r t; tar xpf t.tar; stat -c %u:%g t/a t/b
		useradd -m -s /bin/sh sailor; stat -c %U /home/sailor; su sailor -c 'id -un; echo $HOME'`)
	if out != "1\n1:2\n1000:1000\nsailor\nsailor\n/home/sailor" {
		t.Errorf("%q", out)
	}
	out = c.wherry(t, "run", "--rm", "debian:12", "sh", "-ec", `mkdir -p p/DEBIAN p/opt; echo content >p/opt/file
		printf 'Package: ferry\nVersion: 1\nArchitecture: all\nMaintainer: nobody <nobody@example.org>\nDescription: a test\n' >p/DEBIAN/control
		printf '#!/bin/sh\nset -e\nchown mail:mail /opt/file\nupdate-alternatives --install /usr/bin/ferry ferry /bin/true 1 >/dev/null\n' >p/DEBIAN/postinst; chmod 755 p/DEBIAN/postinst
		dpkg-deb -b p ferry.deb >/dev/null; dpkg -i ferry.deb >/dev/null; dpkg-query -W ferry; stat -c %U /opt/file; readlink -f /usr/bin/ferry; dpkg -r ferry >/dev/null`)
	if !strings.HasPrefix(out, "ferry\t1\nmail\n/usr/bin/true") {
		t.Errorf("a package: %q", out)
	}
}

// debianAsRoot is what needs more than six capabilities, or programs that gain rights.
func (c *commonImages) debianAsRoot(t *testing.T) {
	out := c.wherry(t, "run", "--rm", "debian:12", "bash", "-ec", `cp /usr/bin/sleep /usr/local/bin/bound; setcap cap_net_bind_service=+ep /usr/local/bin/bound; getcap /usr/local/bin/bound
		useradd sailor; cp /usr/bin/id /usr/local/bin/asroot; chmod 4755 /usr/local/bin/asroot; su sailor -c asroot | grep -o euid=0
		su sailor -c 'ping -c 1 -q 127.0.0.1' | grep -c '1 received'
		su sailor -c '/usr/local/bin/bound 10 >/dev/null & sleep 0.1; grep CapEff /proc/$!/status' | cut -f2
		echo 'sailor:old' | chpasswd; su sailor -c 'printf "old\nNew-Word-17\nNew-Word-17\n" | passwd 2>&1' | grep -o 'updated successfully'
		chroot / id -u`)
	if out != "/usr/local/bin/bound cap_net_bind_service=ep\neuid=0\n1\n0000000000000400\nupdated successfully\n0" {
		t.Errorf("%q", out)
	}
}

// strictTakesAway is the price of it, as docs/security.md states it.
func strictTakesAway(t *testing.T, e *engine) {
	for what, script := range map[string]string{
		"a setuid program": "cp /usr/bin/id /usr/local/bin/asroot; chmod 4755 /usr/local/bin/asroot; setpriv --reuid=1000 --clear-groups asroot | grep -o euid=0",
		"setcap":           "cp /usr/bin/id /usr/local/bin/bound; setcap cap_net_bind_service=+ep /usr/local/bin/bound",
		"chroot":           "chroot / id",
	} {
		if out, err := e.run("wherry", "run", "--rm", "--strict", "debian:12", "sh", "-c", script); err == nil {
			t.Errorf("%s works: %s", what, out)
		}
	}
}
