package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// withUsers gives a bundle's container users of its own; its root file system stays the host's root's.
func withUsers(s *specs.Spec) {
	ids := []specs.LinuxIDMapping{{HostID: 0x33000000, Size: 65536}}
	s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	s.Linux.UIDMappings, s.Linux.GIDMappings = ids, ids
}

// TestBinaryIsOutOfReach: class 1 (CVE-2019-5736, CVE-2016-9962) and 2 (CVE-2024-21626): a container writes to whatever program it finds by
// /proc/PID/exe, and reads what lies behind each process's root, directory and descriptors, while processes join it a hundred times and
// execute the runtime itself by /proc/self/exe. The runtime's binary and the host's files stay as they are, and unseen.
func TestBinaryIsOutOfReach(t *testing.T) {
	bin, err := binaries()
	must(t, err)
	before, err := os.ReadFile(bin + "/oar")
	must(t, err)
	canary := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(canary, []byte("canary"), 0o644))
	for name, users := range map[string]func(*specs.Spec){"host's users": func(*specs.Spec) {}, "own users": withUsers} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, func(s *specs.Spec) {
				s.Mounts = append(s.Mounts, specs.Mount{Destination: "/tmp", Type: "tmpfs"})
				caps := []string{"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_SETUID", "CAP_SETGID", "CAP_KILL", "CAP_SYS_CHROOT"}
				s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}
				users(s)
			}, "probe", "overwrite", canary)
			for _, d := range []string{h.dir, filepath.Dir(h.dir)} { // folders that others may pass
				must(t, os.Chmod(d, 0o755))
			}
			h.create()
			h.oar("start", "c")
			h.await(specs.StateRunning)
			until(t, "it looks around", func() bool { return strings.Contains(h.output(), "looking") })
			for range 100 {
				if out := h.oar("exec", "c", "/proc/self/exe", "version"); !strings.Contains(out, " version ") {
					t.Fatalf("the container does not run the runtime's binary, the test proves nothing: %q", out)
				}
			}
			h.oar("exec", "c", "sh", "-c", ": >/tmp/stop")
			h.await(specs.StateStopped)
			var held, written, leaked int
			last := strings.TrimSpace(h.output())
			if _, err := fmt.Sscanf(last[strings.LastIndex(last, "\n")+1:], "held %d written %d leaked %d", &held, &written, &leaked); err != nil || written != 0 || leaked != 0 {
				t.Errorf("%v: %q", err, h.output())
			}
			if held == 0 {
				t.Errorf("no program of others was found: nothing was tried: %q", h.output())
			}
		})
	}
	if after, err := os.ReadFile(bin + "/oar"); err != nil || !bytes.Equal(before, after) {
		t.Fatalf("the runtime's binary has changed: %v", err)
	}
	if b, err := os.ReadFile(canary); err != nil || string(b) != "canary" {
		t.Errorf("outside: %q %v", b, err)
	}
}

func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !is(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("in vain: %s", what)
		}
	}
}

// TestLiesAreNoEnd: class 16: a process that has itself traced by its parent and stops has not ended, for run, for exec, and for init.
func TestLiesAreNoEnd(t *testing.T) {
	start := func(t *testing.T, root string, args ...string) (out *lockedBuffer, ended chan error) {
		out, ended = &lockedBuffer{}, make(chan error, 1)
		cmd := oarContext(context.Background(), t, root, args...)
		cmd.Stdout, cmd.Stderr = out, out
		must(t, cmd.Start())
		go func() { ended <- cmd.Wait() }() // ends with the process, which the test waits for
		out.await(t, "child true")
		select {
		case err := <-ended:
			t.Fatalf("oar has ended while the process is stopped: %v %q", err, out.String())
		case <-time.After(200 * time.Millisecond):
		}
		return out, ended
	}
	stopped := func(t *testing.T, h *host) {
		pids := h.oar("ps", "-f", "json", "c")
		for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) { // it says that it has a child before it stops
			for _, pid := range strings.FieldsFunc(pids, func(r rune) bool { return r < '0' || r > '9' }) {
				b, _ := os.ReadFile("/proc/" + pid + "/status")
				if strings.HasPrefix(line(string(b), "State"), "t") {
					return
				}
			}
		}
		t.Errorf("no process is stopped for its tracer, the test proves nothing: %s", pids)
	}
	for name, args := range map[string][]string{"run": {"probe", "lie"}, "init": {"oar", "init", "--", "probe", "lie"}} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, nil, args...)
			_, ended := start(t, h.root, "run", "-b", h.dir, "c")
			if s := h.state(); s.Status != specs.StateRunning {
				t.Errorf("it is said to be %s", s.Status)
			}
			stopped(t, h)
			h.oar("kill", "--all", "c", "KILL")
			if err := <-ended; exitCodeOf(err) != 128+int(syscall.SIGKILL) {
				t.Errorf("%v", err)
			}
		})
	}
	t.Run("exec", func(t *testing.T) {
		h := newHost(t, nil, "sleep", "1000")
		h.create()
		h.oar("start", "c")
		_, ended := start(t, h.root, "exec", "c", "probe", "lie")
		stopped(t, h)
		if s := h.state(); s.Status != specs.StateRunning {
			t.Errorf("it is said to be %s", s.Status)
		}
		h.oar("kill", "--all", "c", "KILL")
		if err := <-ended; exitCodeOf(err) != 128+int(syscall.SIGKILL) {
			t.Errorf("%v", err)
		}
		h.await(specs.StateStopped)
	})
}

// TestHooksDoNotSeeTheImage: class 6 (NVIDIA's CVE-2025-23266): what the container's program has in its environment is none of any hook's,
// be it run outside or inside.
func TestHooksDoNotSeeTheImage(t *testing.T) {
	trace := filepath.Join(t.TempDir(), "trace")
	say := func(name, file string) []specs.Hook {
		return []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", `echo "` + name + ` $LD_PRELOAD$IMAGE$BASH_ENV" >> ` + file}}}
	}
	t.Setenv("IMAGE", "of the caller")
	h := newHost(t, func(s *specs.Spec) {
		s.Process.Env = append(s.Process.Env, "LD_PRELOAD=/evil.so", "IMAGE=evil", "BASH_ENV=/evil.sh", "ENV=/evil.sh")
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/trace", Type: "bind", Source: filepath.Dir(trace), Options: []string{"bind"}})
		s.Annotations = map[string]string{"dev.wherry.root.nosuid": "false", "dev.wherry.anything": "true", "org.systemd.property.ExecStart": "/evil"}
		s.Hooks = &specs.Hooks{Prestart: say("prestart", trace), CreateRuntime: say("createRuntime", trace), CreateContainer: say("createContainer", trace),
			StartContainer: say("startContainer", "/trace/trace"), Poststart: say("poststart", trace), Poststop: say("poststop", trace)}
	}, "sh", "-c", "sleep 0.2; echo $IMAGE")
	h.create()
	h.oar("start", "c")
	h.await(specs.StateStopped)
	h.oar("delete", "c")
	b, err := os.ReadFile(trace)
	must(t, err)
	if got, want := string(b), "prestart \ncreateRuntime \ncreateContainer \nstartContainer \npoststart \npoststop \n"; got != want || h.output() != "evil\n" {
		t.Errorf("%q, want %q; the program: %q", got, want, h.output())
	}
}

// TestStatesOfOthersAreNotBelieved: what lies in a folder that another user has made, or may write to, names no hooks that run as root, no process to
// be killed, and nothing to be removed.
func TestStatesOfOthersAreNotBelieved(t *testing.T) {
	h := newHost(t, nil, "sleep", "1000")
	root := filepath.Join(t.TempDir(), "states")
	marker, kept := filepath.Join(h.dir, "hooked"), filepath.Join(root, "c", "kept")
	sleeper := exec.Command("sleep", "1000")
	must(t, sleeper.Start())
	defer func() { _ = sleeper.Process.Kill(); _ = sleeper.Wait() }()
	started, err := startTime(sleeper.Process.Pid)
	must(t, err)
	pidfd, err := unix.PidfdOpen(sleeper.Process.Pid, 0)
	must(t, err)
	defer unix.Close(pidfd)
	must(t, os.MkdirAll(filepath.Join(root, "c"), 0o700))
	must(t, os.WriteFile(kept, nil, 0o600))
	must(t, os.WriteFile(filepath.Join(root, "c", "state.json"), fmt.Appendf(nil, `{"id":"c","pid":%d,"started":%d,"cgroup":"/wherry-test-none"}`, sleeper.Process.Pid, started), 0o600))
	hook := fmt.Sprintf(`[{"path":"/bin/touch","args":["touch",%q]}]`, marker)
	must(t, os.WriteFile(filepath.Join(root, "c", "config.json"), fmt.Appendf(nil, `{"ociVersion":"1.0.0","process":{"args":["x"],"cwd":"/"},"root":{"path":"/"},"linux":{},"hooks":{"poststart":%s,"poststop":%[1]s}}`, hook), 0o600))
	for _, make := range []func() error{
		func() error { return os.Chown(filepath.Join(root, "c"), 12345, 12345) },
		func() error {
			return errors.Join(os.Chown(filepath.Join(root, "c"), 0, 0), os.Chmod(filepath.Join(root, "c"), 0o770))
		},
	} {
		must(t, make())
		for _, command := range []string{"state c", "start c", "kill c KILL", "delete c", "delete --force c", "exec c true", "pause c", "ps c", "update --pids-limit 5 c"} {
			h.refuse("must be a folder of this user's", append([]string{"--root", root}, strings.Fields(command)...)...)
		}
	}
	for _, now := range []struct {
		owner int
		mode  os.FileMode
	}{{12345, 0o700}, {0, 0o777}} {
		must(t, errors.Join(os.Chown(root, now.owner, 0), os.Chmod(root, now.mode)))
		h.refuse("must be a folder of this user's", "--root", root, "run", "--bundle", h.dir, "other")
	}
	if _, err := os.Stat(marker); err == nil {
		t.Error("another user's hook was run")
	}
	if _, err := os.Stat(kept); err != nil {
		t.Errorf("another user's files are removed: %v", err)
	}
	if ended(pidfd) {
		t.Error("another user's word killed a process")
	}
}
