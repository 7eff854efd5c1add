package test

import (
	"context"
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
