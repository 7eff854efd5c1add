package network

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moby/moby/api/types/network"
)

// box stands in for a container: a process in a network namespace that a user namespace owns.
type box struct {
	t     testing.TB
	id    string
	pid   int
	netns *os.File
}

func newBox(t testing.TB) *box {
	t.Helper()
	cmd := exec.Command("busybox", "sleep", "600")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWNET | syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0x10000000, Size: 65536}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0x10000000, Size: 65536}},
		Pdeathsig:   syscall.SIGKILL,
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	b := &box{t: t, id: newID(), pid: cmd.Process.Pid}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		b.netns.Close()
	})
	var err error
	if b.netns, err = os.Open(fmt.Sprintf("/proc/%d/ns/net", b.pid)); err != nil {
		t.Fatal(err)
	}
	return b
}

// command runs inside; it ends with the test.
func (b *box) command(args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	b.t.Cleanup(cancel)
	return exec.CommandContext(ctx, "nsenter", append([]string{fmt.Sprintf("--net=/proc/%d/ns/net", b.pid), "--"}, args...)...)
}

func (b *box) run(args ...string) (string, error) {
	out, err := b.command(args...).CombinedOutput()
	return string(out), err
}

func (b *box) mustRun(args ...string) string {
	b.t.Helper()
	out, err := b.run(args...)
	if err != nil {
		b.t.Fatalf("%q inside: %v: %s", args, err, out)
	}
	return out
}

// serve starts a web server inside that answers with what.
func (b *box) serve(port int, what string) {
	b.t.Helper()
	dir := b.t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "index.html"), []byte(what), 0o644); err != nil {
		b.t.Fatal(err)
	}
	cmd := b.command("busybox", "httpd", "-f", "-p", fmt.Sprint(port), "-h", dir)
	if err := cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	eventually(b.t, func() error {
		if out, err := b.get(fmt.Sprintf("127.0.0.1:%d", port)); err != nil {
			return fmt.Errorf("%v: %s", err, out)
		}
		return nil
	})
}

func eventually(t testing.TB, f func() error) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if err = f(); err == nil {
			return
		}
	}
	t.Fatal(err)
}

// get fetches a page from the host's namespace.
func get(address string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, "curl", "-sS", "--noproxy", "*", "http://"+address+"/")
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, &stderr)
	}
	return string(out), nil
}

func (b *box) get(address string) (string, error) {
	return b.run("curl", "-sS", "-m", "2", "--noproxy", "*", "http://"+address+"/")
}

// attach allocates and attaches; the release comes with the test's end.
func (b *box) attach(s *Service, r AllocateRequest) *Allocation {
	b.t.Helper()
	r.ContainerID = b.id
	if r.Name == "" {
		r.Name = "box-" + b.id[:6]
	}
	if r.Hostname == "" {
		r.Hostname = b.id[:12]
	}
	if r.Networks == nil {
		r.Networks = map[string]*network.EndpointSettings{"bridge": {}}
	}
	a, err := s.Allocate(b.t.Context(), r)
	if err != nil {
		b.t.Fatal(err)
	}
	if err := s.Attach(b.t.Context(), b.id, b.netns); err != nil {
		b.t.Fatal(err)
	}
	return a
}

func (b *box) release(s *Service) {
	b.t.Helper()
	if err := s.Release(context.Background(), b.id); err != nil {
		b.t.Error(err)
	}
}

// outside makes another host: a namespace with a pair to this one, 192.0.2.1 here and 192.0.2.9 there.
func outside(t testing.TB) *box {
	t.Helper()
	b := newBox(t)
	for _, args := range [][]string{
		{"ip", "link", "add", "uplink0", "type", "veth", "peer", "name", "eth0", "netns", fmt.Sprint(b.pid)},
		{"ip", "addr", "add", "192.0.2.1/24", "dev", "uplink0"},
		{"ip", "link", "set", "uplink0", "up"},
	} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%q: %v: %s", args, err, out)
		}
	}
	t.Cleanup(func() { exec.Command("ip", "link", "del", "uplink0").Run() })
	b.mustRun("ip", "link", "set", "lo", "up")
	b.mustRun("ip", "addr", "add", "192.0.2.9/24", "dev", "eth0")
	b.mustRun("ip", "link", "set", "eth0", "up")
	return b
}

func portMap(rows ...string) network.PortMap {
	out := network.PortMap{}
	for _, row := range rows { // "address|host port|port/proto"
		f := strings.Split(row, "|")
		b := network.PortBinding{HostPort: f[1]}
		if f[0] != "" {
			b.HostIP = netip.MustParseAddr(f[0])
		}
		p := network.MustParsePort(f[2])
		out[p] = append(out[p], b)
	}
	return out
}

func mustHost(t testing.TB, args ...string) string {
	t.Helper()
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%q: %v: %s", args, err, out)
	}
	return string(out)
}
