package docker_test

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"
)

// conversed is what a client hears of a run in one request.
type conversed struct {
	id, out, err string
	started      bool
	failure      string
	status       int // of the failure
	exit         *int
}

func hear(t *testing.T, r *bufio.Reader) (c conversed) {
	t.Helper()
	for {
		var head [8]byte
		if _, err := io.ReadFull(r, head[:]); err == io.EOF {
			return c
		} else if err != nil {
			t.Fatal(err)
		}
		data := make([]byte, binary.BigEndian.Uint32(head[4:]))
		if _, err := io.ReadFull(r, data); err != nil {
			t.Fatal(err)
		}
		switch head[0] {
		case 1:
			c.out += string(data)
		case 2:
			c.err += string(data)
		case 4:
			var n struct {
				ID      string `json:"Id"`
				Started bool
				Failure *struct {
					Status  int
					Message string
				}
				Exit *struct{ StatusCode int }
			}
			if err := json.Unmarshal(data, &n); err != nil {
				t.Fatal(err)
			}
			c.id, c.started = c.id+n.ID, c.started || n.Started
			if n.Failure != nil {
				c.failure, c.status = n.Failure.Message, n.Failure.Status
			}
			if n.Exit != nil {
				c.exit = &n.Exit.StatusCode
			}
		default:
			t.Fatalf("a frame of stream %d", head[0])
		}
	}
}

// TestRunInOneRequest: what is printed, how it ends and what stays, of runs that end well, badly and never begin.
func TestRunInOneRequest(t *testing.T) {
	e := start(t)
	run := func(fields string) (conversed, func(input string)) {
		conn, r, res := e.upgrade(t, "/wherry/run", `{"Image":"busybox:test","AttachStdout":true,"AttachStderr":true,`+fields+`}`)
		if res.StatusCode != 101 || res.Header.Get("Content-Type") != "application/vnd.wherry.run-stream" {
			t.Fatalf("%d %s", res.StatusCode, res.Header.Get("Content-Type"))
		}
		heard := make(chan conversed, 1)
		var c conversed
		send := func(input string) {
			_, _ = io.WriteString(conn, input)
			_ = conn.CloseWrite()
		}
		go func() { heard <- hear(t, r) }()
		if strings.Contains(fields, "AttachStdin") {
			send("typed\n")
		}
		c = <-heard
		t.Cleanup(func() { e.call(t, "DELETE", "/containers/"+c.id+"?force=1&v=1", "") })
		return c, send
	}
	c, _ := run(`"Cmd":["sh","-c","cat; echo e >&2; exit 3"],"AttachStdin":true,"OpenStdin":true,"StdinOnce":true`)
	if c.exit == nil || *c.exit != 3 || !c.started || c.out != "typed\n" || c.err != "e\n" {
		t.Errorf("%+v", c)
	}
	var about struct{ State struct{ ExitCode int } }
	if e.want(t, 200, "GET", "/containers/"+c.id+"/json", "", &about); about.State.ExitCode != 3 {
		t.Errorf("it stays: %+v", about)
	}
	c, _ = run(`"Cmd":["sh","-c","tty; exit 4"],"Tty":true,"HostConfig":{"AutoRemove":true}`)
	if c.exit == nil || *c.exit != 4 || c.out != "/dev/pts/0\r\n" && c.out != "/dev/console\r\n" && !strings.HasPrefix(c.out, "/dev/") {
		t.Errorf("on a terminal: %+v", c)
	}
	e.want(t, 404, "GET", "/containers/"+c.id+"/json", "", nil) // by the time that the end is told
	for _, remove := range []bool{false, true} {
		c, _ = run(fmt.Sprintf(`"Cmd":["/no/such/program"],"HostConfig":{"AutoRemove":%v}`, remove))
		if c.started || c.exit != nil || c.status != 400 || !strings.Contains(c.failure, "/no/such/program") {
			t.Errorf("what cannot be started: %+v", c)
		}
		e.want(t, 404, "GET", "/containers/"+c.id+"/json", "", nil)
	}
	e.want(t, 404, "POST", "/wherry/run", `{"Image":"no-such-image"}`, nil)
	e.want(t, 400, "POST", "/wherry/run", `{"Image":"busybox:test","HostConfig":{"PidMode":"odd"}}`, nil)
}

// TestExecInOneRequest: as a run.
func TestExecInOneRequest(t *testing.T) {
	e := start(t)
	id := e.create(t, `"Cmd":["sleep","1000"]`)
	e.want(t, 204, "POST", "/containers/"+id+"/start", "", nil)
	conn, r, res := e.upgrade(t, "/wherry/exec/"+id, `{"AttachStdin":true,"AttachStdout":true,"AttachStderr":true,"Cmd":["sh","-c","cat; echo e >&2; exit 5"]}`)
	if res.StatusCode != 101 {
		t.Fatal(res.Status)
	}
	_, _ = io.WriteString(conn, "typed\n")
	_ = conn.CloseWrite()
	c := hear(t, r)
	if c.exit == nil || *c.exit != 5 || c.out != "typed\n" || c.err != "e\n" || c.id == "" {
		t.Errorf("%+v", c)
	}
	for range 30 { // the id comes first, however soon it prints
		_, r, _ := e.upgrade(t, "/wherry/exec/"+id, `{"AttachStdout":true,"Cmd":["echo","x"]}`)
		if b, err := r.Peek(8); err != nil || b[0] != 4 {
			t.Fatalf("the first frame is % x, %v", b, err)
		}
		if c := hear(t, r); c.out != "x\n" || c.exit == nil {
			t.Fatalf("%+v", c)
		}
	}
	_, r, _ = e.upgrade(t, "/wherry/exec/"+id, `{"Cmd":["/no/such/program"],"AttachStdout":true}`)
	if c := hear(t, r); c.status != 400 || !strings.Contains(c.failure, "/no/such/program") || c.exit != nil || c.out != "" {
		t.Errorf("what cannot be executed: %+v", c)
	}
	e.want(t, 400, "POST", "/wherry/exec/"+id, `{"Cmd":[]}`, nil)
	e.want(t, 404, "POST", "/wherry/exec/nobody", `{"Cmd":["true"]}`, nil)
}

// TestRunOutlivesItsClient: a client that goes takes nothing with it.
func TestRunOutlivesItsClient(t *testing.T) {
	e := start(t)
	conn, r, _ := e.upgrade(t, "/wherry/run", `{"Image":"busybox:test","AttachStdout":true,"Cmd":["sh","-c","echo up; exec sleep 1000"],"HostConfig":{"AutoRemove":true}}`)
	for line := ""; !strings.Contains(line, "up"); {
		var err error
		if line, err = r.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	conn.Close()
	found := ""
	settles(t, "it runs without its client", func() bool { // what it prints may be here before its start is noted
		var list []struct {
			ID      string `json:"Id"`
			Command string
		}
		e.want(t, 200, "GET", "/containers/json", "", &list)
		for _, c := range list {
			if strings.Contains(c.Command, "echo up") {
				found = c.ID
			}
		}
		return found != ""
	})
	e.want(t, 204, "DELETE", "/containers/"+found+"?force=1", "", nil)
}
