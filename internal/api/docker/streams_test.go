package docker_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/api/pkg/stdcopy"
	"golang.org/x/net/websocket"
	"golang.org/x/sys/unix"
)

// settles waits until ok says so.
func settles(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within two minutes: %s", what)
		}
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// TestFrozenClient: one that does not read stops neither the container nor the other clients, and gets every byte when it reads again.
func TestFrozenClient(t *testing.T) {
	e := start(t)
	const size = 4 << 20
	id := e.create(t, `"Cmd":["sh","-c","head -c 4194304 /dev/zero; exit 9"],"AttachStdout":true`)
	_, frozen, _ := e.upgrade(t, "/containers/"+id+"/attach?stream=1&stdout=1&stderr=1", "")
	_, quick, _ := e.upgrade(t, "/containers/"+id+"/attach?stream=1&stdout=1&stderr=1", "")
	e.want(t, 204, "POST", "/containers/"+id+"/start", "", nil)
	var n bytes.Buffer
	if _, err := stdcopy.StdCopy(&n, io.Discard, quick); err != nil || n.Len() != size {
		t.Errorf("the quick client got %d bytes of %d, %v", n.Len(), size, err)
	}
	var exit struct{ StatusCode int }
	e.want(t, 200, "POST", "/containers/"+id+"/wait", "", &exit)
	if exit.StatusCode != 9 {
		t.Errorf("exit %+v", exit)
	}
	n.Reset()
	if _, err := stdcopy.StdCopy(&n, io.Discard, frozen); err != nil || n.Len() != size {
		t.Errorf("the frozen client got %d bytes of %d, %v", n.Len(), size, err)
	}
}

// TestClientsComeAndGo: after clients of all kinds that vanish in all manners, the engine has as many goroutines and descriptors as before.
func TestClientsComeAndGo(t *testing.T) {
	e := start(t).straight()
	id := e.create(t, `"Cmd":["sh","-c","while :; do head -c 100000 /dev/zero; sleep 0.2; done"],"OpenStdin":true`)
	e.want(t, 204, "POST", "/containers/"+id+"/start", "", nil)
	exec := func() string {
		var x struct {
			ID string `json:"Id"`
		}
		e.want(t, 201, "POST", "/containers/"+id+"/exec", `{"AttachStdin":true,"AttachStdout":true,"Cmd":["sh","-c","head -c 300000 /dev/zero; cat"]}`, &x)
		return x.ID
	}
	visit := func(kind int) {
		var c *net.UnixConn
		switch kind {
		case 0: // never reads
			c, _, _ = e.upgrade(t, "/containers/"+id+"/attach?stream=1&stdout=1&stdin=1", "")
		case 1: // closes its side first
			c, _, _ = e.upgrade(t, "/containers/"+id+"/attach?stream=1&stdout=1&stdin=1&logs=1", "")
			_ = c.CloseWrite()
		case 2: // an exec that is blocked by its client
			c, _, _ = e.upgrade(t, "/exec/"+exec()+"/start", `{}`)
		case 3: // a follower of the log that reads a little
			r, err := e.http.Get("http://e/containers/" + id + "/logs?stdout=1&follow=1")
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = io.ReadFull(r.Body, make([]byte, 1000))
			r.Body.Close()
			return
		}
		c.Close()
	}
	for kind := range 4 {
		visit(kind)
	}
	e.http.CloseIdleConnections()
	var goroutines, files int
	settled := 0
	settles(t, "the first clients are gone", func() bool { // the numbers have to stand still for a while
		g, f := runtime.NumGoroutine(), openFiles(t)
		if g != goroutines || f != files {
			goroutines, files, settled = g, f, 0
		}
		settled++
		return settled > 150
	})
	var wg sync.WaitGroup
	for kind := range 4 {
		wg.Go(func() {
			for range 25 {
				visit(kind)
			}
		})
	}
	wg.Wait()
	e.http.CloseIdleConnections()
	settles(t, "goroutines and descriptors are back", func() bool { return runtime.NumGoroutine() <= goroutines && openFiles(t) <= files })
	if t.Failed() {
		return
	}
	var about struct {
		State   struct{ Running bool }
		ExecIDs []string
	}
	settles(t, "the execs end with their input", func() bool {
		e.want(t, 200, "GET", "/containers/"+id+"/json", "", &about)
		return len(about.ExecIDs) == 0
	})
	if !about.State.Running {
		t.Error("the container ended with its clients")
	}
}

// TestExecStream has frames, both streams, input with an end, and afterwards the exit code, for each of many at a time.
func TestExecStream(t *testing.T) {
	e := start(t)
	id := e.create(t, `"Cmd":["sleep","1000"]`)
	e.want(t, 204, "POST", "/containers/"+id+"/start", "", nil)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			var x struct {
				ID string `json:"Id"`
			}
			e.want(t, 201, "POST", "/containers/"+id+"/exec", `{"AttachStdin":true,"AttachStdout":true,"AttachStderr":true,"Cmd":["sh","-c","cat; echo bad >&2; exit 3"]}`, &x)
			c, br, r := e.upgrade(t, "/exec/"+x.ID+"/start", `{"Detach":false,"Tty":false}`)
			if r.StatusCode != http.StatusSwitchingProtocols || r.Header.Get("Upgrade") != "tcp" {
				t.Errorf("exec start: %s %v", r.Status, r.Header)
				return
			}
			typed := strings.Repeat(string(rune('a'+i)), 300_000)
			go func() {
				_, _ = io.WriteString(c, typed)
				_ = c.CloseWrite()
			}()
			var out, errs bytes.Buffer
			if _, err := stdcopy.StdCopy(&out, &errs, br); err != nil || out.String() != typed || errs.String() != "bad\n" {
				t.Errorf("%d bytes of %d, %q, %v", out.Len(), len(typed), errs.String(), err)
			}
			var about struct{ ExitCode *int }
			_, body := e.call(t, "GET", "/exec/"+x.ID+"/json", "")
			if err := json.Unmarshal([]byte(body), &about); err != nil || about.ExitCode == nil || *about.ExitCode != 3 {
				t.Errorf("exit code in %s", body)
			}
		})
	}
	wg.Wait()
}

// TestExecIsStartedOnce: docker compose watch attaches to an exec and starts it once more; as with dockerd, that is an answer with a line in it.
func TestExecIsStartedOnce(t *testing.T) {
	e := start(t)
	id := e.create(t, `"Cmd":["sleep","1000"]`)
	e.want(t, 204, "POST", "/containers/"+id+"/start", "", nil)
	var x struct {
		ID string `json:"Id"`
	}
	e.want(t, 201, "POST", "/containers/"+id+"/exec", `{"AttachStdin":true,"AttachStdout":true,"Cmd":["sh","-c","cat; exit 3"]}`, &x)
	c, br, _ := e.upgrade(t, "/exec/"+x.ID+"/start", `{}`)
	again := func(body, want string, code int) {
		t.Helper()
		if status, said := e.call(t, "POST", "/exec/"+x.ID+"/start", body); status != code || !strings.Contains(said, want) {
			t.Errorf("%s: %d %q", body, status, said)
		}
	}
	again(`{}`, "is already running\r\n", 200)
	again(`{"Detach":true}`, "is already running", 409)
	_, _ = io.WriteString(c, "typed")
	_ = c.CloseWrite()
	var out bytes.Buffer
	if _, err := stdcopy.StdCopy(&out, io.Discard, br); err != nil || out.String() != "typed" {
		t.Errorf("%q %v", &out, err)
	}
	again(`{}`, "has already run\r\n", 200)
	var about struct{ ExitCode int }
	if e.want(t, 200, "GET", "/exec/"+x.ID+"/json", "", &about); about.ExitCode != 3 {
		t.Errorf("it ended with %d", about.ExitCode)
	}
}

// TestAttachSocket: attach as browsers do it.
// TestWaitComesAfterWhatIsRead: an event loop that finds output and the answer to wait at once may take the answer first, so that is not
// sent before the output was read.
func TestWaitComesAfterWhatIsRead(t *testing.T) {
	e := start(t)
	id := e.create(t, `"Cmd":["echo","out"],"Tty":true`)
	c, err := net.Dial("unix", e.direct) // a recorder reads at once
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "POST /containers/"+id+"/attach?stream=1&stdout=1 HTTP/1.1\r\nHost: e\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(c)
	if _, err := http.ReadResponse(r, nil); err != nil {
		t.Fatal(err)
	}
	e.want(t, 204, "POST", "/containers/"+id+"/start", "", nil)
	read := make(chan string, 1)
	go func() {
		time.Sleep(50 * time.Millisecond) // the client is at something else
		out, err := io.ReadAll(r)
		read <- fmt.Sprintf("%q %v", out, err)
	}()
	e.want(t, 200, "POST", "/containers/"+id+"/wait", "", nil)
	// The engine ends the stream after it has answered: what counts is that the output is no longer in the socket.
	raw, err := c.(*net.UnixConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	unread := 0
	if err := raw.Control(func(fd uintptr) { unread, _ = unix.IoctlGetInt(int(fd), unix.TIOCINQ) }); err != nil || unread > 0 {
		t.Errorf("%d bytes of output are unread at the answer, error %v", unread, err)
	}
	if got := <-read; got != `"out\r\n" <nil>` {
		t.Error(got)
	}
}

func TestAttachSocket(t *testing.T) {
	e := start(t)
	id := e.create(t, `"Cmd":["sh","-c","read x; echo got $x; exit 2"],"OpenStdin":true,"Tty":true`)
	c, err := net.Dial("unix", e.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	config, err := websocket.NewConfig("ws://e/containers/"+id+"/attach/ws?stream=1&stdin=1&stdout=1", "http://e")
	if err != nil {
		t.Fatal(err)
	}
	ws, err := websocket.NewClient(config, c)
	if err != nil {
		t.Fatal(err)
	}
	e.want(t, 204, "POST", "/containers/"+id+"/start", "", nil)
	if err := websocket.Message.Send(ws, []byte("word\n")); err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(ws)
	if err != nil || !strings.Contains(string(out), "got word\r\n") {
		t.Errorf("%q %v", out, err)
	}
	var exit struct{ StatusCode int }
	e.want(t, 200, "POST", "/containers/"+id+"/wait", "", &exit)
	if exit.StatusCode != 2 {
		t.Errorf("exit %+v", exit)
	}
}
