package test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// clientsDir is where test/clients/build.sh puts the programs that are driven here.
func clientsDir() string { return filepath.Join(repository(), ".cache/clients") }

// ownEngine is an engine for one test, with images.
func ownEngine(t *testing.T, images ...string) *engine {
	t.Helper()
	e := newEngine(shared, t.TempDir())
	e.foreign = true
	ok(t, e.start())
	t.Cleanup(func() { ok(t, e.shutdown()) })
	for _, name := range images {
		ok(t, e.load(name))
	}
	return e
}

// runClient runs a program of somebody else's against an engine; it has two minutes.
func runClient(t *testing.T, e *engine, dir string, env []string, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(append(os.Environ(), e.environment()...), env...)
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// reaperImage is the one that testcontainers-go of the version in test/clients/testcontainers/go.mod starts.
const reaperImage = "testcontainers/ryuk:0.14.0"

// testcontainers is an engine with that image, and the environment of a program that uses testcontainers-go.
func testcontainers(t *testing.T) (*engine, []string) {
	t.Helper()
	e := ownEngine(t, "busybox-1")
	scratchImage(t, e, reaperImage, filepath.Join(clientsDir(), "reaper"))
	dir := t.TempDir()
	return e, []string{"HOME=" + dir, "TMPDIR=" + dir, "REGISTRY=" + registryAddress}
}

// TestTestcontainers runs tests that are written with testcontainers-go.
func TestTestcontainers(t *testing.T) {
	e, env := testcontainers(t)
	out := runClient(t, e, "/", env, filepath.Join(clientsDir(), "testcontainers.test"), "-test.v", "-test.skip", "TestLeft", "-test.timeout", "110s")
	if !strings.Contains(out, "--- PASS: TestPull") {
		t.Errorf("not all tests ran:\n%s", out)
	}
}

// TestReaper: a test's program is killed, and what it made goes: by a container that was given the engine's socket.
func TestReaper(t *testing.T) {
	e, env := testcontainers(t)
	cmd := exec.Command(filepath.Join(clientsDir(), "testcontainers.test"), "-test.run", "TestLeft")
	cmd.Env = append(append(append(os.Environ(), e.environment()...), env...), "RYUK_RECONNECTION_TIMEOUT=100ms")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	ok(t, err, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	session := ""
	for lines := bufio.NewScanner(stdout); session == "" && lines.Scan(); {
		session, _ = strings.CutPrefix(lines.Text(), "session ")
		if strings.Contains(session, " ") {
			session = ""
		}
	}
	if session == "" {
		t.Fatalf("the program ended: %v\n%s", cmd.Wait(), &stderr)
	}
	left := func() (n int) {
		for _, list := range [][]string{{"ps", "-aq"}, {"network", "ls", "-q"}, {"volume", "ls", "-q"}, {"images", "-q"}} {
			out, err := e.run("docker", append(list, "--filter", "label=org.testcontainers.sessionId="+session)...)
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			n += len(strings.Fields(out))
		}
		return n
	}
	ok(t, eventually(time.Minute, func() error {
		if n := left(); n != 5 { // the reaper itself too
			return fmt.Errorf("%d things carry the session's label, not a container, a network, a volume, an image and the reaper", n)
		}
		return nil
	}))
	ok(t, cmd.Process.Kill())
	ok(t, eventually(time.Minute, func() error {
		if n := left(); n > 0 {
			return fmt.Errorf("%d of the killed program's things are still there", n)
		}
		return nil
	}))
}

// TestDockerode drives the engine as programs in Node.js do.
func TestDockerode(t *testing.T) {
	e := ownEngine(t, "busybox-1")
	home := t.TempDir()
	// Modules are looked for beside a program, and those are where build.sh put them.
	script := filepath.Join(home, "dockerode.js")
	ok(t, os.Symlink(filepath.Join(clientsDir(), "node/node_modules"), filepath.Join(home, "node_modules")))
	text, err := os.ReadFile("clients/node/dockerode.js")
	ok(t, err)
	ok(t, os.WriteFile(script, text, 0o600))
	out := runClient(t, e, home, []string{"HOME=" + home, "REGISTRY=" + registryAddress}, "node", "--test", "--test-reporter=tap", script)
	if !strings.Contains(out, "# fail 0\n") || strings.Contains(out, "# pass 0\n") {
		t.Errorf("dockerode's tests:\n%s", out)
	}
}

// TestClients runs the scripts about clients that are commands.
func TestClients(t *testing.T) { runBuildScripts(t, "testdata/clients", "docker") }

// TestDockerPy drives the engine as programs in Python do, with Debian's python3-docker.
func TestDockerPy(t *testing.T) {
	e := ownEngine(t, "busybox-1")
	// It goes straight to the engine, which waits with output until docker-py has read the answer's head: a recorder between them does not.
	env := []string{"DOCKER_HOST=" + e.host(), "HOME=" + t.TempDir(), "REGISTRY=" + registryAddress, "PYTHONDONTWRITEBYTECODE=1"}
	out := runClient(t, e, "clients/python", env, "/usr/bin/python3", "-W", "ignore", "-m", "unittest", "-v", "docker_py")
	if !strings.Contains(out, "\nOK\n") || strings.Contains(out, "Ran 0 tests") {
		t.Errorf("docker-py's tests:\n%s", out)
	}
}
