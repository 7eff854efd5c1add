package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// ownPlugins hides the machine's plugins behind an empty folder until the test's end.
func ownPlugins(t *testing.T) string {
	t.Helper()
	const above, dir = "/run/docker", "/run/docker/plugins"
	var made []string
	for _, d := range []string{above, dir} {
		if err := os.Mkdir(d, 0o755); err == nil {
			made = append([]string{d}, made...)
		}
	}
	ok(t, unix.Mount("plugins", dir, "tmpfs", 0, "mode=755"))
	t.Cleanup(func() {
		ok(t, unix.Unmount(dir, unix.MNT_DETACH))
		for _, d := range made {
			_ = os.Remove(d) // another test's peers may have put something there meanwhile
		}
	})
	return dir
}

// rclone serves volumes by Docker's protocol for plugins: files of a folder that stands for a remote one.
type rclone struct {
	t       *testing.T
	dir     string // of its state
	plugins string
	cmd     *exec.Cmd
}

func (r *rclone) start() {
	r.t.Helper()
	socket := filepath.Join(r.plugins, "rclone.sock")
	_ = os.Remove(socket)
	ok(r.t, os.MkdirAll(filepath.Join(r.dir, "mounts"), 0o755))
	r.cmd = exec.Command("rclone", "serve", "docker", "--base-dir", filepath.Join(r.dir, "mounts"), "--config", "/dev/null",
		"--cache-dir", filepath.Join(r.dir, "cache"), "--socket-addr", socket)
	ok(r.t, r.cmd.Start())
	ok(r.t, eventually(20*time.Second, func() error { _, err := os.Stat(socket); return err }))
}

func (r *rclone) end() {
	r.t.Helper()
	ok(r.t, r.cmd.Process.Signal(unix.SIGTERM))
	_ = r.cmd.Wait()
}

// served are the mounts of rclone's that there are.
func served(t *testing.T) (out []string) {
	t.Helper()
	text, err := os.ReadFile("/proc/self/mounts")
	ok(t, err)
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, "fuse.rclone") {
			out = append(out, strings.Fields(line)[1])
		}
	}
	return out
}

// TestVolumeDrivers has volumes that rclone keeps: a real program of Docker's protocol for volume plugins, asked for by both clients.
func TestVolumeDrivers(t *testing.T) {
	e := ownEngine(t, "busybox-1")
	dir := t.TempDir()
	remote := filepath.Join(dir, "remote")
	ok(t, os.MkdirAll(filepath.Join(remote, "sub"), 0o755), os.WriteFile(filepath.Join(remote, "before"), []byte("there before\n"), 0o644))
	r := &rclone{t: t, dir: dir, plugins: ownPlugins(t)}
	r.start()
	t.Cleanup(r.end)
	says := func(want, client string, args ...string) {
		t.Helper()
		if out, err := e.run(client, args...); err != nil || !strings.Contains(out, want) {
			t.Fatalf("%s %s says %q, %v; want %q", client, strings.Join(args, " "), out, err, want)
		}
	}
	says("rclone", "docker", "info", "--format", "{{.Plugins.Volume}}")
	says("far", "docker", "volume", "create", "-d", "rclone", "-o", "remote=:local:"+remote, "-o", "allow-other=true", "far")
	for _, client := range []string{"docker", "wherry"} {
		says("rclone far local", client, "volume", "ls", "--format", "{{.Driver}} {{.Name}} {{.Scope}}")
		says(filepath.Join(dir, "mounts/far")+" []", client, "volume", "inspect", "-f", "{{.Mountpoint}} {{.Status.Mounts}}", "far")
		says("there before\nfrom "+client, client, "run", "--rm", "-v", "far:/x", "busybox:1", "sh", "-c", "echo from "+client+" >/x/made; cat /x/before /x/made")
		if text, err := os.ReadFile(filepath.Join(remote, "made")); err != nil || string(text) != "from "+client+"\n" {
			t.Errorf("at the remote: %q, %v", text, err)
		}
		if left := served(t); len(left) != 0 {
			t.Errorf("mounted while nobody runs: %v", left)
		}
	}

	// What runs keeps it while the engine is gone, and what has ended gives it back.
	says("", "docker", "run", "-d", "--name", "one", "-v", "far:/x", "busybox:1", "sleep", "1000")
	says("", "docker", "run", "-d", "--name", "two", "--mount", "type=volume,src=far,dst=/x,readonly", "busybox:1", "sleep", "1000")
	ok(t, e.kill(), e.start())
	says("rclone far /x", "docker", "inspect", "-f", "{{range .Mounts}}{{.Driver}} {{.Name}} {{.Destination}}{{end}}", "one")
	says("", "docker", "exec", "one", "sh", "-c", "echo later >/x/later")
	says("later", "docker", "exec", "two", "cat", "/x/later")
	says("", "docker", "kill", "one")
	says("later", "docker", "exec", "two", "cat", "/x/later")
	says("", "docker", "kill", "two")
	if left := served(t); len(left) != 0 {
		t.Errorf("mounted while nobody runs: %v", left)
	}
	for _, client := range []string{"docker", "wherry"} {
		to := filepath.Join(t.TempDir(), "later")
		says("", client, "cp", "one:/x/later", to)
		if text, err := os.ReadFile(to); err != nil || string(text) != "later\n" {
			t.Errorf("copied from a container that does not run: %q, %v", text, err)
		}
	}
	if left := served(t); len(left) != 0 {
		t.Errorf("mounted after a copy: %v", left)
	}

	// A driver that ends takes its files with it, and nothing else; it is found again.
	says("", "docker", "start", "one")
	r.end()
	if out, err := e.run("docker", "exec", "one", "ls", "/x"); err == nil {
		t.Errorf("its files are there without it: %q", out)
	}
	says("far", "docker", "volume", "ls", "-q")
	r.start()
	says("", "docker", "restart", "-t", "0", "one")
	says("later", "docker", "exec", "one", "cat", "/x/later")

	out, err := e.run("docker", "volume", "rm", "far")
	if err == nil || !strings.Contains(out, "volume is in use") {
		t.Errorf("%q, %v", out, err)
	}
	says("", "docker", "rm", "-f", "one", "two")
	says("far", "docker", "volume", "rm", "far")
	if _, err := os.Stat(filepath.Join(remote, "later")); err != nil {
		t.Error("the remote's files went with the volume:", err)
	}
	for name, want := range map[string]string{"nobody": `plugin "nobody" not found: there are the drivers local, rclone`, "rclone": "unsupported backend option"} {
		out, err := e.run("docker", "volume", "create", "-d", name, "-o", "none=1", "bad")
		if err == nil || !strings.Contains(out, want) {
			t.Errorf("%s: %q, %v", name, out, err)
		}
	}
	if out, err := e.run("docker", "volume", "ls", "-q"); err != nil || out != "" {
		t.Errorf("volumes are left: %q, %v", out, err)
	}
	if left := fmt.Sprint(served(t)); left != "[]" {
		t.Errorf("left mounted: %s", left)
	}
}
