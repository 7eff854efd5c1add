package test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestCancelledBuildsLeaveNothing: a client that is interrupted, or just gone, takes its build with it: no process, no mount, no group
// and no container is left, and what it had begun can be removed.
func TestCancelledBuildsLeaveNothing(t *testing.T) {
	e := newEngine(shared, t.TempDir())
	ok(t, e.start())
	defer func() { ok(t, e.shutdown()) }()
	ok(t, e.load("busybox-1"))
	withBuildx(t)
	dir := t.TempDir()
	build := func(n string) []string { return []string{"build", "--no-cache", "--build-arg", "N=" + n, dir} }
	ok(t, os.WriteFile(dir+"/Dockerfile", []byte("FROM busybox:1 AS other\nARG N\nRUN sleep 1$N\nFROM busybox:1\nARG N\nRUN --mount=type=cache,target=/c --mount=type=tmpfs,target=/t sleep 2$N\nCOPY --from=other /etc/passwd /x\n"), 0o644))
	if out, err := e.run("docker", "build", "-q", "--build-arg", "N= 0", dir); err != nil {
		t.Fatalf("%v: %s", err, out) // what one build keeps is there from now on
	}
	mounts := mountsBelow(t, e)
	for i, how := range []struct {
		client string
		env    string
		signal syscall.Signal
	}{
		{"docker", "DOCKER_BUILDKIT=1", syscall.SIGINT}, {"docker", "DOCKER_BUILDKIT=1", syscall.SIGKILL}, {"docker", "DOCKER_BUILDKIT=0", syscall.SIGINT},
		{"docker", "DOCKER_BUILDKIT=0", syscall.SIGKILL}, {filepath.Join(shared.bin, "wherry"), "A=b", syscall.SIGINT}, {filepath.Join(shared.bin, "wherry"), "A=b", syscall.SIGKILL},
	} {
		n := fmt.Sprintf("%d%04d", 7+i, os.Getpid()%10000)
		cmd := exec.Command(how.client, build(n)...)
		cmd.Env = append(append(os.Environ(), e.environment()...), how.env)
		ok(t, cmd.Start())
		err := eventually(60*time.Second, func() error {
			if len(sleepers("1"+n)) == 0 && len(sleepers("2"+n)) == 0 {
				return errors.New("no step runs")
			}
			return nil
		})
		ok(t, err, cmd.Process.Signal(how.signal))
		_ = cmd.Wait()
		err = eventually(30*time.Second, func() error {
			if left := append(sleepers("1"+n), sleepers("2"+n)...); len(left) > 0 {
				return fmt.Errorf("processes %v", left)
			}
			if left := mountsBelow(t, e); len(left) > len(mounts) {
				return fmt.Errorf("mounts %v", left)
			}
			if out, err := e.run("wherry", "ps", "-aq"); err != nil || out != "" {
				return fmt.Errorf("containers %s %v", out, err)
			}
			return nil
		})
		if err != nil {
			t.Errorf("%s %s, %v: left: %v", how.env, how.client, how.signal, err)
		}
	}
	if out, err := e.run("docker", "buildx", "prune", "-af"); err != nil {
		t.Errorf("prune: %v: %s", err, out)
	}
	if out, err := e.run("docker", "buildx", "du"); err != nil || !strings.Contains(out, "Total:") || !strings.Contains(out, "0B") {
		t.Errorf("left after prune: %v\n%s", err, out)
	}
}

// sleepers are the processes `sleep n`.
func sleepers(n string) []string {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	return slices.DeleteFunc(files, func(file string) bool {
		b, _ := os.ReadFile(file)
		return string(b) != "sleep\x00"+n+"\x00"
	})
}

// mountsBelow are what the engine has mounted in its own directories, as it sees them.
func mountsBelow(t *testing.T, e *engine) []string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", e.cmd.Process.Pid))
	ok(t, err)
	return slices.DeleteFunc(strings.Split(string(b), "\n"), func(line string) bool { return !strings.Contains(line, e.dir) })
}
