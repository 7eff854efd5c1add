package container

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
)

// collector is a syslog server by TCP that can go away and come again.
type collector struct {
	t  *testing.T
	at string

	mu    sync.Mutex // guards what follows
	l     net.Listener
	conns []net.Conn
	lines []string
}

func collect(t *testing.T) *collector {
	c := &collector{t: t, at: "127.0.0.1:0"}
	c.listen()
	t.Cleanup(c.leave)
	return c
}

func (c *collector) listen() {
	c.t.Helper()
	l, err := net.Listen("tcp", c.at)
	if err != nil {
		c.t.Fatal(err)
	}
	c.mu.Lock()
	c.l, c.at = l, l.Addr().String()
	c.mu.Unlock()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			c.mu.Lock()
			c.conns = append(c.conns, conn)
			c.mu.Unlock()
			go func() {
				for s := bufio.NewScanner(conn); s.Scan(); {
					_, text, _ := strings.Cut(s.Text(), "]: ")
					c.mu.Lock()
					c.lines = append(c.lines, text)
					c.mu.Unlock()
				}
			}()
		}
	}()
}

// leave closes what there is.
func (c *collector) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.l.Close()
	for _, conn := range c.conns {
		conn.Close()
	}
	c.conns = nil
}

// got are the lines that have come; each once, however often.
func (c *collector) got() (lines []string, twice int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	seen := map[string]bool{}
	for _, l := range c.lines {
		if seen[l] {
			twice++
			continue
		}
		seen[l] = true
		lines = append(lines, l)
	}
	return lines, twice
}

// has says that the lines NAME-1 to NAME-n have come, in their order.
func (c *collector) has(name string, n int) bool {
	lines, _ := c.got()
	next := 1
	for _, l := range lines {
		if l == name+"-"+strconv.Itoa(next) {
			next++
		}
	}
	return next == n+1
}

func (c *collector) config() container.LogConfig {
	return container.LogConfig{Type: "syslog", Config: map[string]string{"syslog-address": "tcp://" + c.at, "tag": "{{.Name}}"}}
}

// counts is a command that prints lines with numbers.
func counts(name string, from, to int) string {
	return fmt.Sprintf("i=%d; while [ $i -le %d ]; do echo %s-$i; i=$((i+1)); done; ", from, to, name)
}

// TestForward: what containers print comes to where their log driver sends it, once, whatever becomes of the engine and the target meanwhile.
func TestForward(t *testing.T) {
	e, c := newEngine(t), collect(t)
	run := func(name, script string, h container.HostConfig) string {
		t.Helper()
		h.LogConfig = c.config()
		return e.run(request{name: name, cmd: []string{"sh", "-c", script}, h: h})
	}
	all := func(name string, n int) {
		t.Helper()
		e.eventually("all lines of "+name, func() bool { return c.has(name, n) })
	}
	run("short", counts("short", 1, 300), container.HostConfig{AutoRemove: true})
	all("short", 300)
	for i := range 20 { // removed as soon as may be
		name := fmt.Sprint("brief", i)
		run(name, "echo "+name+"-1", container.HostConfig{AutoRemove: true})
		all(name, 1)
	}

	// A stop and a start, an engine that is started anew in the middle of a line, and while none runs.
	step := filepath.Join(t.TempDir(), "step")
	if err := os.MkdirAll(step, 0o777); err != nil {
		t.Fatal(err)
	}
	wait := func(n int) string { return fmt.Sprintf("while [ ! -e /step/%d ]; do sleep 0.02; done; ", n) }
	pass := func(n int) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(step, strconv.Itoa(n)), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	id := run("long", counts("long", 1, 100)+"printf long-10; { "+counts("other", 1, 50)+"} >&2; "+wait(1)+"echo 1; "+counts("long", 102, 200)+wait(2)+counts("long", 201, 300)+"printf long-301",
		container.HostConfig{Binds: []string{step + ":/step"}})
	all("long", 100)
	all("other", 50)
	e.close()
	pass(1)
	e.open()
	all("long", 200)
	if lines, twice := c.got(); twice > 0 {
		t.Errorf("%d lines came twice to a target that was there: %q", twice, lines[max(0, len(lines)-20):])
	}
	if e.output(id) == "" {
		t.Error("logs are empty")
	}

	// The target goes away; what is printed meanwhile comes when it is there again.
	c.leave()
	pass(2)
	e.eventually("its end", func() bool { return !e.rec(id).Status.Alive() })
	c.listen()
	all("long", 301)
	e.again()
	e.start(id)
	e.eventually("its end", func() bool { return !e.rec(id).Status.Alive() })
	before := len(c.all())
	e.again() // with nothing to send
	if after := len(c.all()); after < before {
		t.Errorf("%d lines, %d before", after, before)
	}
	if err := e.Remove(t.Context(), id, RemoveOptions{}); err != nil {
		t.Error(err)
	}

	for _, bad := range []container.LogConfig{{Type: "syslog", Config: map[string]string{"syslog-address": "ftp://x"}}, {Type: "gelf"}, {Type: "splunk"}, {Type: "journald", Config: map[string]string{"syslog-address": "udp://x"}}} {
		if _, err := e.tryCreate(request{name: "bad", h: container.HostConfig{LogConfig: bad}}); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%v: %v", bad, err)
		}
	}
}

func (c *collector) all() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string{}, c.lines...)
}

// TestForwardIsRemoved: a container whose target never answers can be removed, and leaves nothing.
func TestForwardIsRemoved(t *testing.T) {
	e, c := newEngine(t), collect(t)
	c.leave()
	for _, rm := range []bool{false, true} {
		id := e.run(request{name: fmt.Sprint("lost", rm), cmd: []string{"sh", "-c", counts("lost", 1, 10)}, h: container.HostConfig{AutoRemove: rm, LogConfig: c.config()}})
		if !rm {
			e.eventually("its end", func() bool { return !e.rec(id).Status.Alive() })
			if err := e.Remove(t.Context(), id, RemoveOptions{}); err != nil {
				t.Error(err)
			}
		}
		dir := filepath.Join(e.o.Root, "containers", id)
		e.eventually("its removal", func() bool { _, err := os.Stat(dir); return errors.Is(err, os.ErrNotExist) })
	}
}
