package link

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/apart"
)

// TestMain runs the tests in a network namespace of their own.
func TestMain(m *testing.M) { apart.Tests(unix.CLONE_NEWNET, m.Run) }

// namespace makes a network namespace without a process.
func namespace(t *testing.T) *os.File {
	t.Helper()
	out := make(chan *os.File)
	go func() {
		runtime.LockOSThread() // the thread ends with the goroutine
		if unix.Unshare(unix.CLONE_NEWNET) != nil {
			close(out)
			return
		}
		f, _ := Home()
		out <- f
	}()
	f := <-out
	if f == nil {
		t.Fatal("make a network namespace")
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func dial(t *testing.T) *Conn {
	t.Helper()
	c, err := Dial()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func ip(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("ip", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("ip %q: %v: %s", args, err, out)
	}
	return string(out)
}

func bridge(t *testing.T, c *Conn, name string, addresses ...netip.Prefix) int {
	t.Helper()
	b := Bridge{Name: name, MTU: 1400, Addresses: addresses, MAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}}
	index, err := b.Ensure(c)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := b.Ensure(c); err != nil || again != index {
		t.Fatalf("the bridge that is there: %d, %v; not %d", again, err, index)
	}
	t.Cleanup(func() { Delete(c, 0, name) })
	return index
}

func TestPairAcrossNamespaces(t *testing.T) {
	c := dial(t)
	index := bridge(t, c, "br0", netip.MustParsePrefix("10.1.0.1/24"), netip.MustParsePrefix("fd01::1/64"))
	ns, home := namespace(t), func() *os.File {
		f, err := Home()
		if err != nil {
			t.Fatal(err)
		}
		return f
	}()
	defer home.Close()
	err := Inside(ns, home, func() error {
		inner, err := Dial()
		if err != nil {
			return err
		}
		defer inner.Close()
		p := Pair{Host: "host0", Inside: "eth0", Bridge: index, Namespace: ns, MAC: net.HardwareAddr{2, 0, 0, 0, 0, 7}, MTU: 1400, Isolated: true, Hairpin: true}
		if err := p.Add(c); err != nil {
			return err
		}
		if err := p.Add(c); !errors.Is(err, unix.EEXIST) || !strings.Contains(err.Error(), "host0") {
			return fmt.Errorf("the pair a second time: %v", err)
		}
		err = Configure(inner, []Interface{{
			Name:      "eth0",
			Addresses: []netip.Prefix{netip.MustParsePrefix("10.1.0.2/24"), netip.MustParsePrefix("fd01::2/64")},
			Gateways:  []netip.Addr{netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("fd01::1")},
		}})
		if err != nil {
			return err
		}
		for _, row := range []struct{ args, want string }{
			{"-o link show eth0", "02:00:00:00:00:07"}, {"-o link show eth0", "mtu 1400"}, {"-o link show lo", "LOOPBACK,UP"},
			{"-o addr show eth0", "10.1.0.2/24 brd 10.1.0.255"}, {"-o addr show eth0", "fd01::2/64"},
			{"route", "default via 10.1.0.1 dev eth0"}, {"-6 route", "default via fd01::1 dev eth0"},
			{"-d -o link show eth0", "numtxqueues 1 "},
		} {
			out, err := exec.Command("ip", strings.Fields(row.args)...).CombinedOutput()
			if err != nil || !strings.Contains(string(out), row.want) {
				t.Errorf("ip %s inside: %v, no %q in %s", row.args, err, row.want, out)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if out := ip(t, "-d", "-o", "link", "show", "host0"); !strings.Contains(out, "master br0") || !strings.Contains(out, "hairpin on") || !strings.Contains(out, "isolated on") || !strings.Contains(out, "addrgenmode none") {
		t.Errorf("the host's end: %s", out)
	}
	if out := ip(t, "-o", "link"); strings.Contains(out, "eth0") {
		t.Errorf("the inner end is outside: %s", out)
	}
	if out := ip(t, "-o", "addr", "show", "br0"); !strings.Contains(out, "10.1.0.1/24") || !strings.Contains(out, "fd01::1/64") {
		t.Errorf("the bridge: %s", out)
	}
}

func TestDeleteSeveral(t *testing.T) {
	c := dial(t)
	index := bridge(t, c, "br1", netip.MustParsePrefix("10.2.0.1/24"))
	ns := namespace(t)
	var names []string
	for i := range 20 {
		p := Pair{Host: fmt.Sprintf("end%d", i), Inside: fmt.Sprintf("eth%d", i), Bridge: index, Namespace: ns, MTU: 1500}
		if err := p.Add(c); err != nil {
			t.Fatal(err)
		}
		names = append(names, p.Host)
	}
	if err := Delete(c, 0x77000001, append(names[1:], "never-was")...); err != nil {
		t.Fatal(err)
	}
	if out := ip(t, "-o", "link"); strings.Contains(out, "end19") || !strings.Contains(out, "end0@") {
		t.Errorf("links: %s", out)
	}
	if err := Delete(c, 0, "end0"); err != nil {
		t.Fatal(err)
	}
	if err := Delete(c, 0, "end0"); err != nil {
		t.Errorf("a link that is gone: %v", err)
	}
	if _, err := c.Index("end0"); !errors.Is(err, unix.ENODEV) {
		t.Errorf("find a link that is gone: %v", err)
	}
}

func TestBridgeIsNoOtherLink(t *testing.T) {
	c := dial(t)
	ip(t, "link", "add", "other0", "type", "veth", "peer", "name", "other1")
	defer ip(t, "link", "del", "other0")
	if _, err := (Bridge{Name: "other0", MTU: 1500}).Ensure(c); err == nil || !strings.Contains(err.Error(), "another link") {
		t.Errorf("a bridge under another link's name: %v", err)
	}
}

// TestThreadsComeBack: whatever happens inside, no other goroutine finds itself in another namespace.
func TestThreadsComeBack(t *testing.T) {
	ns := namespace(t)
	home, err := Home()
	if err != nil {
		t.Fatal(err)
	}
	defer home.Close()
	where := func() uint64 {
		var st unix.Stat_t
		if err := unix.Stat("/proc/thread-self/ns/net", &st); err != nil {
			t.Error(err)
		}
		return st.Ino
	}
	here := where()
	for range 50 {
		err := Inside(ns, home, func() error {
			if where() == here {
				return errors.New("not inside")
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if where() != here {
			t.Fatal("a thread stayed inside")
		}
	}
	closed := namespace(t)
	closed.Close()
	if err := Inside(closed, home, func() error { return nil }); err == nil {
		t.Error("inside a closed namespace")
	}
	lost := namespace(t)
	lost.Close()
	if err := Inside(ns, lost, func() error { return nil }); err != nil { // the thread cannot come back and must not be used again
		t.Fatal(err)
	}
	for range 50 {
		done := make(chan uint64)
		go func() { done <- where() }()
		if <-done != here {
			t.Fatal("a thread that could not come back is in use")
		}
	}
}

func FuzzMessages(f *testing.F) {
	r := newRequest("x", unix.RTM_NEWLINK, 0)
	r.link(0, 1, 0, 0)
	r.text(unix.IFLA_IFNAME, "eth0")
	f.Add(r.finish(1))
	f.Add(binary.NativeEndian.AppendUint32(nil, 0xffffffff))
	f.Fuzz(func(t *testing.T, b []byte) {
		for m := range messages(b) {
			if len(m.body) >= unix.SizeofIfInfomsg {
				for _, value := range attributes(m.body[unix.SizeofIfInfomsg:]) {
					for range attributes(value) {
					}
				}
			}
		}
	})
}
