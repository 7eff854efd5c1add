package network

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/network"

	"wherry.dev/wherry/internal/network/firewall"
)

func TestPublishOnLoopback(t *testing.T) {
	far := outside(t)
	o := open(t)
	o.Close()
	opts := o.o
	opts.Publish = PublishLoopback
	s := reopen(t, opts)
	mustCreate(t, s, network.CreateRequest{Name: "six", EnableIPv6: new(true)})
	mustCreate(t, s, network.CreateRequest{Name: "said", Options: map[string]string{"com.docker.network.bridge.host_binding_ipv4": "192.0.2.1"}})
	for _, row := range []struct{ network, port, want string }{
		{"bridge", "|28080|8080/tcp", "127.0.0.1"}, {"bridge", "0.0.0.0|28080|8080/tcp", "0.0.0.0"}, {"bridge", "192.0.2.1|28080|8080/tcp", "192.0.2.1"},
		{"six", "|28080|8080/tcp", "127.0.0.1"}, {"six", "::|28080|8080/tcp", "::"}, {"said", "|28080|8080/tcp", "192.0.2.1"},
	} {
		a := newBox(t)
		got := a.attach(s, AllocateRequest{Networks: map[string]*network.EndpointSettings{row.network: {}}, Ports: portMap(row.port)}).Ports[network.MustParsePort("8080/tcp")]
		if len(got) != 1 || got[0].HostIP.String() != row.want {
			t.Errorf("%s on %s: %v", row.port, row.network, got)
		}
		if row.want != "::" {
			a.serve(8080, row.want)
			_, here := get(strings.Replace(row.want, "0.0.0.0", "127.0.0.1", 1) + ":28080")
			there, err := far.get("192.0.2.1:28080")
			if here != nil || (err == nil) == (row.want == "127.0.0.1") {
				t.Errorf("%s: here %v, from another host %q, %v", row.want, here, there, err)
			}
		}
		a.release(s)
	}
}

func TestPortsChangeLive(t *testing.T) {
	s := open(t)
	a, b := newBox(t), newBox(t)
	a.attach(s, AllocateRequest{Ports: portMap("|28080|8080/tcp", "||9000/tcp")})
	b.attach(s, AllocateRequest{Ports: portMap("|28088|80/tcp")})
	defer func() { a.release(s); b.release(s) }()
	a.serve(8080, "a")
	echo := a.command("busybox", "nc", "-l", "-l", "-p", "7", "-e", "busybox", "cat")
	if err := echo.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { echo.Process.Kill(); echo.Wait() }()
	set := func(rows ...string) network.PortMap {
		t.Helper()
		out, err := SetPorts(s, PortsRequest{ContainerID: a.id, Ports: portMap(rows...)})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	before := s.holdings[a.id].Ports[network.MustParsePort("9000/tcp")][0].HostPort
	ports := set("|28080|8080/tcp", "||9000/tcp", "|28007|7/tcp")
	if got := ports[network.MustParsePort("9000/tcp")]; len(got) != 1 || got[0].HostPort != before {
		t.Errorf("a port that the engine chose was %s and is %v", before, got)
	}
	var c net.Conn
	eventually(t, func() (err error) {
		c, err = net.Dial("tcp4", "127.0.0.1:28007")
		return err
	})
	defer c.Close()
	talk := func(when string) {
		t.Helper()
		c.SetDeadline(time.Now().Add(5 * time.Second))
		got := make([]byte, 5)
		if _, err := c.Write([]byte("hello")); err != nil {
			t.Errorf("%s: %v", when, err)
		} else if _, err := io.ReadFull(c, got); err != nil || string(got) != "hello" {
			t.Errorf("%s: %q, %v", when, got, err)
		}
	}
	talk("a new port")
	// The same number at another address takes the place of the old one; a connection outlives the port that it came through.
	set("127.0.0.1|28080|8080/tcp", "|28081|8080/tcp")
	talk("after its port was taken away")
	for _, port := range []string{"28080", "28081"} {
		if got, err := get("127.0.0.1:" + port); err != nil || got != "a" {
			t.Errorf("port %s: %q, %v", port, got, err)
		}
	}
	if c, err := net.DialTimeout("tcp4", "127.0.0.1:28007", time.Second); err == nil {
		c.Close()
		t.Error("a port that was taken away answers")
	}
	// What cannot be had changes nothing.
	_, err := SetPorts(s, PortsRequest{ContainerID: a.id, Ports: portMap("|28085|8080/tcp", "|28088|8081/tcp")})
	if !errdefs.IsConflict(err) || !strings.Contains(err.Error(), "container box-"+b.id[:6]+" has it") {
		t.Errorf("another container's port: %v", err)
	}
	if got, err := get("127.0.0.1:28081"); err != nil || got != "a" {
		t.Errorf("after a change that failed: %q, %v", got, err)
	}
	for _, address := range []string{"127.0.0.1:28080", ":28081"} {
		if l, err := net.Listen("tcp4", address); err == nil {
			l.Close()
			t.Errorf("the host took %s", address)
		}
	}
	again := reopen(t, closed(t, s))
	live, _ := again.Live(a.id)
	if got := fmt.Sprint(live.Ports[network.MustParsePort("8080/tcp")]); got != "[{127.0.0.1 28080} {0.0.0.0 28081}]" {
		t.Errorf("in another life of the engine: %s", got)
	}
	if got, err := get("127.0.0.1:28081"); err != nil || got != "a" {
		t.Errorf("in another life of the engine: %q, %v", got, err)
	}
	s = again
}

func closed(t *testing.T, s *Service) Options {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return s.o
}

// TestPortsThatTheKernelRefuses: a change that does not come about is not shown as one that did.
func TestPortsThatTheKernelRefuses(t *testing.T) {
	s := open(t)
	a := newBox(t)
	a.attach(s, AllocateRequest{Ports: portMap("127.0.0.1|28090|8080/tcp")})
	table := func() *firewall.Table {
		f, err := firewall.Open(s.names.table + "-x")
		if err == nil {
			err = f.Swap()
		}
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	dispossessed := table()
	if err := dispossessed.Close(); err != nil {
		t.Fatal(err)
	}
	owner := table() // from now on the kernel lets nobody else change it
	defer func() {
		if err := errors.Join(owner.Delete(), owner.Close()); err != nil {
			t.Error(err)
		}
	}()
	mine := s.fire
	s.fire = dispossessed
	_, err := SetPorts(s, PortsRequest{ContainerID: a.id, Ports: portMap("127.0.0.1|28091|8080/tcp")})
	s.fire = mine
	if err == nil {
		t.Fatal("somebody else's table was changed")
	}
	live, _ := s.Live(a.id)
	if got := fmt.Sprint(live.Ports[network.MustParsePort("8080/tcp")]); got != "[{127.0.0.1 28090}]" {
		t.Errorf("after %v: %s", err, got)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if got := fmt.Sprint(s.holdings[a.id].Request.Ports); !strings.Contains(got, "28090") {
		t.Errorf("after %v it asks for %s", err, got)
	}
}
