package localhost

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/apart"
	"wherry.dev/wherry/internal/cgroup"
)

// TestMain runs the tests in a network namespace of their own, whose processes alone are redirected.
func TestMain(m *testing.M) { apart.Tests(unix.CLONE_NEWNET|unix.CLONE_NEWNS, m.Run) }

func open(t *testing.T, note string) *Redirect {
	t.Helper()
	r, err := Open(cgroup.UnifiedRoot(), note)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// listen has a program answer with a word at an address.
func listen(t *testing.T, network, address, word string) (port uint16, end func()) {
	t.Helper()
	if strings.HasPrefix(network, "udp") {
		c, err := net.ListenPacket(network, address)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			buf := make([]byte, 64)
			for {
				_, from, err := c.ReadFrom(buf)
				if err != nil {
					return
				}
				c.WriteTo([]byte(word), from)
			}
		}()
		t.Cleanup(func() { c.Close() })
		return uint16(c.LocalAddr().(*net.UDPAddr).Port), func() { c.Close() }
	}
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Write([]byte(word))
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close() })
	return uint16(l.Addr().(*net.TCPAddr).Port), func() { l.Close() }
}

// ask connects and returns the word, or "refused".
func ask(network, address string) string {
	c, err := net.DialTimeout(network, address, 5*time.Second)
	if err != nil {
		return refused(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	if network == "udp" {
		c.Write([]byte("?"))
	}
	buf := make([]byte, 64)
	n, err := c.Read(buf)
	if err != nil {
		return refused(err)
	}
	return string(buf[:n])
}

func refused(err error) string {
	if strings.Contains(err.Error(), "refused") {
		return "refused"
	}
	return err.Error()
}

func TestRedirect(t *testing.T) {
	r := open(t, filepath.Join(t.TempDir(), "note"))
	for network, proto := range map[string]uint8{"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP} {
		port, _ := listen(t, network, "127.0.0.1:0", "four")
		at := fmt.Sprintf("[::1]:%d", port)
		expect := func(when, want string) {
			t.Helper()
			if got := ask(network, at); got != want {
				t.Errorf("%s, %s: %q, not %q", network, when, got, want)
			}
		}
		expect("not published", "refused")
		r.Publish(proto, port-1, port-1)
		r.Publish(unix.IPPROTO_TCP+unix.IPPROTO_UDP-proto, port, port)
		r.Publish(unix.IPPROTO_SCTP, port, port)
		expect("others published", "refused")
		r.Publish(proto, port, port)
		r.Publish(proto, port-10, port+10)
		expect("published", "four")
		r.Withdraw(proto, port, port)
		expect("published in a row", "four")
		_, end := listen(t, network, at, "six")
		expect("with a program at [::1]", "six")
		end()
		expect("when that has gone", "four")
		_, end = listen(t, network+"6", fmt.Sprintf("[::]:%d", port), "all")
		expect("with a program at [::]", "all")
		end()
		r.Withdraw(proto, port-10, port+10)
		expect("taken back", "refused")
	}
}

// TestEnds: what is published stays so while somebody holds the program, until a later life has its own.
func TestEnds(t *testing.T) {
	port, _ := listen(t, "tcp", "127.0.0.1:0", "four")
	at, note := fmt.Sprintf("[::1]:%d", port), filepath.Join(t.TempDir(), "note")
	first := open(t, note)
	first.Publish(unix.IPPROTO_TCP, port, port)
	fd, err := unix.FcntlInt(first.Link().Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		t.Fatal(err)
	}
	held := os.NewFile(uintptr(fd), "held")
	defer held.Close()
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	first.Publish(unix.IPPROTO_TCP, 1, 1)
	if got := ask("tcp", at); got != "four" {
		t.Errorf("held by somebody else: %q", got)
	}
	second := open(t, note)
	if got := ask("tcp", at); got != "refused" {
		t.Errorf("a later life that publishes nothing: %q", got)
	}
	other := filepath.Join(t.TempDir(), "note") // of another engine, which has by chance the number that is written there
	id, err := linkID(int(second.Link().Fd()))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(other, fmt.Append(nil, id), 0o600); err != nil {
		t.Fatal(err)
	}
	open(t, other)
	second.Publish(unix.IPPROTO_TCP, port, port)
	if got := ask("tcp", at); got != "four" {
		t.Errorf("beside another engine: %q", got)
	}
	third := open(t, note)
	third.Publish(unix.IPPROTO_TCP, port, port)
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
	if got := ask("tcp", at); got != "four" {
		t.Errorf("published by the last life: %q", got)
	}
	if err := third.Close(); err != nil {
		t.Fatal(err)
	}
	if got := ask("tcp", at); got != "refused" {
		t.Errorf("when nobody holds it: %q", got)
	}
}

// TestOtherNamespaces: what is in another network namespace is not touched.
func TestOtherNamespaces(t *testing.T) {
	r := open(t, filepath.Join(t.TempDir(), "note"))
	r.Publish(unix.IPPROTO_TCP, 1, 65535)
	done := make(chan string)
	go func() {
		runtime.LockOSThread() // the thread is not used again
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- err.Error()
			return
		}
		if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
			done <- fmt.Sprintf("%v: %s", err, out)
			return
		}
		port, _ := listen(t, "tcp", "127.0.0.1:0", "four")
		done <- ask("tcp", fmt.Sprintf("127.0.0.1:%d", port)) + " " + ask("tcp", fmt.Sprintf("[::1]:%d", port))
	}()
	if got := <-done; got != "four refused" {
		t.Errorf("%s", got)
	}
	var none *Redirect
	none.Publish(unix.IPPROTO_TCP, 1, 1)
	none.Withdraw(unix.IPPROTO_TCP, 1, 1)
	if none.Link() != nil || none.Close() != nil {
		t.Error("a redirect that is none")
	}
}
