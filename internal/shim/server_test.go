package shim

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// refusing is a runtime that makes no container: what a server does around that is under test here; real containers are package task's.
type refusing struct{}

func (refusing) Create(context.Context, Config, Streams) (Container, error) {
	return nil, errors.New("no container today")
}

func (refusing) Restore(context.Context, Config, Streams, Restore) (Container, error) {
	return nil, errors.New("this runtime creates nothing")
}

// serve runs a server with one client and says when it ended.
func serve(t *testing.T) (address *net.UnixAddr, first *Conn, ended chan error) {
	t.Helper()
	dir := t.TempDir()
	config := Config{ID: "x", Log: LogConfig{Dir: filepath.Join(dir, "log")}, Spec: &specs.Spec{Process: &specs.Process{Args: []string{"true"}}}}
	if err := WriteJSON(filepath.Join(dir, TaskFile), config); err != nil {
		t.Fatal(err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: filepath.Join(dir, SocketFile)})
	if err != nil {
		t.Fatal(err)
	}
	ended = make(chan error, 1)
	ours, theirs := pair(t)
	go func() { ended <- NewServer(dir, refusing{}).Serve(t.Context(), l, NewConn(theirs)) }()
	return l.Addr().(*net.UnixAddr), NewConn(ours), ended
}

func dial(t *testing.T, to *net.UnixAddr) *Conn {
	t.Helper()
	c, err := net.DialUnix("unix", nil, to)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	t.Cleanup(func() { c.Close() })
	return NewConn(c)
}

func ask(t *testing.T, c *Conn, r Request) Response {
	t.Helper()
	if err := c.Send(r); err != nil {
		t.Fatal(err)
	}
	var resp Response
	if _, err := c.Receive(&resp); err != nil || resp.N != r.N {
		t.Fatalf("%+v: %+v, %v", r, resp, err)
	}
	return resp
}

func TestRequestsWithoutContainer(t *testing.T) {
	_, c, _ := serve(t)
	for i, method := range []string{MethodStart, MethodKill, MethodExec, MethodExecWait, MethodExecKill, MethodResize, "nonsense", "", MethodCreate} {
		if resp := ask(t, c, Request{N: uint64(i + 1), Method: method}); resp.Error == "" {
			t.Errorf("%q is answered without an error", method)
		}
	}
	for i, method := range []string{MethodState, MethodStdin, MethodCloseStdin} {
		if resp := ask(t, c, Request{N: uint64(i + 100), Method: method}); resp.Error != "" || resp.Pid != 0 {
			t.Errorf("%q: %+v", method, resp)
		}
	}
}

// TestEndsWithItsClients: a shim that has no container ends when the last client has gone, and by Delete.
func TestEndsWithItsClients(t *testing.T) {
	for _, how := range []string{"gone", "delete"} {
		to, first, ended := serve(t)
		second := dial(t, to)
		ask(t, first, Request{N: 1, Method: MethodState})
		ask(t, second, Request{N: 1, Method: MethodState})
		first.Close()
		select {
		case err := <-ended:
			t.Fatalf("it ended while a client was there: %v", err)
		case <-time.After(50 * time.Millisecond):
		}
		if how == "delete" {
			ask(t, second, Request{N: 2, Method: MethodDelete})
		} else {
			second.Close()
		}
		select {
		case err := <-ended:
			if err != nil {
				t.Fatal(err)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%s: it does not end", how)
		}
	}
}

// TestOutlastsAShortage: where there is no descriptor for one more client the shim, which is a container's parent, goes on, and lets it in later.
func TestOutlastsAShortage(t *testing.T) {
	to, first, ended := serve(t)
	ask(t, first, Request{N: 1, Method: MethodState})
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var usual unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &usual); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 3, Max: usual.Max}); err != nil {
		t.Fatal(err)
	}
	err = unix.Connect(fd, &unix.SockaddrUnix{Name: to.Name})
	ask(t, first, Request{N: 2, Method: MethodState})
	var gone error
	select {
	case gone = <-ended:
	case <-time.After(2 * acceptAgain):
	}
	if again := unix.Setrlimit(unix.RLIMIT_NOFILE, &usual); again != nil || err != nil || gone != nil {
		t.Fatalf("limit %v, connect %v, the shim: %v", again, err, gone)
	}
	f := os.NewFile(uintptr(fd), "client")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	ask(t, NewConn(c.(*net.UnixConn)), Request{N: 1, Method: MethodState})
}

// TestAStreamThatIsGone: who asks for the container's input at the moment when it is closed gets an answer.
func TestAStreamThatIsGone(t *testing.T) {
	ours, theirs := pair(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	w.Close()
	s := NewServer(t.TempDir(), refusing{})
	s.life.stdin = w
	_ = ours.SetDeadline(time.Now().Add(20 * time.Second))
	_ = s.answer(t.Context(), NewConn(theirs), Request{N: 7, Method: MethodStdin}, nil)
	var resp Response
	if files, err := NewConn(ours).Receive(&resp); err != nil || resp.N != 7 || resp.Error == "" || len(files) != 0 {
		t.Errorf("%+v, %v", resp, err)
	}
}
