package main

import (
	"encoding/json"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// TestSeccompListener: the agent is told of the first process while it is created, and of each exec.
func TestSeccompListener(t *testing.T) {
	dir, err := os.MkdirTemp("", "wherry-agent-") // short: a socket's path has 107 bytes
	must(t, err)
	defer os.RemoveAll(dir)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "s"), Net: "unix"})
	must(t, err)
	defer l.Close()
	h := newHost(t, func(s *specs.Spec) {
		s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, ListenerPath: filepath.Join(dir, "s"), ListenerMetadata: "opaque",
			Syscalls: []specs.LinuxSyscall{{Names: []string{"swapon"}, Action: specs.ActNotify}}}
	}, "sleep", "1000")
	states := make(chan specs.ContainerProcessState, 4)
	go takeListeners(t, l, states)
	h.create()
	first := <-states
	if first.State.Status != specs.StateCreating || first.State.ID != "c" || first.Metadata != "opaque" || first.Pid != h.await(specs.StateCreated).Pid || first.State.Bundle != h.dir {
		t.Errorf("of the first process: %+v", first)
	}
	h.oar("start", "c")
	if out := h.oar("exec", "c", "echo", "hello"); out != "hello\n" {
		t.Error(out)
	}
	if s := <-states; s.State.Status != specs.StateRunning || s.State.Pid != first.Pid || s.Pid == first.Pid {
		t.Errorf("of an exec: %+v", s)
	}
	l.Close()
	h.refuse("connect:", "exec", "c", "echo", "hello")
}

// takeListeners answers nothing: the test's programs make no call that is asked about.
func takeListeners(t *testing.T, l *net.UnixListener, states chan<- specs.ContainerProcessState) {
	for {
		conn, err := l.AcceptUnix()
		if err != nil {
			return
		}
		text, rights := make([]byte, 8192), make([]byte, 64)
		n, oob, _, _, err := conn.ReadMsgUnix(text, rights)
		rest, _ := io.ReadAll(conn)
		conn.Close()
		var s specs.ContainerProcessState
		if err != nil || json.Unmarshal(append(text[:n], rest...), &s) != nil {
			t.Errorf("%q, %v", text[:n], err)
		}
		if messages, err := unix.ParseSocketControlMessage(rights[:oob]); err != nil || len(messages) != 1 {
			t.Errorf("%d messages with descriptors, %v", len(messages), err)
		}
		states <- s
	}
}
