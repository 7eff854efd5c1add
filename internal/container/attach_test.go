package container

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
)

// attached is one attached client of a test.
type attached struct {
	out, errs watched
	typed     *io.PipeWriter
	done      chan error
	leave     context.CancelFunc
}

// attach returns when the client is attached.
func (e *engine) attach(id string, o AttachOptions) *attached {
	e.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	in, typed := io.Pipe()
	a := &attached{typed: typed, done: make(chan error, 1), leave: cancel}
	e.t.Cleanup(func() { cancel(); typed.Close() })
	ready := make(chan struct{})
	o.Stdin, o.Stdout, o.Stderr, o.Stream, o.Ready = in, &a.out, &a.errs, true, func() { close(ready) }
	go func() { a.done <- e.Attach(ctx, id, o) }()
	select {
	case <-ready:
	case err := <-a.done:
		e.t.Fatalf("attach: %v", err)
	}
	return a
}

func (e *engine) ends(a *attached) {
	e.t.Helper()
	select {
	case err := <-a.done:
		if err != nil {
			e.t.Errorf("attach ended with %v", err)
		}
	case <-time.After(20 * time.Second):
		e.t.Fatalf("attach does not end; printed %q", a.out.String())
	}
}

func TestAttachMissesNothing(t *testing.T) {
	e := newEngine(t)
	id := e.create(request{name: "box", cmd: sh("echo out; echo err >&2; exit 3")})
	for range 3 {
		a := e.attach(id, AttachOptions{})
		e.start(id)
		e.ends(a)
		if a.out.String() != "out\n" || a.errs.String() != "err\n" {
			t.Errorf("%q %q", a.out.String(), a.errs.String())
		}
		if r := e.rec(id); r.Status != Exited || r.ExitCode != 3 {
			t.Errorf("when the stream ends: %s, %d", r.Status, r.ExitCode)
		}
	}
	if got := e.happened(id); !slices.Contains(got, "attach") {
		t.Errorf("events %q", got)
	}
	var replay bytes.Buffer
	if err := e.Attach(context.Background(), id, AttachOptions{Logs: true, Stdout: &replay}); err != nil || replay.String() != "out\nout\nout\n" {
		t.Errorf("the log without following: %q, %v", replay.String(), err)
	}
}

// slowly is a client that reads when it is let.
type slowly struct {
	attached *attached
	let      <-chan struct{}
}

func (s slowly) Write(p []byte) (int, error) {
	<-s.let
	return s.attached.out.Write(p)
}

// TestWaitersComeAfterOutput: clients take the answer to wait for the end of what they are attached to. One that does not read keeps nobody.
func TestWaitersComeAfterOutput(t *testing.T) {
	e := newEngine(t)
	for name, reads := range map[string]bool{"reads": true, "does not read": false} {
		t.Run(name, func(t *testing.T) {
			id := e.create(request{cmd: sh("echo out")})
			let := make(chan struct{})
			a := &attached{}
			ready := make(chan struct{})
			done := make(chan error, 1)
			go func() {
				done <- e.Attach(t.Context(), id, AttachOptions{Stream: true, Stdout: slowly{a, let}, Ready: func() { close(ready) }})
			}()
			<-ready
			before, err := e.Wait(t.Context(), id, container.WaitConditionNextExit)
			if err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			e.start(id)
			e.eventually("the exit is recorded", func() bool { return e.rec(id).Status == Exited })
			after, err := e.Wait(t.Context(), id, container.WaitConditionNotRunning)
			if err != nil {
				t.Fatal(err)
			}
			if reads {
				go func() { time.Sleep(50 * time.Millisecond); close(let) }()
			}
			<-before
			<-after
			late := time.Since(began) >= slowReader // then nobody was waited for any longer
			if got := a.out.String(); reads && got != "out\n" && !late || !reads && got != "" {
				t.Errorf("at the answer it had got %q", got)
			}
			if !reads {
				close(let)
			}
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}

func TestAttachStdin(t *testing.T) {
	e := newEngine(t)
	for _, row := range []struct {
		name string
		once bool
		want string
	}{
		{"its end is passed on", true, "hello\nend\n"},
		{"its end is the client's leave", false, "hello\n"},
	} {
		id := e.create(request{cmd: sh("cat; echo end"), c: container.Config{OpenStdin: true, StdinOnce: row.once}})
		a := e.attach(id, AttachOptions{})
		go func() { // before the start: nothing of it may be lost
			_, _ = io.WriteString(a.typed, "hello\n")
			if row.once {
				a.typed.Close()
			}
		}()
		e.start(id)
		e.eventually(row.name+": it comes back", func() bool { return strings.HasPrefix(a.out.String(), "hello\n") })
		if !row.once {
			a.typed.Close()
		}
		e.ends(a)
		if got := a.out.String(); got != row.want {
			t.Errorf("%s: %q", row.name, got)
		}
		if alive := e.rec(id).Status.Alive(); !row.once && !alive {
			t.Errorf("%s: the container has ended", row.name)
		}
	}
}

func TestAttachDetach(t *testing.T) {
	e := newEngine(t)
	id := e.run(request{name: "box", cmd: sh("while read x; do echo got $x; done"), c: container.Config{OpenStdin: true, Tty: true}})
	first := e.attach(id, AttachOptions{})
	_, _ = io.WriteString(first.typed, "one\n")
	e.eventually("the first word comes back", func() bool { return strings.Contains(first.out.String(), "got one\r\n") })
	if err := e.Resize(context.Background(), id, 11, 22); err != nil {
		t.Fatal(err)
	}
	if got := e.happened(id, "height", "width"); !slices.Contains(got, "resize height=11 width=22") {
		t.Errorf("events %q", got)
	}
	_, _ = io.WriteString(first.typed, "\x10\x11")
	e.ends(first)
	own := e.attach(id, AttachOptions{DetachKeys: "ctrl-x,x", Logs: true})
	e.eventually("what was printed before is replayed", func() bool { return strings.Contains(own.out.String(), "got one\r\n") })
	_, _ = io.WriteString(own.typed, "\x10\x11two\n\x18x")
	e.ends(own)
	if got := e.happened(id); !slices.Contains(got, "detach") || !slices.Contains(got, "resize") {
		t.Errorf("events %q", got)
	}
	if !e.rec(id).Status.Alive() {
		t.Error("the container ended with its clients")
	}
	if err := e.Attach(context.Background(), id, AttachOptions{DetachKeys: "nothing"}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("bad keys: %v", err)
	}
}

// TestAttachEnds wherever there is nothing more to come.
func TestAttachEnds(t *testing.T) {
	e := newEngine(t)
	failing := e.create(request{cmd: []string{"nosuchprogram"}})
	a := e.attach(failing, AttachOptions{})
	if err := e.Start(context.Background(), failing); err == nil {
		t.Fatal("it starts")
	}
	e.ends(a)

	removed := e.create(request{cmd: sh("true")})
	a = e.attach(removed, AttachOptions{})
	if err := e.Remove(context.Background(), removed, RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	e.ends(a)

	left := e.run(request{cmd: sh("sleep 1000")})
	a = e.attach(left, AttachOptions{})
	a.leave()
	if err := <-a.done; !errors.Is(err, context.Canceled) {
		t.Errorf("a client that left: %v", err)
	}
	if err := e.Pause(context.Background(), left, PauseOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := e.Attach(context.Background(), left, AttachOptions{Stream: true}); !errdefs.IsConflict(err) {
		t.Errorf("attach to a paused container: %v", err)
	}
	if err := e.Unpause(context.Background(), left); err != nil {
		t.Fatal(err)
	}
}

// stuckWriter takes nothing until it is let go.
type stuckWriter struct {
	let   chan struct{}
	total int
}

func (w *stuckWriter) Write(p []byte) (int, error) {
	<-w.let
	w.total += len(p)
	return len(p), nil
}

// TestFrozenClient stops neither the container nor another client, even when the log is rotated meanwhile, and gets all of it when it
// reads again.
func TestFrozenClient(t *testing.T) {
	e := newEngine(t)
	const size = 3 << 20
	id := e.create(request{name: "box", cmd: sh("head -c 3145728 /dev/zero"), h: container.HostConfig{LogConfig: container.LogConfig{Config: map[string]string{"max-size": "256k", "max-file": "2"}}}})
	stuck := &stuckWriter{let: make(chan struct{})}
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() {
		done <- e.Attach(context.Background(), id, AttachOptions{Stream: true, Stdout: stuck, Ready: func() { close(ready) }})
	}()
	<-ready
	quick := e.attach(id, AttachOptions{})
	exit := e.arm(id, container.WaitConditionNextExit)
	e.start(id)
	if code := e.take(exit); code != 0 {
		t.Errorf("exit code %d", code)
	}
	e.ends(quick)
	if n := len(quick.out.String()); n != size {
		t.Errorf("the quick client got %d bytes of %d", n, size)
	}
	select {
	case err := <-done:
		t.Fatalf("the stuck client has ended: %v", err)
	default:
	}
	close(stuck.let)
	if err := <-done; err != nil || stuck.total != size {
		t.Errorf("the stuck client got %d bytes of %d, %v", stuck.total, size, err)
	}
}

// TestAttachGivesBack: clients that come and go leave neither descriptors nor goroutines.
func TestAttachGivesBack(t *testing.T) {
	e := newEngine(t)
	id := e.run(request{name: "box", cmd: sh("while read x; do echo got $x; done; sleep 1000"), c: container.Config{OpenStdin: true}})
	files, goroutines := 0, 0
	for i := range 51 {
		if i == 1 { // the first one opens what all of them share
			e.eventually("the first goes", func() bool { return e.goroutines() == 1 })
			files, goroutines = e.openFiles("self"), e.goroutines()
		}
		a := e.attach(id, AttachOptions{})
		_, _ = io.WriteString(a.typed, "x\n")
		e.eventually("it answers", func() bool { return strings.Contains(a.out.String(), "got x\n") })
		a.leave()
		<-a.done
		a.typed.Close()
	}
	e.eventually("all is given back", func() bool { return e.openFiles("self") <= files+spareFiles && e.goroutines() <= goroutines })
}

// TestCloseLetsClientsGo: the engine's end does not wait for who is attached; the container and its execs go on, and the next life serves
// them.
func TestCloseLetsClientsGo(t *testing.T) {
	e := newEngine(t)
	id := e.run(request{name: "box", cmd: sh("echo first; exec sleep 1000"), c: container.Config{OpenStdin: true}})
	a := e.attach(id, AttachOptions{Logs: true})
	e.eventually("it prints", func() bool { return a.out.String() == "first\n" })
	x, err := e.ExecCreate(context.Background(), id, container.ExecCreateRequest{Cmd: sh("echo up; sleep 999"), AttachStdout: true})
	if err != nil {
		t.Fatal(err)
	}
	out, done := &watched{}, make(chan error, 1)
	service := e.Service
	go func() { done <- service.ExecStart(context.Background(), x, ExecStreams{Stdout: out}) }()
	e.eventually("the exec prints", func() bool { return out.String() == "up\n" })
	e.again()
	e.ends(a)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if about, err := e.ExecInspect(x); err != nil || !about.Running {
		t.Errorf("an exec of an earlier life: %+v %v", about, err)
	}
	if got := e.exec(id, container.ExecCreateRequest{Cmd: sh("cat /proc/[0-9]*/cmdline | tr '\\0' ' '")}, nil); !strings.Contains(got.out, "sleep 1000 ") || !strings.Contains(got.out, "sleep 999 ") {
		t.Errorf("what runs: %+v", got)
	}
	b := e.attach(id, AttachOptions{Logs: true})
	e.eventually("the log is still there", func() bool { return b.out.String() == "first\n" })
}
