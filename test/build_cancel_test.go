package test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
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

// TestBuildsAndTheEnginesEnd: an engine that is killed in the middle of a build ends the build's processes when it comes again, forgets
// what they mounted, and builds.
func TestBuildsAndTheEnginesEnd(t *testing.T) {
	e := newEngine(shared, t.TempDir())
	ok(t, e.start())
	defer func() { ok(t, e.shutdown()) }()
	ok(t, e.load("busybox-1"))
	withBuildx(t)
	dir := t.TempDir()
	n := fmt.Sprintf("9%04d", os.Getpid()%10000)
	ok(t, os.WriteFile(dir+"/Dockerfile", []byte("FROM busybox:1\nRUN echo kept >/kept\nARG N=0\nRUN --mount=type=cache,target=/c --mount=type=secret,id=s sleep $N; date >/c/last\nCMD [\"cat\", \"/kept\"]\n"), 0o644))
	args := []string{"build", "-t", "end:1", "--secret", "id=s,src=/proc/version", "--progress=plain"}
	if out, err := e.run("docker", append(args, dir)...); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	mounts := mountsBelow(t, e)
	cmd := exec.Command("docker", append(args, "--build-arg", "N="+n, dir)...)
	cmd.Env = append(os.Environ(), e.environment()...)
	ok(t, cmd.Start(), eventually(60*time.Second, func() error {
		if len(sleepers(n)) == 0 {
			return errors.New("the step does not run")
		}
		return nil
	}), e.kill())
	if cmd.Wait() == nil {
		t.Error("the client has not noticed")
	}
	ok(t, e.start(), eventually(30*time.Second, func() error {
		if left := sleepers(n); len(left) > 0 {
			return fmt.Errorf("processes %v are left", left)
		}
		return nil
	}))
	out, err := e.run("docker", append(args, dir)...)
	if err != nil || !strings.Contains(out, "CACHED") {
		t.Errorf("a build afterwards: %v: %s", err, out)
	}
	if out, err := e.run("wherry", "run", "--rm", "end:1"); err != nil || out != "kept\n" {
		t.Errorf("its image: %v: %s", err, out)
	}
	if list, err := os.ReadDir(e.dir + "/root/tmp"); err != nil || len(list) > 0 {
		t.Errorf("temporary files are left: %v %v", list, err)
	}
	if left := mountsBelow(t, e); len(left) > len(mounts) {
		t.Errorf("mounts are left:\n%s\nthere were\n%s", strings.Join(left, "\n"), strings.Join(mounts, "\n"))
	}
}

// TestBuildsBesidePrunes: what builds need does not go under their hands, and what they make is whole.
func TestBuildsBesidePrunes(t *testing.T) {
	e := newEngine(shared, t.TempDir())
	ok(t, e.start())
	defer func() { ok(t, e.shutdown()) }()
	ok(t, e.load("busybox-1"))
	withBuildx(t)
	dir := t.TempDir()
	dockerfile := "FROM busybox:1 AS a\nARG N\nRUN echo $N >/n\nFROM busybox:1\nCOPY --from=a /n /n\nRUN cat /n /n >/two\nCMD [\"cat\", \"/two\"]\n"
	ok(t, os.WriteFile(dir+"/Dockerfile", []byte(dockerfile), 0o644))
	done := make(chan struct{})
	var prunes, builds sync.WaitGroup
	for _, prune := range [][]string{{"docker", "buildx", "prune", "-af"}, {"wherry", "image", "prune", "-f"}} {
		prunes.Go(func() {
			for {
				if out, err := e.run(prune[0], prune[1:]...); err != nil {
					t.Errorf("%v: %v: %s", prune, err, out)
				}
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	for i := range 4 {
		builds.Go(func() {
			for j := range 3 {
				n := fmt.Sprintf("%d.%d", i, j)
				if out, err := e.run("docker", "build", "--progress=plain", "-t", fmt.Sprintf("beside:%d", i), "--build-arg", "N="+n, dir); err != nil {
					t.Errorf("build %s: %v: %s", n, err, out)
				} else if out, err := e.run("wherry", "run", "--rm", fmt.Sprintf("beside:%d", i)); err != nil || out != n+"\n"+n+"\n" {
					t.Errorf("image %s: %v: %s", n, err, out)
				}
			}
		})
	}
	builds.Wait()
	close(done)
	prunes.Wait()
}
