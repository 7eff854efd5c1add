package testcontainers

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	tc "github.com/testcontainers/testcontainers-go"
	tcexec "github.com/testcontainers/testcontainers-go/exec"
	"github.com/testcontainers/testcontainers-go/wait"
)

const image = "busybox:1"

// serving is a web server that says when it is ready, with a page that it is given before it starts.
func serving(page string, more ...tc.ContainerCustomizer) []tc.ContainerCustomizer {
	return append([]tc.ContainerCustomizer{
		tc.WithFiles(tc.ContainerFile{Reader: strings.NewReader(page), ContainerFilePath: "/www/index.html", FileMode: 0o644}),
		tc.WithCmd("sh", "-c", "echo ready to serve; exec httpd -f -p 8080 -h /www"),
		tc.WithExposedPorts("8080/tcp"),
		tc.WithWaitStrategy(wait.ForHTTP("/").WithPort("8080/tcp")),
	}, more...)
}

func run(t *testing.T, options ...tc.ContainerCustomizer) *tc.DockerContainer {
	t.Helper()
	c, err := tc.Run(t.Context(), image, options...)
	tc.CleanupContainer(t, c, tc.StopTimeout(0))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func get(t *testing.T, c *tc.DockerContainer) string {
	t.Helper()
	address, err := c.PortEndpoint(t.Context(), "8080/tcp", "http")
	check(t, err)
	r, err := http.Get(address)
	check(t, err)
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	check(t, err)
	return string(body)
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// exec runs a command and gives its exit status and what it printed.
func exec(t *testing.T, c tc.Container, command []string, options ...tcexec.ProcessOption) (int, string) {
	t.Helper()
	code, out, err := c.Exec(t.Context(), command, append(options, tcexec.Multiplexed())...)
	check(t, err)
	text, err := io.ReadAll(out)
	check(t, err)
	return code, string(text)
}

// TestWaits waits in every manner at once, and then again after a stop and a start.
func TestWaits(t *testing.T) {
	c := run(t, serving("waited for", tc.WithConfigModifier(func(config *container.Config) {
		config.Healthcheck = &container.HealthConfig{Test: []string{"CMD-SHELL", "wget -qO- http://127.0.0.1:8080/"}, Interval: 100 * time.Millisecond, Retries: 50}
	}), tc.WithWaitStrategyAndDeadline(time.Minute,
		wait.ForLog("ready to serve"),
		wait.ForLog("ready to (.*)").AsRegexp(),
		wait.ForListeningPort("8080/tcp"),
		wait.ForExposedPort(),
		wait.ForHTTP("/").WithPort("8080/tcp").WithResponseMatcher(func(r io.Reader) bool {
			b, _ := io.ReadAll(r)
			return string(b) == "waited for"
		}),
		wait.ForExec([]string{"test", "-s", "/www/index.html"}),
		wait.ForFile("/www/index.html"),
		wait.ForHealthCheck(),
	))...)
	if got := get(t, c); got != "waited for" {
		t.Errorf("the server says %q", got)
	}
	state, err := c.State(t.Context())
	check(t, err)
	if !state.Running || state.Health.Status != container.Healthy {
		t.Errorf("state: %+v", state)
	}
	limit := time.Second
	check(t, c.Stop(t.Context(), &limit))
	if state, err = c.State(t.Context()); err != nil || state.Running {
		t.Errorf("after stop: %+v %v", state, err)
	}
	check(t, c.Start(t.Context()))
	if got := get(t, c); got != "waited for" {
		t.Errorf("after another start the server says %q", got)
	}
}

// TestEnds: a container that ends is waited for, and one that never gets ready fails with its output told.
func TestEnds(t *testing.T) {
	c := run(t, tc.WithCmd("sh", "-c", "exit 3"), tc.WithWaitStrategy(wait.ForExit()))
	if state, err := c.State(t.Context()); err != nil || state.ExitCode != 3 {
		t.Errorf("%+v %v", state, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	dead, err := tc.Run(ctx, image, tc.WithCmd("sh", "-c", "exit 4"), tc.WithWaitStrategy(wait.ForLog("never said")))
	tc.CleanupContainer(t, dead, tc.StopTimeout(0))
	if err == nil || !strings.Contains(err.Error(), "exited") {
		t.Errorf("a container that is dead: %v", err)
	}
}

func TestExec(t *testing.T) {
	c := run(t, tc.WithCmd("sleep", "300"), tc.WithEnv(map[string]string{"SHIP": "ferry"}), tc.WithWaitStrategy(wait.ForNop(func(context.Context, wait.StrategyTarget) error { return nil })))
	if code, out := exec(t, c, []string{"sh", "-c", "echo $SHIP; echo $CARGO; id -u; pwd; exit 6"}, tcexec.WithEnv([]string{"CARGO=cars"}), tcexec.WithUser("12"), tcexec.WithWorkingDir("/tmp")); code != 6 || out != "ferry\ncars\n12\n/tmp\n" {
		t.Errorf("%d %q", code, out)
	}
	if code, out := exec(t, c, []string{"no-such-program"}); code != 127 {
		t.Errorf("a program that is not there: %d %q", code, out)
	}
	if code, _ := exec(t, c, []string{"test", "-e", "/.dockerenv"}); code != 0 {
		t.Error("programs do not see by /.dockerenv that they are in a container")
	}
}

// TestCopies brings files in and out: bytes, a file, a folder.
func TestCopies(t *testing.T) {
	c := run(t, tc.WithCmd("sleep", "300"))
	dir := filepath.Join(t.TempDir(), "cargo")
	check(t, os.MkdirAll(filepath.Join(dir, "deep"), 0o755))
	check(t, os.WriteFile(filepath.Join(dir, "deep", "crate"), []byte("full"), 0o600))
	check(t, c.CopyDirToContainer(t.Context(), dir, "/tmp/cargo", 0o755))
	check(t, c.CopyFileToContainer(t.Context(), filepath.Join(dir, "deep", "crate"), "/made/on/the/way/crate", 0o711))
	check(t, c.CopyToContainer(t.Context(), bytes.Repeat([]byte("x"), 3<<20), "/tmp/large", 0o600))
	if code, out := exec(t, c, []string{"sh", "-c", "cat /tmp/cargo/deep/crate; stat -c ' %a %u' /made/on/the/way/crate; stat -c '%s %a' /tmp/large"}); code != 0 || out != "full 711 0\n3145728 600\n" {
		t.Errorf("%d %q", code, out)
	}
	r, err := c.CopyFileFromContainer(t.Context(), "/tmp/large")
	check(t, err)
	defer r.Close()
	if b, err := io.ReadAll(r); err != nil || len(b) != 3<<20 {
		t.Errorf("out came %d bytes: %v", len(b), err)
	}
	if _, err := c.CopyFileFromContainer(t.Context(), "/not/there"); err == nil {
		t.Error("a file that is not there was copied")
	}
}

// lines collects a container's output.
type lines struct {
	mu   sync.Mutex
	seen map[string]string
}

func (l *lines) Accept(log tc.Log) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seen[log.LogType] += string(log.Content)
}

func (l *lines) of(kind string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.seen[kind]
}

func TestLogs(t *testing.T) {
	consumer := &lines{seen: map[string]string{}}
	c := run(t, tc.WithCmd("sh", "-c", "for i in 1 2 3; do echo out $i; echo err $i >&2; done; sleep 300"), tc.WithLogConsumers(consumer),
		tc.WithWaitStrategy(wait.ForLog("out 3"), wait.ForLog("err").WithOccurrence(3)))
	for end := time.Now().Add(30 * time.Second); consumer.of(tc.StdoutLog) != "out 1\nout 2\nout 3\n" || consumer.of(tc.StderrLog) != "err 1\nerr 2\nerr 3\n"; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("consumed %q and %q", consumer.of(tc.StdoutLog), consumer.of(tc.StderrLog))
		}
	}
	r, err := c.Logs(t.Context())
	check(t, err)
	defer r.Close()
	if b, err := io.ReadAll(r); err != nil || strings.Count(string(b), "\n") != 6 {
		t.Errorf("logs: %q %v", b, err)
	}
}

// TestParallel starts many containers at once, each with a port of its own.
func TestParallel(t *testing.T) {
	for i := range 8 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			page := fmt.Sprintf("page %d", i)
			if got := get(t, run(t, serving(page)...)); got != page {
				t.Errorf("%q, not %q", got, page)
			}
		})
	}
}

// TestReuse: who asks for a container by a name that one has gets that.
func TestReuse(t *testing.T) {
	a := run(t, serving("one", tc.WithReuseByName("testcontainers-reused"))...)
	b := run(t, serving("two", tc.WithReuseByName("testcontainers-reused"))...)
	if a.GetContainerID() != b.GetContainerID() || get(t, b) != "one" {
		t.Errorf("two containers: %s and %s", a.GetContainerID(), b.GetContainerID())
	}
}
