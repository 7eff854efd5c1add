package shim

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/cgroup"
	"wherry.dev/wherry/internal/logs"
)

// late is a container whose first process has ended when an exec of it is about to begin.
type late struct {
	Container
	group        *cgroup.Group
	asked, ended chan struct{}
	added        *exec.Cmd
}

func (l *late) Reap() (code, sig int, err error) {
	<-l.asked
	go func() {
		// Long enough for whoever does not wait.
		time.Sleep(200 * time.Millisecond)
		close(l.ended)
	}()
	return 0, 0, nil
}

func (l *late) Cgroup() *cgroup.Group { return l.group }

func (l *late) Exec(context.Context, *specs.Process, Streams) (Process, error) {
	close(l.asked)
	<-l.ended
	l.added = exec.Command("sleep", "600")
	if err := l.added.Start(); err != nil {
		return nil, err
	}
	return child{l.added}, l.group.Add(l.added.Process.Pid)
}

type child struct{ *exec.Cmd }

func (c child) Pid() int               { return c.Process.Pid }
func (c child) Console() *os.File      { return nil }
func (c child) Kill(unix.Signal) error { return c.Process.Kill() }
func (c child) Reap() (code, sig int, err error) {
	_ = c.Wait() // that a signal ends it is no error here
	if status, ok := c.ProcessState.Sys().(interface{ Signal() unix.Signal }); ok {
		sig = int(status.Signal())
	}
	return c.ProcessState.ExitCode(), sig, nil
}

// TestExecAtTheEnd: an exec that begins in the moment of its container's end, with no process namespace that would end it, ends with it.
func TestExecAtTheEnd(t *testing.T) {
	g, err := cgroup.Create(fmt.Sprintf("/wherry-shim-test-%d", os.Getpid()), nil)
	if err != nil {
		t.Fatal(err)
	}
	l := &late{group: g, asked: make(chan struct{}), ended: make(chan struct{})}
	t.Cleanup(func() {
		if l.added != nil {
			_ = l.added.Process.Kill()
		}
		if err := errors.Join(g.Kill(), g.Delete()); err != nil {
			t.Error(err)
		}
	})
	s := NewServer(t.TempDir(), nil)
	log, err := logs.Create(t.TempDir(), 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	s.life.container, s.life.output = l, &output{log: log}
	answered := make(chan error, 1)
	go func() {
		_, _, err := s.exec(t.Context(), &Conn{}, Request{Exec: "x", Process: &specs.Process{}}, nil)
		answered <- err
	}()
	go s.watch(t.Context())
	select {
	case <-s.ended:
	case <-time.After(20 * time.Second):
		t.Fatal("the container does not end: it waits for the exec, which nobody ends")
	}
	if err := <-answered; err != nil {
		t.Fatal(err)
	}
	if e := s.execs.find("x"); e == nil || e.exit.Signal != int(unix.SIGKILL) {
		t.Errorf("the exec: %+v", e)
	}
	if _, _, err := s.exec(t.Context(), &Conn{}, Request{Exec: "y", Process: &specs.Process{}}, nil); err == nil {
		t.Error("one more begins after the end")
	}
}
