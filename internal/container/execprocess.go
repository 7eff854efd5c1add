package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/spec"
	"wherry.dev/wherry/internal/task"
)

// accounts are the users of a container, by its layers. What is mounted over /etc does not count, for run and exec alike.
func (c *Container) accounts() accounts {
	layers := c.record().layers(c.dir)
	return accounts{open: func(name string) (*os.File, error) { return openInLayers(layers, name) }}
}

// describe is the exec's process: the container's own with what was asked for.
func (e *execution) describe(s *Service, t *task.Task, size *[2]uint) (*specs.Process, error) {
	r, q := e.c.record(), e.request
	p, err := task.StartedAs(t)
	if err != nil {
		return nil, err
	}
	home := ""
	for _, kv := range p.Env {
		if v, ok := strings.CutPrefix(kv, "HOME="); ok {
			home = v
		}
	}
	if q.User != "" {
		who, err := e.c.accounts().find(q.User, r.HostConfig.GroupAdd)
		if err != nil {
			return nil, err
		}
		if err := who.fits(r.IDMap.Size); err != nil {
			return nil, err
		}
		who.user.Umask = p.User.Umask
		p.User, home = who.user, who.home
	}
	if err := e.giveCapabilities(p); err != nil {
		return nil, err
	}
	p.Args, p.Terminal, p.ConsoleSize = q.Cmd, q.Tty, nil
	dir := q.WorkingDir
	if dir == "" {
		dir = r.Config.WorkingDir
	}
	p.Cwd = spec.Cwd(dir)
	own := []string{defaultPath, "HOSTNAME=" + r.Config.Hostname}
	if q.Tty {
		own = append(own, "TERM=xterm")
		if size == nil {
			size = q.ConsoleSize
		}
		if size != nil {
			p.ConsoleSize = &specs.Box{Height: size[0], Width: size[1]}
		}
	}
	secrets, err := s.o.secretEnv(r)
	if err != nil {
		return nil, err
	}
	p.Env = spec.MergeEnv(spec.MergeEnv(spec.MergeEnv(append(append(own, "HOME="+home), linkEnv(s, r)...), r.Config.Env), secrets), q.Env)
	return p, nil
}

// giveCapabilities: those of the container, or all of them with --privileged.
func (e *execution) giveCapabilities(p *specs.Process) error {
	if !e.request.Privileged {
		p.Capabilities = spec.CapabilitySets(p.Capabilities.Bounding, p.User.UID)
		return nil
	}
	all, err := spec.Capabilities(nil, nil, spec.CapabilityOptions{Privileged: true})
	if err != nil {
		return err
	}
	p.Capabilities = &specs.LinuxCapabilities{Bounding: all, Effective: all, Permitted: all}
	return nil
}

// begin starts an exec's process and what moves its output.
func (e *execution) begin(ctx context.Context, s *Service, t *task.Task, o ExecStreams) (*session, error) {
	process, err := e.describe(s, t, o.ConsoleSize)
	if err != nil {
		return nil, err
	}
	n := &session{s: s, e: e, waited: make(chan struct{}), drained: make(chan struct{})}
	theirs, err := n.open(o)
	defer closeFiles(theirs[:])
	if err != nil {
		n.close()
		return nil, fmt.Errorf("open the streams of an exec in container %s: %w", e.c.record().Name, err)
	}
	// The process may run by the time that its client has gone: somebody has to know.
	ctx, done := s.lives.outlive(ctx)
	defer done()
	ctx, cancel := context.WithTimeoutCause(ctx, startLimit, fmt.Errorf("the exec took longer than %s to start", startLimit))
	defer cancel()
	n.process, err = t.Exec(ctx, task.ExecOptions{ID: e.id, Process: process, Note: e.note(), In: theirs[0], Out: theirs[1], Err: theirs[2]})
	if err != nil {
		n.close()
		return nil, execFailure(err)
	}
	if n.process.Console != nil {
		n.stdin = n.process.Console
		n.outlets = []*outlet{newOutlet(n.process.Console, n.stdout(o))}
	}
	e.mu.Lock()
	e.process = n.process
	e.mu.Unlock()
	close(e.begun)
	if !n.run(ctx) {
		_ = n.process.Kill(ctx, int(unix.SIGKILL))
		n.close()
		return nil, errClosed
	}
	return n, nil
}

func execFailure(err error) error {
	var failed *task.ExecError
	if errors.As(err, &failed) {
		return &startFailure{code: failed.Code, err: fail(errdefs.ErrInvalidArgument, "OCI runtime exec failed: %s", failed.Message)}
	}
	return fmt.Errorf("start an exec: %w", err)
}

func closeFiles(files []*os.File) {
	for _, f := range files {
		if f != nil {
			f.Close()
		}
	}
}
