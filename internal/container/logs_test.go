package container

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"

	"wherry.dev/wherry/internal/logs"
)

// written puts a log in the place of a container's.
func (e *engine) written(id string, entries ...logs.Entry) {
	e.t.Helper()
	w, err := logs.Create(e.rec(id).Log.Dir, 0, 0)
	if err != nil {
		e.t.Fatal(err)
	}
	for _, x := range entries {
		if err := w.Append(x.Stream, x.Time, x.Data); err != nil {
			e.t.Fatal(err)
		}
	}
	if err := w.End(); err != nil {
		e.t.Fatal(err)
	}
}

func TestLogs(t *testing.T) {
	e := newEngine(t)
	id := e.create(request{name: "box", c: container.Config{Labels: map[string]string{"tier": "web front"}, Env: []string{"A=b"}},
		h: container.HostConfig{LogConfig: container.LogConfig{Config: map[string]string{"labels": "tier,none", "env": "A"}}}})
	at := func(seconds int) time.Time { return time.Date(2026, 1, 2, 3, 4, seconds, 50, time.UTC) }
	entry := func(s logs.Stream, seconds int, text string) logs.Entry {
		return logs.Entry{Stream: s, Time: at(seconds), Data: []byte(text)}
	}
	e.written(id, entry(logs.Stdout, 0, "one\n"), entry(logs.Stdout, 1, "tw"), entry(logs.Stderr, 2, "bad\nworse\n"), entry(logs.Stdout, 3, "o\nthree"))
	both := LogsOptions{Stdout: true, Stderr: true, Tail: -1}
	with := func(change func(*LogsOptions)) LogsOptions {
		o := both
		change(&o)
		return o
	}
	for _, row := range []struct {
		name      string
		o         LogsOptions
		out, errs string
	}{
		{"all", both, "one\ntwo\nthree", "bad\nworse\n"},
		{"stdout", LogsOptions{Stdout: true, Tail: -1}, "one\ntwo\nthree", ""},
		{"stderr", LogsOptions{Stderr: true, Tail: -1}, "", "bad\nworse\n"},
		{"a tail does not cut a line that another stream interrupts", with(func(o *LogsOptions) { o.Tail = 2 }), "two\nthree", ""},
		{"a tail counts both streams", with(func(o *LogsOptions) { o.Tail = 3 }), "two\nthree", "worse\n"},
		{"no tail", with(func(o *LogsOptions) { o.Tail = 0 }), "", ""},
		{"a long tail", with(func(o *LogsOptions) { o.Tail = 99 }), "one\ntwo\nthree", "bad\nworse\n"},
		{"since", with(func(o *LogsOptions) { o.Since = at(2) }), "three", "bad\nworse\n"},
		{"until", with(func(o *LogsOptions) { o.Until = at(1) }), "one\n", ""},
		{"timestamps", with(func(o *LogsOptions) { o.Timestamps, o.Tail = true, 1 }), "2026-01-02T03:04:03.000000050Z three", ""},
		{"details", with(func(o *LogsOptions) { o.Details, o.Tail = true, 1 }), "A=b,tier=web+front three", ""},
		{"both", with(func(o *LogsOptions) { o.Details, o.Timestamps, o.Tail = true, true, 1 }), "2026-01-02T03:04:03.000000050Z A=b,tier=web+front three", ""},
		{"following what does not run", with(func(o *LogsOptions) { o.Follow = true }), "one\ntwo\nthree", "bad\nworse\n"},
	} {
		var out, errs bytes.Buffer
		if err := e.Logs(context.Background(), id, row.o, &out, &errs); err != nil || out.String() != row.out || errs.String() != row.errs {
			t.Errorf("%s: %q %q %v; want %q %q", row.name, out.String(), errs.String(), err, row.out, row.errs)
		}
	}
}

func TestLogsFollow(t *testing.T) {
	e := newEngine(t)
	id := e.run(request{name: "box", cmd: sh("echo before; while ! test -e /tmp/go; do sleep 0.02; done; echo after; exec sleep 1000")})
	out := &watched{}
	done := make(chan error, 1)
	go func() {
		done <- e.Logs(context.Background(), id, LogsOptions{Stdout: true, Follow: true, Tail: -1}, out, nil)
	}()
	e.eventually("what was there", func() bool { return out.String() == "before\n" })
	e.exec(id, container.ExecCreateRequest{Cmd: []string{"touch", "/tmp/go"}}, nil)
	e.eventually("what came", func() bool { return out.String() == "before\nafter\n" })

	var tail bytes.Buffer // its end is a moment that comes while nothing is printed
	if err := e.Logs(context.Background(), id, LogsOptions{Stdout: true, Follow: true, Tail: 1, Until: time.Now().Add(100 * time.Millisecond)}, &tail, nil); err != nil || tail.String() != "after\n" {
		t.Errorf("until a moment: %q, %v", tail.String(), err)
	}
	ctx, leave := context.WithCancel(context.Background())
	leave()
	if err := e.Logs(ctx, id, LogsOptions{Stdout: true, Follow: true, Tail: -1}, &tail, nil); err == nil {
		t.Error("a client that left is answered")
	}
	if err := e.Kill(context.Background(), id, "KILL"); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil || out.String() != "before\nafter\n" {
		t.Errorf("%q %v", out.String(), err)
	}
}

// TestLogsFollowTheNextLife: the end of an earlier life is none of the one that runs, though it has printed nothing yet.
func TestLogsFollowTheNextLife(t *testing.T) {
	e := newEngine(t)
	id := e.create(request{name: "box", cmd: sh("if ! test -e /tmp/once; then touch /tmp/once; echo one; exit 0; fi; while ! test -e /tmp/go; do sleep 0.02; done; echo two")})
	exit := e.arm(id, container.WaitConditionNextExit)
	e.start(id)
	e.take(exit)
	e.start(id)
	out, attached := &watched{}, &watched{}
	done := make(chan error, 2)
	go func() {
		done <- e.Logs(context.Background(), id, LogsOptions{Stdout: true, Follow: true, Tail: -1}, out, nil)
	}()
	go func() {
		done <- e.Attach(context.Background(), id, AttachOptions{Logs: true, Stream: true, Stdout: attached})
	}()
	e.eventually("what was there", func() bool { return out.String() == "one\n" && attached.String() == "one\n" })
	select {
	case err := <-done:
		t.Errorf("who follows has left before anything was printed: %v", err)
		done <- err
	case <-time.After(50 * time.Millisecond): // a follower that is wrong leaves at once
	}
	e.exec(id, container.ExecCreateRequest{Cmd: []string{"touch", "/tmp/go"}}, nil)
	if err := errors.Join(<-done, <-done); err != nil || out.String() != "one\ntwo\n" || attached.String() != "one\ntwo\n" {
		t.Errorf("%q, attached %q, %v", out.String(), attached.String(), err)
	}
}

// TestLogsAreCompleteAtTheExit: a follower gets the last byte, whatever the moment at which it began.
func TestLogsAreCompleteAtTheExit(t *testing.T) {
	e := newEngine(t)
	for i := range 10 {
		id := e.run(request{name: fmt.Sprintf("box%d", i), cmd: sh("head -c 100000 /dev/zero; echo last")})
		var out bytes.Buffer
		if err := e.Logs(context.Background(), id, LogsOptions{Stdout: true, Follow: true, Tail: -1}, &out, nil); err != nil {
			t.Fatal(err)
		}
		if out.Len() != 100005 || !strings.HasSuffix(out.String(), "last\n") {
			t.Fatalf("%d bytes", out.Len())
		}
	}
}

func TestNoLogs(t *testing.T) {
	e := newEngine(t)
	id := e.create(request{name: "box", h: container.HostConfig{LogConfig: container.LogConfig{Type: "none"}}})
	if err := e.Logs(context.Background(), id, LogsOptions{Stdout: true}, nil, nil); !errdefs.IsNotImplemented(err) {
		t.Errorf("a container without a log: %v", err)
	}
	silent := e.create(request{name: "silent"})
	var out bytes.Buffer
	if err := e.Logs(context.Background(), silent, LogsOptions{Stdout: true, Tail: -1}, &out, nil); err != nil || out.Len() != 0 {
		t.Errorf("one that never ran: %q, %v", out.String(), err)
	}
	if list, _ := filepath.Glob(e.rec(silent).Log.Dir + "/*"); len(list) != 0 {
		t.Errorf("reading has made %v", list)
	}
}

// TestLogsAfterTheClockWasPutBack: lines that were printed before have times that are yet to come; what follows them is not hidden by --until.
func TestLogsAfterTheClockWasPutBack(t *testing.T) {
	e := newEngine(t)
	id := e.create(request{name: "box"})
	now := time.Now()
	line := func(at time.Duration, text string) logs.Entry {
		return logs.Entry{Stream: logs.Stdout, Time: now.Add(at), Data: []byte(text + "\n")}
	}
	e.written(id, line(-2*time.Hour, "old"), line(time.Hour, "to come"), line(-time.Minute, "since"), line(-time.Second, "too late"))
	for _, row := range []struct {
		since, until time.Duration
		want         string
	}{{-3 * time.Hour, -30 * time.Second, "old\nsince\n"}, {-time.Hour, -30 * time.Second, "since\n"}, {-time.Hour, 2 * time.Hour, "to come\nsince\ntoo late\n"}} {
		var out bytes.Buffer
		o := LogsOptions{Stdout: true, Tail: -1, Since: now.Add(row.since), Until: now.Add(row.until)}
		if err := e.Logs(context.Background(), id, o, &out, nil); err != nil || out.String() != row.want {
			t.Errorf("%v to %v: %q, %v", row.since, row.until, &out, err)
		}
	}
}
