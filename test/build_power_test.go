package test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestPowerFailsWhileBuilding: after a kill the build cache is what it was; where power failed it is begun anew, what it held is let go of, and
// images are as they were.
func TestPowerFailsWhileBuilding(t *testing.T) {
	e := newEngine(shared, t.TempDir())
	ok(t, e.start())
	defer func() { ok(t, e.shutdown()) }()
	ok(t, e.load("busybox-1"))
	withBuildx(t)
	dir := t.TempDir()
	ok(t, os.WriteFile(dir+"/Dockerfile", []byte("FROM busybox:1 AS work\nRUN head -c 3000000 /dev/urandom >/big\nFROM busybox:1\nRUN echo kept >/file\nCOPY --from=work /big /\nRUN rm /big\n"), 0o644))
	build := func() string {
		t.Helper()
		out, err := e.run("wherry", "build", "--progress=plain", "-t", "power", dir)
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return out
	}
	mark := filepath.Join(e.dir, "root", "build", "unsynced")
	build()
	if out := build(); strings.Count(out, "CACHED") < 3 {
		t.Fatalf("nothing is cached:\n%s", out)
	}
	ok(t, e.kill(), e.start())
	if out := build(); strings.Count(out, "CACHED") < 3 {
		t.Errorf("a kill has cost the build cache:\n%s", out)
	}
	if out, err := e.run("docker", "buildx", "history", "ls"); err != nil || strings.Count(out, "Completed") != 3 {
		t.Errorf("the history: %v\n%s", err, out)
	}
	ok(t, eventually(time.Minute, func() error {
		if _, err := os.Stat(mark); !errors.Is(err, os.ErrNotExist) {
			return errors.New("the databases of builds are not synced when nothing is built")
		}
		return nil
	}))
	before := held(t, e)

	ok(t, e.kill(), os.WriteFile(mark, []byte("6a5b0b1e-0000-4000-8000-000000000000\n"), 0o600), e.start())
	if out, err := e.run("wherry", "run", "--rm", "power", "cat", "/file"); err != nil || out != "kept\n" {
		t.Errorf("the image: %v: %s", err, out)
	}
	if out, err := e.run("wherry", "builder", "du"); err != nil || strings.Contains(out, "exec") {
		t.Errorf("the build cache: %v\n%s", err, out)
	}
	// The sources that the client sent, and the step that is in no image.
	ok(t, eventually(time.Minute, func() error {
		if now := held(t, e); now > before-2 {
			return fmt.Errorf("what the lost cache held is still held: %d layers, were %d", now, before)
		}
		return nil
	}))
	if out := build(); strings.Contains(out, "CACHED") {
		t.Errorf("cached by what is not to be trusted:\n%s", out)
	}
	if out, err := e.run("wherry", "store", "check"); err != nil {
		t.Errorf("store check: %v: %s", err, out)
	}
}

// held is how many layers are there.
func held(t *testing.T, e *engine) int {
	t.Helper()
	list, err := os.ReadDir(filepath.Join(e.dir, "root", "snapshots", "snapshots"))
	ok(t, err)
	return len(list)
}
