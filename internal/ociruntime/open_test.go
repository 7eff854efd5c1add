package ociruntime

import (
	"io"
	"os"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// openAgain opens a container as another process would, from its configuration and its pid.
func openAgain(t *testing.T, b *box, c *Container) (*Container, error) {
	t.Helper()
	fd, err := unix.PidfdOpen(c.Pid(), 0)
	must(t, err)
	return Open(OpenOptions{Spec: b.spec, Pid: c.Pid(), Pidfd: os.NewFile(uintptr(fd), "pidfd"), Cgroup: c.Cgroup()})
}

// TestOpenedContainerConfinesAsItsCreator: what is executed by way of the pid sees what is executed by the creator.
func TestOpenedContainerConfinesAsItsCreator(t *testing.T) {
	for name, own := range map[string]bool{"own users": true, "host users": false} {
		t.Run(name, func(t *testing.T) {
			b := postureBox(t, container.HostConfig{}, own, specs.User{})
			c := b.sleeper()
			again, err := openAgain(t, b, c)
			must(t, err)
			defer again.Close()
			var texts []string
			for _, by := range []*Container{c, again} {
				out, status, err := b.exec(by, &specs.Process{Args: []string{"probe", "posture"}})
				if err != nil || status.Code != 0 {
					t.Fatalf("%v %+v %s", err, status, out)
				}
				texts = append(texts, plainPosture(t, out))
			}
			if texts[0] != texts[1] || !strings.Contains(texts[0], "eccomp") {
				t.Errorf("they differ:\n%s", difference(texts[0], texts[1]))
			}
			e, err := again.Exec(t.Context(), ExecOptions{Process: &specs.Process{Args: []string{"sh", "-c", "test -t 0 && echo terminal"}, Env: []string{"PATH=/bin"}, Cwd: "/", Terminal: true}})
			must(t, err)
			out, _ := io.ReadAll(e.Console) // ends with EIO
			if !strings.Contains(string(out), "terminal") {
				t.Errorf("with a terminal: %q", out)
			}
			_, err = Reap(e.Pidfd)
			must(t, err)
			e.Pidfd.Close()
			e.Console.Close()
		})
	}
}

func TestOpenRefusesTheDead(t *testing.T) {
	b := newBox(t)
	c := b.sleeper()
	fd, err := unix.PidfdOpen(c.Pid(), 0)
	must(t, err)
	must(t, c.Cgroup().Kill())
	_, err = Reap(c.Pidfd())
	must(t, err)
	if _, err := Open(OpenOptions{Spec: b.spec, Pid: c.Pid(), Pidfd: os.NewFile(uintptr(fd), "pidfd"), Cgroup: c.Cgroup()}); err == nil {
		t.Error("a container is opened whose process is gone")
	}
}

// TestSharedMountsReachTheHost: the root's propagation, which pivot_root does not go together with before, and a bind's own.
func TestSharedMountsReachTheHost(t *testing.T) {
	for _, propagation := range []string{"rshared", "rslave"} {
		t.Run(propagation, func(t *testing.T) {
			dir := t.TempDir()
			must(t, unix.Mount("shared", dir, "tmpfs", 0, ""))
			defer func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) }()
			must(t, unix.Mount("", dir, "", unix.MS_SHARED, ""))
			must(t, os.Mkdir(dir+"/inner", 0o755))
			b := newBox(t, "sh", "-c", "mount -t tmpfs made-inside /shared/inner && cat /proc/self/mountinfo").hostUsers()
			admin := []string{"CAP_SYS_ADMIN"}
			b.spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: admin, Effective: admin, Permitted: admin}
			b.spec.Linux.RootfsPropagation = propagation
			b.spec.Mounts = append(b.spec.Mounts, specs.Mount{Destination: "/shared", Type: "bind", Source: dir, Options: []string{"rbind", propagation}})
			out, status, err := b.run()
			if err != nil || status.Code != 0 || !strings.Contains(out, "made-inside") {
				t.Fatalf("%v %+v %s", err, status, out)
			}
			outside, err := os.ReadFile("/proc/self/mountinfo")
			must(t, err)
			if got, want := strings.Contains(string(outside), dir+"/inner"), propagation == "rshared"; got != want {
				t.Errorf("the container's mount is seen by the host: %t", got)
			}
		})
	}
}
