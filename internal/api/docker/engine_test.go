package docker_test

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/apart"
	"wherry.dev/wherry/internal/api/docker"
	"wherry.dev/wherry/internal/audit"
	"wherry.dev/wherry/internal/container"
	"wherry.dev/wherry/internal/contract"
	"wherry.dev/wherry/internal/disk"
	"wherry.dev/wherry/internal/event"
	"wherry.dev/wherry/internal/files"
	"wherry.dev/wherry/internal/image"
	"wherry.dev/wherry/internal/monitor"
	"wherry.dev/wherry/internal/network"
	"wherry.dev/wherry/internal/secret"
	"wherry.dev/wherry/internal/settings"
	"wherry.dev/wherry/internal/version"
	"wherry.dev/wherry/internal/volume"
)

// TestMain runs the tests a second time in network and mount namespaces of their own, against the real services.
func TestMain(m *testing.M) {
	apart.Tests(unix.CLONE_NEWNET|unix.CLONE_NEWNS, func() int {
		code := m.Run()
		if shared != nil && !shared.close() {
			code = 1
		}
		return code
	})
}

// engine is a whole one, in this process, behind a socket.
type engine struct {
	dir    string
	socket string // of the recorder
	direct string // of the engine
	http   *http.Client
	record *contract.Recorder // what goes through socket is held against Docker's specification
	server *docker.Server

	services docker.Services
	closes   []func() error
}

var shared *engine

// start opens the engine that all tests share; it is started with the first test that needs it.
func start(t *testing.T) *engine {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	if shared != nil {
		return shared
	}
	dir, err := os.MkdirTemp("/var/tmp", "wherry-api-")
	if err != nil {
		t.Fatal(err)
	}
	e := &engine{dir: dir, socket: filepath.Join(dir, "s"), direct: filepath.Join(dir, "engine")}
	shared = e
	oar := filepath.Join(dir, "oar")
	build := exec.Command("go", "build", "-mod=mod", "-o", oar, "wherry.dev/wherry/cmd/oar")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build oar: %v\n%s", err, out)
	}
	e.open(t, oar)
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", e.socket)
	}
	e.http = &http.Client{Transport: &http.Transport{DialContext: dial}}
	e.load(t)
	return e
}

func (e *engine) open(t *testing.T, oar string) {
	t.Helper()
	ctx := context.Background()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	root, state := filepath.Join(e.dir, "root"), filepath.Join(e.dir, "state")
	must(os.MkdirAll(root, 0o700))
	must(os.MkdirAll(state, 0o700))
	s := docker.Services{Events: event.New()}
	var err error
	s.Audit, err = audit.Open(audit.Options{Dir: filepath.Join(root, "audit"), Log: func(err error) { t.Error(err) }})
	must(err)
	s.Volumes, err = volume.Open(volume.Options{Root: filepath.Join(root, "volumes"), Events: s.Events})
	must(err)
	for kind, into := range map[secret.Kind]**secret.Service{secret.Secret: &s.Secrets, secret.Config: &s.Configs} {
		*into, err = secret.Open(filepath.Join(root, string(kind)+"s"), kind, s.Events, nil)
		must(err)
	}
	s.Images, err = image.Open(ctx, image.Options{Root: root, Oar: oar, Events: s.Events})
	must(err)
	s.Networks, err = network.Open(ctx, network.Options{Root: root, State: state, Events: s.Events})
	must(err)
	s.Containers, err = container.Open(ctx, container.Options{Root: root, State: state, Oar: oar, CgroupParent: fmt.Sprintf("/wherry-api-%d", os.Getpid()),
		Images: s.Images, Networks: s.Networks, Volumes: s.Volumes, Secrets: s.Secrets, Configs: s.Configs, Events: s.Events})
	must(err)
	s.Files, s.Monitor = files.New(s.Containers, s.Images, s.Volumes, s.Events), monitor.New(s.Containers, s.Events)
	s.Disk = &disk.Service{Root: root, Images: s.Images, Containers: s.Containers, Volumes: s.Volumes, Files: s.Files}
	s.Cleaner = image.NewCleaner(s.Images, settings.Default().CleanUp, slog.New(slog.DiscardHandler))
	e.closes = []func() error{s.Containers.Close, s.Networks.Close, s.Images.Close, s.Volumes.Close, s.Audit.Close}
	l, err := net.Listen("unix", e.direct)
	must(err)
	spec, err := contract.Open(version.API)
	must(err)
	e.record, err = contract.Record(spec, e.socket, e.direct)
	must(err)
	e.services = s
	e.server = docker.New(s, docker.About{ID: "test", Root: root, State: state, Started: time.Now()}, slog.New(slog.NewTextHandler(io.Discard, nil)))
	go func() { _ = e.server.Serve(ctx, l) }()
}

// straight is the engine without the recorder between, for tests that count what connections hold in this process.
func (e *engine) straight() *engine {
	out := &engine{dir: e.dir, socket: e.direct, direct: e.direct}
	out.http = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", e.direct)
	}}}
	return out
}

// close removes every container and ends the engine; it says whether all went well.
func (e *engine) close() bool {
	kept := true
	if e.http != nil {
		var list []struct {
			ID string `json:"Id"`
		}
		if r, err := e.http.Get("http://e/containers/json?all=1"); err == nil {
			_ = json.NewDecoder(r.Body).Decode(&list)
			r.Body.Close()
		}
		for _, c := range list {
			req, _ := http.NewRequest(http.MethodDelete, "http://e/containers/"+c.ID+"?force=1&v=1", nil)
			if r, err := e.http.Do(req); err == nil {
				r.Body.Close()
			}
		}
	}
	if e.record != nil {
		kept = contract.Report(os.Stderr, e.record)
	}
	if e.server != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		_ = e.server.Close(ctx)
		cancel()
	}
	for _, c := range e.closes {
		if err := c(); err != nil {
			fmt.Fprintln(os.Stderr, "close:", err)
		}
	}
	if err := os.RemoveAll(e.dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	groups, _ := filepath.Glob(fmt.Sprintf("/sys/fs/cgroup/*/wherry-api-%d", os.Getpid()))
	for _, g := range groups {
		_ = os.Remove(g)
	}
	return kept
}

// load gives the engine the image busybox:test, made of the machine's own static busybox.
func (e *engine) load(t *testing.T) {
	t.Helper()
	bin, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Skip("needs a static busybox:", err)
	}
	var layer bytes.Buffer
	tw := tar.NewWriter(&layer)
	add := func(h tar.Header, body []byte) {
		h.Size = int64(len(body))
		if err := tw.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := tw.Write(body); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{"bin/", "etc/", "tmp/", "proc/", "sys/", "dev/"} {
		add(tar.Header{Name: dir, Typeflag: tar.TypeDir, Mode: 0o755}, nil)
	}
	add(tar.Header{Name: "bin/busybox", Typeflag: tar.TypeReg, Mode: 0o755}, bin)
	for _, name := range []string{"sh", "cat", "echo", "true", "sleep", "ls", "stty", "kill", "head", "id", "tty", "dd"} {
		add(tar.Header{Name: "bin/" + name, Typeflag: tar.TypeSymlink, Linkname: "busybox", Mode: 0o777}, nil)
	}
	add(tar.Header{Name: "etc/passwd", Typeflag: tar.TypeReg, Mode: 0o644}, []byte("root:x:0:0::/:/bin/sh\n"))
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := e.http.Post("http://e/images/create?fromSrc=-&repo=busybox&tag=test&changes="+
		"CMD+%5B%22sh%22%5D&changes=ENV+PATH%3D%2Fbin", "application/x-tar", &layer)
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(r.Body)
	r.Body.Close()
	if r.StatusCode != http.StatusOK || strings.Contains(string(body), "error") {
		t.Fatalf("import: %s %s", r.Status, body)
	}
}

// call makes a request and returns status and body.
func (e *engine) call(t *testing.T, method, path, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequest(method, "http://e"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	r, err := e.http.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer r.Body.Close()
	out, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return r.StatusCode, string(out)
}

// want is call with a status that must come; the answer is decoded into into unless that is nil.
func (e *engine) want(t *testing.T, status int, method, path, body string, into any) {
	t.Helper()
	got, out := e.call(t, method, path, body)
	if got != status {
		t.Fatalf("%s %s: %d, want %d: %s", method, path, got, status, out)
	}
	if into != nil {
		if err := json.Unmarshal([]byte(out), into); err != nil {
			t.Fatalf("%s %s: %v: %s", method, path, err, out)
		}
	}
}

// create makes a container of busybox:test with the given JSON fields besides, and removes it at the test's end.
func (e *engine) create(t *testing.T, fields string) string {
	t.Helper()
	var c struct {
		ID string `json:"Id"`
	}
	e.want(t, 201, "POST", "/containers/create", `{"Image":"busybox:test",`+fields+`}`, &c)
	t.Cleanup(func() { e.call(t, "DELETE", "/containers/"+c.ID+"?force=1&v=1", "") })
	return c.ID
}

// upgrade takes a connection over as docker does; the reader is behind the header.
func (e *engine) upgrade(t *testing.T, path, body string) (*net.UnixConn, *bufio.Reader, *http.Response) {
	t.Helper()
	c, err := net.Dial("unix", e.socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(60 * time.Second))
	fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: e\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		path, len(body), body)
	br := bufio.NewReader(c)
	r, err := http.ReadResponse(br, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c.(*net.UnixConn), br, r
}
