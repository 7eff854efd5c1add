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
