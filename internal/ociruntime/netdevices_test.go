package ociruntime

import (
	"os"
	osexec "os/exec"
	"runtime"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// networkOfItsOwn moves this goroutine's thread, which nobody else gets again, to a new network namespace.
func networkOfItsOwn(t *testing.T) {
	t.Helper()
	runtime.LockOSThread()
	must(t, unix.Unshare(unix.CLONE_NEWNET))
}

func ip(t *testing.T, args ...string) {
	t.Helper()
	if out, err := osexec.Command("ip", args...).CombinedOutput(); err != nil {
		t.Fatalf("ip %q: %v: %s", args, err, out)
	}
}

// TestNetDevices: interfaces go into the container's network with their addresses, in a user namespace or without.
func TestNetDevices(t *testing.T) {
	for name, host := range map[string]bool{"own users": false, "host users": true} {
		t.Run(name, func(t *testing.T) {
			networkOfItsOwn(t)
			ip(t, "link", "add", "dev0", "type", "veth", "peer", "name", "dev1")
			ip(t, "addr", "add", "10.9.8.7/24", "dev", "dev0")
			ip(t, "addr", "add", "10.9.7.6/24", "dev", "dev1")
			b := newBox(t, "busybox", "ip", "-o", "addr")
			if host {
				b.hostUsers()
			}
			b.spec.Linux.NetDevices = map[string]specs.LinuxNetDevice{"dev0": {Name: "given"}, "dev1": {}}
			out, _, err := b.run()
			if err != nil || !strings.Contains(out, "given    inet 10.9.8.7/24") || !strings.Contains(out, "dev1    inet 10.9.7.6/24") {
				t.Errorf("%v: %s", err, out)
			}
			if left, err := osexec.Command("ip", "-o", "link").Output(); err != nil || strings.Contains(string(left), "dev") {
				t.Errorf("%v: still on the host: %s", err, left)
			}
		})
	}
}

// TestHostsNamespaceByPath is entered by a container with users of its own, who have no right to that.
func TestHostsNamespaceByPath(t *testing.T) {
	made := make(chan *os.File)
	go func() {
		runtime.LockOSThread() // the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Error(err)
		}
		f, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			t.Error(err)
		}
		made <- f
	}()
	network := <-made
	defer network.Close()
	want, err := os.Readlink(fdPath(network))
	must(t, err)
	b := newBox(t, "readlink", "/proc/self/ns/net")
	for i := range b.spec.Linux.Namespaces {
		if ns := &b.spec.Linux.Namespaces[i]; ns.Type == specs.NetworkNamespace {
			ns.Path = fdPath(network)
		}
	}
	if out, _, err := b.run(); err != nil || strings.TrimSpace(out) != want {
		t.Errorf("%q, want %s, %v", out, want, err)
	}
}

func TestNetDevicesAreChecked(t *testing.T) {
	for want, change := range map[string]func(*specs.Linux){
		"host's network": func(l *specs.Linux) {
			var rest []specs.LinuxNamespace
			for _, n := range l.Namespaces {
				if n.Type != specs.NetworkNamespace {
					rest = append(rest, n)
				}
			}
			l.Namespaces, l.NetDevices = rest, map[string]specs.LinuxNetDevice{"eth0": {}}
		},
		`"a/b" is not`:   func(l *specs.Linux) { l.NetDevices = map[string]specs.LinuxNetDevice{"eth0": {Name: "a/b"}} },
		`"x%s" is not`:   func(l *specs.Linux) { l.NetDevices = map[string]specs.LinuxNetDevice{"eth0": {Name: "x%s"}} },
		"nothing-there0": func(l *specs.Linux) { l.NetDevices = map[string]specs.LinuxNetDevice{"nothing-there0": {}} },
	} {
		b := newBox(t, "true")
		change(b.spec.Linux)
		if _, _, err := b.run(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}
