package client

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMain is also the engine that tests start: a process of its own that listens and says what it sees.
func TestMain(m *testing.M) {
	if socket := os.Getenv("CLIENT_TEST_ENGINE"); socket != "" {
		engine(socket)
		return
	}
	os.Exit(m.Run())
}

func engine(socket string) {
	if os.Getenv("CLIENT_TEST_FAIL") != "" {
		fmt.Fprintln(os.Stderr, "a first line\nwherryd: the disk is on fire")
		os.Exit(3)
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		fmt.Fprintln(os.Stderr, "wherryd:", err)
		os.Exit(1)
	}
	done := make(chan struct{})
	http.HandleFunc("/about", func(w http.ResponseWriter, r *http.Request) {
		sid, _ := unix.Getsid(0)
		inherited, _ := os.Readlink("/proc/self/fd/" + r.URL.Query().Get("fd"))
		dir, _ := os.Getwd()
		fmt.Fprintf(w, `{"Pid":%d,"Sid":%d,"Inherited":%q,"Dir":%q}`, os.Getpid(), sid, inherited, dir)
	})
	http.HandleFunc("/end", func(http.ResponseWriter, *http.Request) { close(done) })
	go http.Serve(l, nil)
	select {
	case <-done:
	case <-time.After(time.Minute):
	}
}

// withEngine puts a wherryd in PATH that is this test's engine.
func withEngine(t *testing.T) (socket string) {
	t.Helper()
	dir := t.TempDir()
	socket = filepath.Join(dir, "state", "s")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	script := "#!/bin/sh\nCLIENT_TEST_ENGINE=" + socket + " exec " + self + "\n"
	if err := os.WriteFile(filepath.Join(dir, "wherryd"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return socket
}

func TestStartsTheEngine(t *testing.T) {
	socket := withEngine(t)
	// A descriptor that this process inherited, as from `flock FILE wherry …`.
	lock := filepath.Join(t.TempDir(), "lock")
	inherited, err := unix.Open(lock, unix.O_RDONLY|unix.O_CREAT, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(inherited)
	c, err := New("unix://" + socket)
	if err != nil {
		t.Fatal(err)
	}
	c.autoStart = true
	defer c.Close()
	var about struct {
		Pid, Sid       int
		Inherited, Dir string
	}
	if err := c.Get(t.Context(), "/about", url.Values{"fd": {strconv.Itoa(inherited)}}, &about); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Post(t.Context(), "/end", nil, nil, nil) }()
	if about.Pid == os.Getpid() || about.Sid != about.Pid {
		t.Errorf("the engine is process %d in session %d: it has to lead one of its own", about.Pid, about.Sid)
	}
	if about.Inherited == lock {
		t.Errorf("the engine has descriptor %d, which this process inherited", inherited)
	}
	if about.Dir != "/" {
		t.Errorf("the engine keeps %s in use", about.Dir)
	}
	if st, err := os.Stat(filepath.Dir(socket)); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("the state directory: %v, %v", st.Mode(), err)
	}
}

func TestAnEngineThatCannotStart(t *testing.T) {
	socket := withEngine(t)
	t.Setenv("CLIENT_TEST_FAIL", "1")
	c, err := New("unix://" + socket)
	if err != nil {
		t.Fatal(err)
	}
	c.autoStart = true
	err = c.Get(t.Context(), "/about", nil, nil)
	if err == nil || !strings.Contains(err.Error(), "the disk is on fire") || !strings.Contains(err.Error(), "wherryd.log") || strings.Contains(err.Error(), "a first line") {
		t.Errorf("error %v", err)
	}
}

func TestNoEngineToStart(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	c, err := New("unix://" + filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	c.autoStart = true
	if err := c.Get(t.Context(), "/about", nil, nil); err == nil || !strings.Contains(err.Error(), "neither beside wherry nor in PATH") {
		t.Errorf("error %v", err)
	}
}

func TestNobodyListens(t *testing.T) {
	dir := t.TempDir()
	stale := filepath.Join(dir, "stale")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := New("unix://" + plain)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Get(t.Context(), "/", nil, nil); err == nil || !strings.Contains(err.Error(), "that is no socket") {
		t.Errorf("a file: error %v", err)
	}
	for path, want := range map[string]string{stale: "nobody listens", filepath.Join(dir, "none"): "no such socket"} {
		c, err := New("unix://" + path)
		if err != nil {
			t.Fatal(err)
		}
		err = c.Get(t.Context(), "/", nil, nil)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "wherryd --host unix://"+path) {
			t.Errorf("%s: error %v", path, err)
		}
		_, err = c.Hijack(t.Context(), Request{Path: "/"})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v", path, err)
		}
	}
}

// TestNotPermitted asks as another user, in a process of its own.
func TestNotPermitted(t *testing.T) {
	dir, err := os.MkdirTemp("/tmp", "wherry-client-test-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := os.Chmod(filepath.Join(dir, "s"), 0o600); err != nil {
		t.Fatal(err)
	}
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "test")
	if err := os.WriteFile(program, self, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "-test.run=TestAskAsAnother", "-test.v")
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), "CLIENT_TEST_ASK="+filepath.Join(dir, "s"))
	cmd.SysProcAttr = &unix.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "user 65534 may not use the engine at unix://"+dir+"/s: only root, the engine's own user and members of its group (engine.group) may; try sudo") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestAskAsAnother(t *testing.T) {
	socket := os.Getenv("CLIENT_TEST_ASK")
	if socket == "" {
		return // it is the other half of TestNotPermitted
	}
	c, err := New("unix://" + socket)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println(c.Get(t.Context(), "/", nil, nil))
}

func serve(t *testing.T, h http.Handler) (*Client, *atomic.Int32) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	var conns atomic.Int32
	server := &http.Server{Handler: h, ConnState: func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			conns.Add(1)
		}
	}}
	go server.Serve(l)
	c, err := New("unix://" + socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); server.Close() })
	return c, &conns
}

func TestOneConnectionForManyRequests(t *testing.T) {
	c, conns := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.Method {
		case http.MethodGet:
			fmt.Fprintln(w, `{"A":1}`)
		case http.MethodPost:
			body, _ := io.ReadAll(r.Body)
			fmt.Fprintf(w, `{"A":%d}`, len(body))
		case http.MethodDelete:
			w.WriteHeader(http.StatusNoContent)
		case http.MethodPut:
			http.Error(w, `{"message":"no"}`, http.StatusConflict)
		case http.MethodHead:
			w.Header().Set("X-Word", r.URL.Query().Get("q"))
		}
	}))
	for range 5 {
		var got struct{ A int }
		if err := c.Get(t.Context(), "/x", nil, &got); err != nil || got.A != 1 {
			t.Fatal(got, err)
		}
		if err := c.Post(t.Context(), "/x", nil, []int{1, 2}, &got); err != nil || got.A != len("[1,2]") {
			t.Fatal(got, err)
		}
		if err := c.Delete(t.Context(), "/x", nil, &got); err != nil {
			t.Fatal(err)
		}
		if err := c.Put(t.Context(), "/x", nil, strings.NewReader("raw"), nil); Status(err) != http.StatusConflict || err.Error() != "no" {
			t.Fatal(err)
		}
		if h, err := c.Head(t.Context(), "/x", url.Values{"q": {"w"}}); err != nil || h.Get("X-Word") != "w" {
			t.Fatal(h, err)
		}
	}
	if n := conns.Load(); n != 1 {
		t.Errorf("%d connections were made, one is enough", n)
	}
}

func TestErrorsOfTheEngine(t *testing.T) {
	c, _ := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		code, _ := strconv.Atoi(r.URL.Query().Get("code"))
		w.WriteHeader(code)
		io.WriteString(w, r.URL.Query().Get("body"))
	}))
	for _, row := range []struct{ code, body, want string }{
		{"404", `{"message":"no such container: x"}`, "no such container: x"},
		{"500", "plain text\n", "plain text"},
		{"502", "", "the engine answered 502 Bad Gateway"},
	} {
		q := url.Values{"code": {row.code}, "body": {row.body}}
		_, hijacked := c.Hijack(t.Context(), Request{Path: "/x", Query: q})
		for _, err := range []error{c.Get(t.Context(), "/x", q, nil), hijacked} {
			var e *Error
			if !errors.As(err, &e) || strconv.Itoa(e.Status) != row.code || e.Message != row.want || IsNotFound(err) != (row.code == "404") {
				t.Errorf("%v: %v", row, err)
			}
		}
	}
	if err := c.Get(t.Context(), "/x", url.Values{"code": {"200"}, "body": {"{"}}, new(int)); err == nil || Status(err) != 0 {
		t.Errorf("an answer that is cut off: %v", err)
	}
}

// TestWhatIsSentCannotBeRead: that is told of the file, and not of the engine.
func TestWhatIsSentCannotBeRead(t *testing.T) {
	c, _ := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }))
	dir := t.TempDir()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Do(t.Context(), Request{Method: http.MethodPost, Path: "/x", Body: f}, nil); err == nil || err.Error() != "read "+dir+": is a directory" {
		t.Errorf("%v", err)
	}
}

func TestHijack(t *testing.T) {
	c, _ := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "tcp" || r.Header.Get("Connection") != "Upgrade" {
			http.Error(w, "upgrade", http.StatusBadRequest)
			return
		}
		conn, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		// The first output comes in the same write as the header.
		io.WriteString(conn, "HTTP/1.1 101 UPGRADED\r\nContent-Type: a/b\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nhello ")
		text, _ := io.ReadAll(rw)
		conn.Write(text)
	}))
	h, err := c.Hijack(t.Context(), Request{Path: "/x"})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if h.Header.Get("Content-Type") != "a/b" {
		t.Errorf("header %v", h.Header)
	}
	fmt.Fprint(h.Conn, "world")
	if err := h.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(bufio.NewReader(h.Reader)); err != nil || string(got) != "hello world" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestHijackEndsWithItsContext(t *testing.T) {
	c, _ := serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Hijack(ctx, Request{Path: "/x"}); err == nil {
		t.Error("a silent engine is waited for without end")
	}
}

func TestHosts(t *testing.T) {
	t.Setenv("WHERRY_HOST", "")
	for _, row := range []struct {
		flag, wherry, docker, want string
		named                      bool // the usual address is: no engine is started there
	}{
		{"", "", "", DefaultHost, false},
		{"unix:///a", "unix:///b", "unix:///c", "unix:///a", true},
		{"", "unix:///b", "unix:///c", "unix:///b", true},
		{"", "", "unix:///c", "unix:///c", true},
		{"/a//b", "", "", "unix:///a/b", true},
		{DefaultHost, "", "", DefaultHost, true},
		{"", DefaultHost, "", DefaultHost, true},
		{"", "", DefaultHost, DefaultHost, true},
	} {
		t.Setenv("WHERRY_HOST", row.wherry)
		t.Setenv("DOCKER_HOST", row.docker)
		c, err := New(row.flag)
		if err != nil || c.Host() != row.want || c.autoStart != (row.want == DefaultHost && !row.named) {
			t.Errorf("%+v: %v, %v", row, c, err)
		}
	}
	t.Setenv("DOCKER_TLS_VERIFY", "1")
	t.Setenv("WHERRY_HOST", "")
	for docker, want := range map[string]string{"tcp://1.2.3.4:2375": "tcp://1.2.3.4:2375", "tcp://x": "tcp://x:2376", "tcp://[::1]": "tcp://[::1]:2376"} {
		t.Setenv("DOCKER_HOST", docker)
		if c, err := New(""); err != nil || c.Host() != want || c.autoStart {
			t.Errorf("%s with TLS: %v %v", docker, c, err)
		}
	}
	t.Setenv("WHERRY_HOST", "http://x:1")
	if _, err := New(""); err == nil || !strings.HasPrefix(err.Error(), "WHERRY_HOST http://x:1: ") {
		t.Errorf("error %v", err)
	}
	for _, bad := range []string{"https://x:1", "ssh://", "ssh://-oProxyCommand=x", "ssh://u:secret@x", "ssh://x?y", "unix://relative", "relative", "npipe:////./pipe"} {
		if _, err := New(bad); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
}
