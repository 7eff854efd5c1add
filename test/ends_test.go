package test

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestEngineEndsWhateverIsUnderWay: nobody who waits, and nothing that hangs, keeps the engine after SIGTERM. What was under way is there, or
// is not, when it comes again; it works.
func TestEngineEndsWhateverIsUnderWay(t *testing.T) {
	e := newEngine(shared, t.TempDir())
	e.args = []string{"--cgroup-parent", "/" + run() + "/ends"}
	ok(t, e.start())
	defer func() { ok(t, e.shutdown()) }()
	ok(t, e.load("busybox-1"))
	n := &ending{t: t, e: e, silent: silentRegistry(t), halting: haltingRegistry(t)}
	n.must("tag", "busybox:1", n.silent+"/ends/box:1")
	n.must("run", "-d", "--name", "deaf", "--stop-timeout", "300", "busybox:1", "sh", "-c", "trap '' TERM; while :; do sleep 1; done")
	n.must("run", "-d", "--name", "talker", "busybox:1", "sh", "-c", "mkfifo /fifo; dd if=/dev/zero of=/big bs=1M count=64; while :; do echo line; sleep 1; done")
	n.must("create", "--name", "still", "busybox:1", "true")
	for _, row := range []struct {
		name  string
		begin func()
	}{
		{"nothing", func() {}},
		{"pull from a registry that does not answer", func() { n.client("pull", n.silent+"/ends/other:1") }},
		{"pull of a layer that does not come", func() { n.client("pull", n.halting+"/ends/box:1") }},
		{"push to a registry that does not answer", func() { n.client("push", n.silent+"/ends/box:1") }},
		{"a build's step", func() { n.client("build", "--no-cache", n.context("FROM busybox:1\nRUN sleep 1000\n")) }},
		{"a build from a registry that does not answer", func() { n.client("build", n.context("FROM "+n.silent+"/ends/base:1\n")) }},
		{"a build's context that does not come", func() { n.hang("POST", "/build?version=1", "application/x-tar") }},
		{"an image's load that does not come", func() { n.hang("POST", "/images/load", "application/x-tar") }},
		{"files that do not come, of a container that runs", func() { n.hang("PUT", "/containers/talker/archive?path=/tmp", "application/x-tar") }},
		{"a start that waits for files that do not come", func() {
			n.hang("PUT", "/containers/still/archive?path=/tmp", "application/x-tar")
			time.Sleep(200 * time.Millisecond)
			n.client("start", "still")
			n.client("start", "still")
			n.client("rm", "-f", "still")
		}},
		{"files that nobody reads", func() { n.deaf("GET", "/containers/talker/archive?path=/big") }},
		{"an export that nobody reads", func() { n.deaf("GET", "/containers/talker/export") }},
		{"an image that nobody reads", func() { n.deaf("GET", "/images/busybox:1/get") }},
		{"streams", func() {
			n.client("exec", "talker", "sleep", "1000")
			n.client("exec", "-i", "talker", "cat", "/fifo")
			n.client("attach", "talker")
			n.client("logs", "-f", "talker")
			n.client("events")
			n.client("wait", "talker")
			n.client("stats")
			n.client("run", "--rm", "busybox:1", "sleep", "1000")
			n.deaf("POST", "/containers/talker/attach?stream=1&stdout=1&logs=1")
		}},
		{"a stop with a long timeout", func() { n.client("stop", "deaf") }},
		{"a restart with a long timeout", func() { n.client("restart", "deaf") }},
		{"a replacement that waits for health", func() {
			n.client("replace", "talker", n.image("sick:1", "FROM busybox:1\nHEALTHCHECK --interval=100ms --timeout=100s CMD sleep 50\n"))
		}},
		{"a replacement whose old container does not end", func() {
			n.client("replace", "--settle", "1ms", "--drain", "0s", "deaf", n.image("other:1", "FROM busybox:1\nLABEL other=1\n"))
			n.wait("inspect", "deaf.old")
		}},
		{"a replacement whose connections do not end", func() {
			n.must("run", "-d", "--name", "server", "-p", "127.0.0.1:18080:80", "busybox:1", "httpd", "-f", "-p", "80")
			ok(t, eventually(20*time.Second, func() error {
				c, err := net.Dial("tcp", "127.0.0.1:18080")
				if err == nil {
					n.connections = append(n.connections, c)
				}
				return err
			}))
			n.client("replace", "--settle", "1ms", "--drain", "1h", "server", "other:1")
			n.wait("inspect", "server.old")
		}},
		{"a shim that does not answer", func() {
			pid := shimPid(strings.TrimSpace(n.must("inspect", "-f", "{{.Id}}", "talker")))
			ok(t, syscall.Kill(pid, syscall.SIGSTOP))
			t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGCONT) })
			n.client("exec", "talker", "true")
			n.client("stop", "-t", "100", "talker")
			n.client("pause", "talker")
			n.client("rm", "-f", "talker")
			n.client("restart", "talker")
		}},
	} {
		row.begin()
		time.Sleep(700 * time.Millisecond) // it is under way by then, or the row shows less than it could
		if err := e.stop(); err != nil {   // exit status 1 says that it has given up: its log has where
			log, _ := os.ReadFile(e.dir + "/wherryd.log")
			t.Errorf("%s: %v: %s", row.name, err, log)
			_ = e.kill()
		}
		n.settle()
		ok(t, e.start())
	}
}

type ending struct {
	t               *testing.T
	e               *engine
	silent, halting string // registries
	clients         []*exec.Cmd
	connections     []net.Conn
}

func (n *ending) must(args ...string) string {
	n.t.Helper()
	out, err := n.e.run("wherry", args...)
	if err != nil {
		n.t.Fatalf("wherry %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return out
}

// client runs a command that is not waited for.
func (n *ending) client(args ...string) {
	cmd := exec.Command(filepath.Join(shared.bin, "wherry"), args...)
	cmd.Env = append(os.Environ(), n.e.environment()...)
	ok(n.t, cmd.Start())
	n.clients = append(n.clients, cmd)
}

// wait has a command succeed.
func (n *ending) wait(args ...string) {
	n.t.Helper()
	ok(n.t, eventually(20*time.Second, func() error {
		_, err := n.e.run("wherry", args...)
		return err
	}))
}

// hang sends a request whose body does not come.
func (n *ending) hang(method, path, kind string) {
	c, err := net.Dial("unix", n.e.socket())
	ok(n.t, err)
	n.connections = append(n.connections, c)
	var first bytes.Buffer
	w := tar.NewWriter(&first)
	ok(n.t, w.WriteHeader(&tar.Header{Name: "file", Size: 1 << 20, Mode: 0o644}))
	fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: engine\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n", method, path, kind, 10<<20)
	_, err = c.Write(first.Bytes())
	ok(n.t, err)
}

// deaf sends a request whose answer is not read.
func (n *ending) deaf(method, path string) {
	c, err := net.Dial("unix", n.e.socket())
	ok(n.t, err)
	n.connections = append(n.connections, c)
	fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: engine\r\nContent-Length: 0\r\n\r\n", method, path)
}

func (n *ending) settle() {
	for _, c := range n.connections {
		c.Close()
	}
	for _, c := range n.clients {
		_ = c.Process.Kill()
		_ = c.Wait()
	}
	n.clients, n.connections = nil, nil
}

func (n *ending) context(dockerfile string) string {
	dir := n.t.TempDir()
	ok(n.t, os.WriteFile(dir+"/Dockerfile", []byte(dockerfile), 0o644))
	return dir
}

func (n *ending) image(name, dockerfile string) string {
	n.must("build", "-q", "-t", name, n.context(dockerfile))
	return name
}

// silentRegistry takes connections and says nothing.
func silentRegistry(t *testing.T) (address string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ok(t, err)
	t.Cleanup(func() { l.Close() })
	go func() { // ends with the listener
		for {
			if _, err := l.Accept(); err != nil {
				return
			}
		}
	}()
	return l.Addr().String()
}

// haltingRegistry has a manifest of any name; what it names does not come.
func haltingRegistry(t *testing.T) (address string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ok(t, err)
	over := make(chan struct{})
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.Contains(r.URL.Path, "/manifests/") {
			w.Header().Set("Content-Length", "1000000")
			_, _ = io.WriteString(w, "first")
			_ = http.NewResponseController(w).Flush()
			select {
			case <-over:
			case <-r.Context().Done():
			}
			return
		}
		const kind = "application/vnd.oci.image.manifest.v1+json"
		part := func(of, digit string) string {
			return fmt.Sprintf(`{"mediaType":"application/vnd.oci.image.%s","digest":"sha256:%s","size":1000000}`, of, strings.Repeat(digit, 64))
		}
		w.Header().Set("Content-Type", kind)
		fmt.Fprintf(w, `{"schemaVersion":2,"mediaType":%q,"config":%s,"layers":[%s]}`, kind, part("config.v1+json", "1"), part("layer.v1.tar+gzip", "2"))
	})}
	go func() {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	}()
	t.Cleanup(func() {
		close(over)
		server.Close()
	})
	return l.Addr().String()
}
