package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/moby/buildkit/executor"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"wherry.dev/wherry/internal/container"
	"wherry.dev/wherry/internal/spec"
	"wherry.dev/wherry/internal/task"
)

// Exec runs one more process in a step that runs.
func (x *stepExecutor) Exec(ctx context.Context, id string, p executor.ProcessInfo) error {
	x.mu.Lock()
	s := x.running[id]
	x.mu.Unlock()
	if s == nil {
		return fmt.Errorf("container %s is not there", id)
	}
	select {
	case <-s.up:
	case <-s.over:
		return fmt.Errorf("container %s has ended", id)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	process, err := s.execProcess(&p.Meta)
	if err != nil {
		return err
	}
	o := task.ExecOptions{ID: newStepID(), Process: process}
	streams, err := openStreams(&o, p)
	if err != nil {
		return err
	}
	defer streams.close()
	run, err := s.task.Exec(ctx, o)
	streams.closeTheirs()
	if err != nil {
		return stepError(ctx, err, &p.Meta)
	}
	return streams.follow(ctx, run, p)
}

// execProcess is the step's own process with another program.
func (s *step) execProcess(m *executor.Meta) (*specs.Process, error) {
	process := *s.spec.Process
	process.Args, process.Terminal = m.Args, m.Tty
	if m.Cwd != "" {
		process.Cwd = spec.Cwd(m.Cwd)
	}
	if len(m.Env) > 0 {
		process.Env = spec.MergeEnv(s.input.Env, m.Env)
	}
	if m.User == "" {
		return &process, nil
	}
	who, _, err := container.FindIn(s.layers(), m.User, s.root.IDMap)
	if err != nil {
		return nil, err
	}
	caps, err := spec.Capabilities(nil, nil, spec.CapabilityOptions{Privileged: s.insecure()})
	process.User, process.Capabilities = who, spec.CapabilitySets(caps, who.UID)
	return &process, err
}

// streams are both ends of an exec's pipes.
type streams struct {
	theirs, ours []*os.File
	in           *os.File
	out, err     *os.File
}

func openStreams(o *task.ExecOptions, p executor.ProcessInfo) (_ *streams, err error) {
	s := &streams{}
	if p.Meta.Tty {
		return s, nil
	}
	pipe := func() (r, w *os.File) {
		if err == nil {
			r, w, err = os.Pipe()
		}
		return r, w
	}
	if p.Stdin != nil {
		o.In, s.in = pipe()
		s.theirs, s.ours = append(s.theirs, o.In), append(s.ours, s.in)
	}
	if p.Stdout != nil {
		s.out, o.Out = pipe()
		s.theirs, s.ours = append(s.theirs, o.Out), append(s.ours, s.out)
	}
	if p.Stderr != nil {
		s.err, o.Err = pipe()
		s.theirs, s.ours = append(s.theirs, o.Err), append(s.ours, s.err)
	}
	if err != nil {
		s.close()
		return nil, fmt.Errorf("make pipes: %w", err)
	}
	return s, nil
}

func (s *streams) closeTheirs() {
	for _, f := range s.theirs {
		f.Close()
	}
	s.theirs = nil
}

func (s *streams) close() {
	s.closeTheirs()
	for _, f := range s.ours {
		f.Close()
	}
}

// follow copies until the process ends.
func (s *streams) follow(ctx context.Context, run *task.Process, p executor.ProcessInfo) error {
	if run.Console != nil {
		s.in, s.out, s.ours = run.Console, run.Console, append(s.ours, run.Console)
	}
	var printed sync.WaitGroup
	for _, row := range []struct {
		from *os.File
		to   io.Writer
	}{{s.out, p.Stdout}, {s.err, p.Stderr}} {
		if row.from != nil && row.to != nil {
			printed.Go(func() { _, _ = io.Copy(row.to, row.from) })
		}
	}
	if s.in != nil && p.Stdin != nil {
		go func() { // ends when the client's side does, which the caller closes
			_, _ = io.Copy(s.in, p.Stdin)
			if run.Console == nil {
				_ = s.in.Close()
			}
		}()
	}
	over, ended := context.WithCancel(ctx)
	defer ended()
	go func() {
		for {
			select {
			case sig, ok := <-p.Signal:
				if ok {
					_ = run.Kill(over, int(sig))
				} else {
					p.Signal = nil
				}
			case size, ok := <-p.Resize:
				if ok {
					_ = run.Resize(over, uint16(size.Rows), uint16(size.Cols))
				} else {
					p.Resize = nil
				}
			case <-over.Done():
				return
			}
		}
	}()
	code, err := run.Wait(ctx)
	if err != nil {
		_ = run.Kill(context.WithoutCancel(ctx), 9)
		return stepError(ctx, errors.Join(context.Cause(ctx), err), &p.Meta)
	}
	if run.Console == nil {
		printed.Wait()
	}
	return exitError(task.Exit{Code: code}, &p.Meta)
}
