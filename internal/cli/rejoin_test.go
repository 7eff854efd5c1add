package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/client"
)

// dyingEngine ends with its first container's first words; an engine that comes after it answers with then.
func dyingEngine(t *testing.T, then http.Handler) (host string) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	listen := func(h http.Handler) *http.Server {
		l, err := net.Listen("unix", socket)
		if err != nil {
			t.Error(err)
			return nil
		}
		l.(*net.UnixListener).SetUnlinkOnClose(true)
		server := &http.Server{Handler: h}
		go server.Serve(l)
		t.Cleanup(func() { server.Close() })
		return server
	}
	e := newScriptedEngine(nil)
	var first *http.Server
	e.process = func(stdin io.Reader, stdout, stderr io.Writer) int {
		buf := make([]byte, 6)
		_, _ = io.ReadFull(stdin, buf)
		fmt.Fprint(stdout, "before ")
		fmt.Fprint(stderr, "E1 ")
		for end := time.Now().Add(time.Minute); unread(t, e.conn) > 0 && time.Now().Before(end); time.Sleep(time.Millisecond) {
		}
		time.Sleep(50 * time.Millisecond) // what was said has arrived: it is the connections' end that is tested
		first.Close()
		e.conn.Close()
		time.Sleep(100 * time.Millisecond)
		listen(then)
		select {}
	}
	first = listen(e)
	return "unix://" + socket
}

// unread is how much the other side of a connection has not read yet.
func unread(t *testing.T, c net.Conn) (n int) {
	raw, err := c.(*net.UnixConn).SyscallConn()
	if err == nil {
		err = errors.Join(raw.Control(func(fd uintptr) { n, err = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) }), err)
	}
	if err != nil {
		t.Error(err)
	}
	return n
}

func TestRunOutlivesItsEngine(t *testing.T) {
	again := newScriptedEngine(nil)
	again.state = "running"
	again.process = func(stdin io.Reader, stdout, stderr io.Writer) int {
		fmt.Fprint(stdout, "before ") // the log from its beginning
		fmt.Fprint(stderr, "E1 E2 ")
		fmt.Fprint(stdout, "between ")
		rest, _ := io.ReadAll(stdin)
		fmt.Fprintf(stdout, "after %s", rest)
		return 6
	}
	in, typed := io.Pipe()
	go func() {
		io.WriteString(typed, "first ")
		for len(again.requests()) == 0 { // the second engine is there
			time.Sleep(10 * time.Millisecond)
		}
		io.WriteString(typed, "second")
		typed.Close()
	}()
	var stdout, stderr strings.Builder
	code := Main(t.Context(), []string{"-H", dyingEngine(t, again), "run", "-i", "x"}, Streams{In: in, Out: &stdout, Err: &stderr})
	if code != 6 || stdout.String() != "before between after second" || stderr.String() != "WARNING: something to know\nE1 E2 " {
		t.Errorf("status %d, %q, %q after %v", code, stdout.String(), stderr.String(), again.requests())
	}
}

func TestRunThatEndedWithoutItsEngine(t *testing.T) {
	gone := func(events string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/events" {
				fmt.Fprint(w, events)
				return
			}
			answer(w, 404, `{"message":"No such container"}`)
		}
	}
	for events, want := range map[string]outcome{
		`{"Type":"container","Action":"die","Actor":{"Attributes":{"exitCode":"7"}}}`: {7, "before ", "E1 "},
		"": {125, "before ", "nobody knows its exit status any more"},
	} {
		got := runWherry(t, dyingEngine(t, gone(events)), "first ", "run", "--rm", "-i", "x")
		if got.code != want.code || got.stdout != want.stdout || !strings.Contains(got.stderr, want.stderr) {
			t.Errorf("%s: %+v", events, got)
		}
	}
	created := func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"Id":"`+fakeID+`","Config":{},"State":{"Status":"created"},"HostConfig":{}}`)
	}
	if got := runWherry(t, dyingEngine(t, http.HandlerFunc(created)), "first ", "run", "-i", "x"); got.code != 125 || !strings.Contains(got.stderr, "before it was started") {
		t.Errorf("what never ran has no exit status: %+v", got)
	}
	// Without --rm the container is there and says it.
	ended := newScriptedEngine(nil)
	ended.state = "exited"
	ended.replay = "before and after"
	ended.ended <- 9
	got := runWherry(t, dyingEngine(t, ended), "first ", "run", "-i", "x")
	if got.code != 9 || got.stdout != "before and after" {
		t.Errorf("%+v after %v", got, ended.requests())
	}
}

// TestRejoinSaysThatTheEngineHasGone: before it gives up.
func TestRejoinSaysThatTheEngineHasGone(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	c, err := client.New("unix://" + filepath.Join(t.TempDir(), "nobody"))
	if err != nil {
		t.Fatal(err)
	}
	said := writerFunc(func(p []byte) {
		cancel()
		if !strings.Contains(string(p), "the engine has gone") || !strings.Contains(string(p), shortID(fakeID)) {
			t.Errorf("it says %s", p)
		}
	})
	r := runner{app: &App{Streams: Streams{Err: said}, Client: func() (*client.Client, error) { return c, nil }}}
	_, err = r.rejoin(ctx, joined{id: fakeID, config: &container.Config{}, session: &session{}})
	if !errors.Is(err, errEngineGone) || ctx.Err() == nil {
		t.Errorf("error %v; it was told: %t", err, ctx.Err() != nil)
	}
}

type writerFunc func([]byte)

func (f writerFunc) Write(p []byte) (int, error) {
	f(p)
	return len(p), nil
}

func TestRejoinGivesUp(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	c, err := client.New("unix://" + filepath.Join(t.TempDir(), "nobody"))
	if err != nil {
		t.Fatal(err)
	}
	r := runner{app: &App{Client: func() (*client.Client, error) { return c, nil }}}
	_, err = r.rejoin(ctx, joined{id: fakeID, config: &container.Config{}, session: &session{}})
	var exit *exitError
	if !errors.As(err, &exit) || exit.code != 125 || !errors.Is(err, errEngineGone) {
		t.Errorf("error %v", err)
	}
}
