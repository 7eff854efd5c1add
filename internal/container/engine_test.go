package container

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/apart"
	"wherry.dev/wherry/internal/event"
	"wherry.dev/wherry/internal/image"
	networks "wherry.dev/wherry/internal/network"
	"wherry.dev/wherry/internal/snapshot"
	"wherry.dev/wherry/internal/trust"
	"wherry.dev/wherry/internal/volume"
)

// TestMain runs the tests in a network and mount namespace of their own: links, rules and mounts end with them.
func TestMain(m *testing.M) {
	if lines := os.Getenv(victimVariable); lines != "" {
		victim(lines)
		return
	}
	apart.Tests(unix.CLONE_NEWNET|unix.CLONE_NEWNS, func() int {
		defer tools.clean()
		return m.Run()
	})
}

// tools are made once for all tests: the runtime and an image with busybox.
var tools shared

type shared struct {
	once sync.Once
	dir  string
	oar  string
	tar  []byte
	err  error
}

func (s *shared) clean() {
	if s.dir != "" {
		os.RemoveAll(s.dir)
	}
}

func (s *shared) make() {
	if s.dir, s.err = os.MkdirTemp("", "wherry-container-test-"); s.err != nil {
		return
	}
	s.oar = filepath.Join(s.dir, "oar")
	build := exec.Command("go", "build", "-o", s.oar, "wherry.dev/wherry/cmd/oar")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		s.err = fmt.Errorf("build oar: %w: %s", err, out)
		return
	}
	s.tar, s.err = busyboxLayer(s.dir)
}

// busyboxLayer is a root file system of busybox and what containers expect.
func busyboxLayer(dir string) ([]byte, error) {
	root := filepath.Join(dir, "root")
	script := `set -e; mkdir -p bin etc tmp root data/sub home; cp "$(command -v busybox)" bin/busybox
for n in sh sleep cat echo ls true false id touch env ps test grep kill stat mkdir rm dd pwd ln hostname mount httpd wget sync seq head tail ip ping yes; do ln -s busybox bin/$n; done
printf 'root:x:0:0:root:/root:/bin/sh\nweb:x:101:102::/home:/bin/sh\n' >etc/passwd
printf 'root:x:0:\nweb:x:102:\n' >etc/group
chmod 1777 tmp; echo from-image >data/file; chown 101:102 data/file data; chmod 750 data; ln -s file data/link; ln data/file data/sub/hard
printf '#!/bin/sh\r\necho never\r\n' >bin/crlf; printf '#!/no/such/interpreter\n' >bin/orphan; chmod +x bin/crlf bin/orphan; echo text >etc/plain
tar -c . `
	if err := os.Mkdir(root, 0o755); err != nil {
		return nil, err
	}
	cmd := exec.Command("sh", "-c", script)
	cmd.Dir = root
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("make a root file system: %w: %s", err, stderr.String())
	}
	return out, nil
}

// engine is a container service with all that it rests on.
type engine struct {
	*Service
	t      *testing.T
	o      Options
	images *image.Service
	nets   *networks.Service
	vols   *volume.Service
	mounts string         // where layers are mounted
	trust  *trust.Checker // from the next open on
	logged []string
	mu     sync.Mutex
}

func newEngine(t *testing.T) *engine {
	t.Helper()
	return newEngineIn(t, "")
}

// newEngineIn puts what lasts into a folder; "": one of its own.
func newEngineIn(t *testing.T, root string) *engine {
	t.Helper()
	tools.once.Do(tools.make)
	if tools.err != nil {
		t.Fatal(tools.err)
	}
	dir, err := os.MkdirTemp("", "wherry-container-test-")
	if err != nil {
		t.Fatal(err)
	}
	if root == "" {
		root = filepath.Join(dir, "root")
	}
	e := &engine{t: t, o: Options{Root: root, State: filepath.Join(dir, "state"), Oar: tools.oar,
		CgroupParent: "/wherry-ctest-" + filepath.Base(dir)}}
	e.o.Log = e.note
	e.mounts = filepath.Join(e.o.State, "layers")
	e.open()
	t.Cleanup(func() {
		e.clean()
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if _, err := e.images.Import(context.Background(), bytes.NewReader(tools.tar), image.ImportOptions{Ref: "busybox:1", Changes: []string{`CMD ["sh"]`}}); err != nil {
		t.Fatal(err)
	}
	return e
}

func (e *engine) note(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.logged = append(e.logged, err.Error())
}

// logs what the engine could not return and no test expects.
func (e *engine) noted() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return strings.Join(e.logged, "\n")
}

// open opens the services as wherryd does.
func (e *engine) open() {
	e.t.Helper()
	ctx := context.Background()
	must := func(err error) {
		if err != nil {
			e.t.Helper()
			e.t.Fatal(err)
		}
	}
	e.o.Events = event.New()
	var err error
	e.vols, err = volume.Open(volume.Options{Root: filepath.Join(e.o.Root, "volumes"), Events: e.o.Events})
	must(err)
	e.images, err = image.Open(ctx, image.Options{Root: e.o.Root, Layers: snapshot.Auto, Mounts: e.mounts, Oar: e.o.Oar, Events: e.o.Events, Trust: e.trust})
	must(err)
	e.nets, err = networks.Open(ctx, networks.Options{Root: e.o.Root, State: e.o.State, Events: e.o.Events})
	must(err)
	e.o.Images, e.o.Networks, e.o.Volumes = e.images, e.nets, e.vols
	e.Service, err = Open(ctx, e.o)
	must(err)
}

// close ends the services; containers go on.
func (e *engine) close() {
	e.t.Helper()
	for _, c := range []interface{ Close() error }{e.Service, e.nets, e.images, e.vols} {
		if err := c.Close(); err != nil {
			e.t.Error(err)
		}
	}
}

// again is the engine's next life on the same directories.
func (e *engine) again() {
	e.t.Helper()
	e.close()
	e.open()
}

// clean removes all containers, and sees that nothing of them is left.
func (e *engine) clean() {
	for _, c := range e.index.all() {
		err := e.Remove(context.Background(), c.id, RemoveOptions{Force: true, Volumes: true})
		if err != nil && !errdefs.IsNotFound(err) { // else the engine was faster: it removes disposable ones by itself
			e.t.Error(err)
		}
	}
	if err := e.images.Unmount(); err != nil {
		e.t.Error(err)
	}
	e.close()
	for _, dir := range []string{filepath.Join(e.o.Root, "containers"), filepath.Join(e.o.State, "tasks"), filepath.Join(e.o.State, "etc"), filepath.Join(e.o.State, "shm")} {
		if list, _ := os.ReadDir(dir); len(list) > 0 {
			e.t.Errorf("left in %s: %v", dir, list)
		}
	}
	groups, _ := filepath.Glob("/sys/fs/cgroup/*" + e.o.CgroupParent)
	for _, g := range append(groups, "/sys/fs/cgroup"+e.o.CgroupParent) {
		if err := unix.Rmdir(g); err != nil && !errors.Is(err, unix.ENOENT) {
			left, _ := filepath.Glob(g + "/*/cgroup.procs")
			e.t.Errorf("control group %s: %v, left in it: %v", g, err, left)
		}
	}
}

// request is what the tests of this package create, with no network unless they say so.
type request struct {
	name string
	cmd  []string
	c    container.Config
	h    container.HostConfig
}

func (e *engine) create(q request) string {
	e.t.Helper()
	id, err := e.tryCreate(q)
	if err != nil {
		e.t.Fatalf("create %s: %v", q.name, err)
	}
	return id
}

func (e *engine) tryCreate(q request) (string, error) {
	if q.c.Image == "" {
		q.c.Image = "busybox:1"
	}
	if q.cmd != nil {
		q.c.Cmd = q.cmd
	}
	if q.h.NetworkMode == "" {
		q.h.NetworkMode = "none"
	}
	made, err := e.Create(context.Background(), CreateRequest{Name: q.name, Config: &q.c, HostConfig: &q.h})
	return made.ID, err
}

func (e *engine) start(id string) {
	e.t.Helper()
	if err := e.Start(context.Background(), id); err != nil {
		e.t.Fatalf("start: %v", err)
	}
}

// run creates and starts.
func (e *engine) run(q request) string {
	e.t.Helper()
	id := e.create(q)
	e.start(id)
	return id
}

// exitOf runs to the end.
func (e *engine) exitOf(q request) int {
	e.t.Helper()
	id := e.create(q)
	answer := e.arm(id, container.WaitConditionNextExit)
	e.start(id)
	return e.take(answer)
}

func (e *engine) arm(id string, c container.WaitCondition) <-chan container.WaitResponse {
	e.t.Helper()
	answer, err := e.Wait(context.Background(), id, c)
	if err != nil {
		e.t.Fatal(err)
	}
	return answer
}

func (e *engine) take(answer <-chan container.WaitResponse) int {
	e.t.Helper()
	select {
	case a := <-answer:
		return int(a.StatusCode)
	case <-time.After(20 * time.Second):
		e.t.Fatal("no exit within 20 s")
		return -1
	}
}

func (e *engine) rec(id string) *Record {
	e.t.Helper()
	c, err := e.index.find(id)
	if err != nil {
		e.t.Fatal(err)
	}
	return c.record()
}

// eventually waits until ok says so.
func (e *engine) eventually(what string, ok func() bool) {
	e.t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
		if time.Now().After(end) {
			e.t.Fatalf("not within 20 s: %s; noted: %s", what, e.noted())
		}
	}
}

// output is what a container has printed, from its log's frames.
func (e *engine) output(id string) string {
	e.t.Helper()
	r := e.rec(id)
	files, _ := filepath.Glob(filepath.Join(r.Log.Dir, "*.log"))
	var out []byte
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			e.t.Fatal(err)
		}
		for len(b) >= 16 {
			n := int(b[4]) | int(b[5])<<8 | int(b[6])<<16
			if len(b) < 16+n {
				break
			}
			out = append(out, b[16:16+n]...)
			b = b[16+n:]
		}
	}
	return string(out)
}

// happened are the events of a container so far, "action key=value …" for the attributes that are asked for.
func (e *engine) happened(id string, attributes ...string) []string {
	e.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var out []string
	err := e.o.Events.Subscribe(ctx, time.Unix(1, 0), time.Now(), func(m events.Message) error {
		if m.Actor.ID != id {
			return nil
		}
		line := string(m.Action)
		for _, a := range attributes {
			if v, ok := m.Actor.Attributes[a]; ok {
				line += " " + a + "=" + v
			}
		}
		out = append(out, line)
		return nil
	})
	if err != nil {
		e.t.Fatal(err)
	}
	return out
}

func number(t *testing.T, text string) int {
	t.Helper()
	n, err := strconv.Atoi(strings.TrimSpace(text))
	if err != nil {
		t.Fatal(err)
	}
	return n
}
