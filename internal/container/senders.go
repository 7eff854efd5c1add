package container

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/cgroup"
	"wherry.dev/wherry/internal/seccomp"
	"wherry.dev/wherry/internal/shim"
	"wherry.dev/wherry/internal/signals"
	"wherry.dev/wherry/internal/task"
	"wherry.dev/wherry/internal/why"
)

// senders knows who sends signals to containers, where the kernel tells.
type senders struct {
	mu      sync.Mutex     // guards what follows
	watch   *signals.Watch // nil: not opened yet, or the kernel does not tell
	root    string         // of the cgroup2 tree
	targets map[string]target
}

// target is a running container as signals are addressed.
type target struct {
	pid   int
	group uint64 // number of its control group; 0: not known
	path  string // of the group
}

// open takes some milliseconds, which no start of the engine waits for.
func (s *senders) open() error {
	w, err := signals.Open()
	if err != nil {
		return fmt.Errorf("who ends containers from outside will not be known: %w", err)
	}
	root := cgroup.UnifiedRoot()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watch, s.root = w, root
	for id, t := range s.targets { // which were started meanwhile
		s.targets[id] = s.register(t)
	}
	return nil
}

func (s *senders) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.watch != nil {
		s.watch.Close()
		s.watch = nil
	}
}

// add begins to look at a container whose first process is there, and forget ends it.
func (s *senders) add(id string, pid int, group string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.targets == nil {
		s.targets = map[string]target{}
	}
	s.targets[id] = s.register(target{pid: pid, path: group})
}

// register is for who holds mu.
func (s *senders) register(t target) target {
	if s.watch == nil {
		return t
	}
	var st unix.Stat_t
	if s.root != "" && unix.Stat(filepath.Join(s.root, t.path), &st) == nil {
		t.group = st.Ino
	}
	_ = s.watch.Add(t.pid, t.group) // a table that is full knows some less
	return t
}

func (s *senders) forget(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t, ok := s.targets[id]
	if ok && s.watch != nil {
		s.watch.Forget(t.pid, t.group)
	}
	delete(s.targets, id)
}

// of tells who sent the signal that ended a container, or one that its first process speaks of by its exit code.
func (s *senders) of(id string, exit task.Exit) (*why.Sender, *why.Inner) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t, ok := s.targets[id]
	switch {
	case !ok || s.watch == nil:
	case exit.Signal != 0:
		if sent, ok := s.watch.To(t.pid, exit.Signal); ok {
			sender := t.sender(id, sent)
			return &sender, nil
		}
	case exit.Code > 128 && t.group != 0:
		if sent, ok := s.watch.Within(t.group, exit.Code-128); ok {
			by := t.sender(id, sent)
			if first, ok := s.watch.To(t.pid, sent.Number); ok && sent.Sender.Pid == t.pid { // an init has passed it on
				by = t.sender(id, first)
			}
			return nil, &why.Inner{Pid: sent.Target.Pid, Program: sent.Target.Name, By: by}
		}
	}
	return nil, nil
}

func (t target) sender(id string, s signals.Signal) why.Sender {
	out := why.Sender{Signal: s.Number, From: why.FromHost, Pid: s.Sender.Pid, UID: s.UID, Program: s.Sender.Name, Code: s.Code, Address: s.Address,
		Parent: s.Parent.Name, ParentPid: s.Parent.Pid}
	if s.Call >= 0 {
		out.Call, out.CallName = &s.Call, seccomp.CallName(s.Call)
	}
	switch {
	case s.Kernel:
		out.From = why.FromKernel
	case s.Sender.Pid == s.Target.Pid:
		out.From = why.FromItself
	case s.Sender.Pid == os.Getpid(), strings.HasPrefix(s.Sender.Name, shim.Name(id)):
		out.From = why.FromEngine
	case t.group != 0 && s.Group == t.group:
		out.From = why.FromInside
	}
	return out
}

// watchSenders opens them beside everything else.
func watchSenders(ctx context.Context, s *Service) {
	s.lives.run(ctx, func(context.Context) { s.log(s.senders.open()) })
}
