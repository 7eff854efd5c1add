package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/task"
)

const (
	// execsKept is how many execs that do not run are remembered: who started one asks for its exit code afterwards.
	execsKept = 1000
	// execBytes are the most that their requests may have together, for the same reason; execMost is how much of arguments and variables the kernel gives a
	// program at most (execve(2)).
	execBytes = 64 << 20
	execMost  = 6 << 20
	// sessionWait is how long a change of a terminal's size waits for its exec to have one.
	sessionWait = 10 * time.Second
)

// Execs are the execs of all containers. They live in memory; an engine's next life has from the shims those that ran when it began, and the
// last that had ended.
type Execs struct {
	mu   sync.Mutex // guards what follows
	byID map[string]*execution
	idle []*execution // not running, the oldest first
	size int          // of the requests of those
}

// execution is one exec: what was asked for, and what became of it.
type execution struct {
	id      string
	c       *Container
	request container.ExecCreateRequest
	size    int           // of the request
	keys    []byte        // that detach
	begun   chan struct{} // closed when its process runs, or could not be started
	done    chan struct{} // closed when it has ended

	mu      sync.Mutex // guards what follows
	claimed bool
	running bool
	code    *int
	process *task.Process
}

func newExecs() *Execs { return &Execs{byID: map[string]*execution{}} }

func (x *Execs) add(e *execution) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.byID[e.id] = e
	x.rest(e)
}

// rest notes that an exec does not run; the caller holds mu. The oldest ones are forgotten.
func (x *Execs) rest(e *execution) {
	x.idle = append(x.idle, e)
	x.size += e.size
	for len(x.idle) > execsKept || x.size > execBytes && len(x.idle) > 1 {
		delete(x.byID, x.idle[0].id)
		x.size -= x.idle[0].size
		x.idle[0] = nil // the list's memory lasts for longer
		x.idle = x.idle[1:]
	}
}

// setRunning moves an exec out of those that may be forgotten, or back.
func (x *Execs) setRunning(e *execution, running bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if !running {
		x.rest(e)
		return
	}
	if i := slices.Index(x.idle, e); i >= 0 {
		x.idle = slices.Delete(x.idle, i, i+1)
		x.size -= e.size
	}
	x.byID[e.id] = e
}

func (x *Execs) find(id string) (*execution, error) {
	x.mu.Lock()
	e := x.byID[id]
	x.mu.Unlock()
	if e == nil || e.c.isGone() {
		return nil, fail(errdefs.ErrNotFound, "No such exec instance: %s", id)
	}
	return e, nil
}

// of lists the execs of a container that have not ended; nil without any.
func (x *Execs) of(containerID string) []string {
	x.mu.Lock()
	defer x.mu.Unlock()
	var ids []string
	for id, e := range x.byID {
		if e.c.id == containerID && !e.ended() {
			ids = append(ids, id)
		}
	}
	return ids
}

func (e *execution) ended() bool {
	select {
	case <-e.done:
		return true
	default:
		return false
	}
}

// command is the exec's, for events.
func (e *execution) command() string { return strings.Join(e.request.Cmd, " ") }

// execable is the task of a container in which a program can be started now.
func (c *Container) execable() (*task.Task, *Record, error) {
	t, r, err := c.running()
	switch {
	case r.Status == Restarting:
		return nil, r, fail(errdefs.ErrConflict, "Container %s is restarting, wait until the container is running", r.Name)
	case r.Status == Paused:
		return nil, r, fail(errdefs.ErrConflict, "Container %s is paused, unpause the container before exec", r.Name)
	case err != nil:
		return nil, r, fail(errdefs.ErrConflict, "container %s is not running: start it first", r.Name)
	}
	return t, r, err
}

// ExecCreate notes what to run in a running container. Nothing is started.
func (s *Service) ExecCreate(ctx context.Context, id string, r container.ExecCreateRequest) (execID string, err error) {
	c, err := s.index.find(id)
	if err != nil {
		return "", err
	}
	_, rec, err := c.execable()
	if err != nil {
		return "", err
	}
	if len(r.Cmd) == 0 || r.Cmd[0] == "" {
		return "", invalid("No exec command specified")
	}
	size := sizeOf(r)
	if size > execMost {
		return "", invalid("the exec's arguments and variables have %d bytes: the kernel takes %d at most: put them in a file of the container", size, execMost)
	}
	keys, err := parseDetachKeys(r.DetachKeys)
	if err != nil {
		return "", err
	}
	if r.User != "" { // the client is told now; passwd may be another one by the start, which looks again
		if _, err := c.accounts().find(r.User, rec.HostConfig.GroupAdd); err != nil {
			return "", err
		}
	}
	e := &execution{id: newID(), c: c, request: r, size: size, keys: keys, begun: make(chan struct{}), done: make(chan struct{})}
	s.execs.add(e)
	s.publish(rec, events.Action(string(events.ActionExecCreate)+": "+e.command()), "execID", e.id)
	return e.id, nil
}

// sizeOf is what a request takes on a new program's stack: each string with its end and a pointer to it.
func sizeOf(r container.ExecCreateRequest) (size int) {
	for _, texts := range [][]string{r.Cmd, r.Env} {
		for _, text := range texts {
			size += len(text) + 9
		}
	}
	return size + len(r.WorkingDir) + len(r.User)
}

// ExecStreams of ExecStart. Streams that are nil, or that the exec was not created for, are not attached. They outlive the call where
// the client goes before the process does: reads and writes must then fail.
type ExecStreams struct {
	Detach         bool
	ConsoleSize    *[2]uint // height, width; nil: as created
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Started        func() // called once execve has happened or has failed, before any output is written
}

// ExecStart runs an exec and, without Detach, returns when its process has exited and its output was written. What the process has left
// behind is not waited for. A program that cannot be executed is ErrInvalidArgument; its code, 126 or 127, is what ExecInspect says. The
// end of ctx lets go of the process and does not end it.
func (s *Service) ExecStart(ctx context.Context, execID string, o ExecStreams) error {
	e, err := s.execs.find(execID)
	if err != nil {
		return err
	}
	t, r, err := e.c.execable()
	if err != nil {
		return err
	}
	started := o.Started
	if started == nil {
		started = func() {}
	}
	if err := e.claim(); err != nil {
		started() // as with dockerd, who attaches is told in the stream: docker compose starts what it is attached to once more
		return err
	}
	s.execs.setRunning(e, true)
	s.publish(r, events.Action(string(events.ActionExecStart)+": "+e.command()), "execID", e.id)
	running, err := e.begin(ctx, s, t, o)
	if err != nil {
		var failed *startFailure
		if !errors.As(err, &failed) && !errdefs.IsInvalidArgument(err) && over(t) {
			err = notRunning(r)
		}
		e.end(s, failureCode(err))
		started()
		return err
	}
	started()
	if o.Detach {
		running.letGo()
		return nil
	}
	return running.serve(ctx)
}

// dying is how long a container's first process may take to be dead: it waits for all others, among them the exec that was killed.
const dying = time.Second

// over says that a container's first process is dead, perhaps before its end has been recorded.
func over(t *task.Task) bool {
	f, err := t.Pidfd()
	if err != nil {
		return errdefs.IsFailedPrecondition(err) // otherwise this process has no descriptor left, which says nothing of the container
	}
	defer f.Close()
	p := []unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLIN}}
	for end := time.Now().Add(dying); ; {
		n, err := unix.Poll(p, max(0, int(time.Until(end).Milliseconds())))
		if !errors.Is(err, unix.EINTR) {
			return err == nil && n > 0
		}
	}
}

func (e *execution) claim() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.claimed && e.ended():
		return fail(errdefs.ErrConflict, "exec command %s has already run", e.id)
	case e.claimed:
		return fail(errdefs.ErrConflict, "exec command %s is already running", e.id)
	}
	e.claimed, e.running = true, true
	return nil
}

// failureCode is the exit code of a program that was not started.
func failureCode(err error) int {
	var f *startFailure
	if errors.As(err, &f) {
		return f.code
	}
	return 126
}

// startFailure is a program that could not be executed.
type startFailure struct {
	code int
	err  error
}

func (f *startFailure) Error() string { return f.err.Error() }
func (f *startFailure) Unwrap() error { return f.err }

// end notes an exec's exit code and tells it.
func (e *execution) end(s *Service, code int) {
	e.mu.Lock()
	begun := e.process != nil
	e.running, e.code, e.process = false, &code, nil
	e.mu.Unlock()
	if !begun {
		close(e.begun)
	}
	close(e.done)
	s.execs.setRunning(e, false)
	s.publish(e.c.record(), events.ActionExecDie, "execID", e.id, "exitCode", strconv.Itoa(code))
}

// ExecInspect tells about an exec; its exit code is nil until it has ended.
func (s *Service) ExecInspect(execID string) (container.ExecInspectResponse, error) {
	e, err := s.execs.find(execID)
	if err != nil {
		return container.ExecInspectResponse{}, err
	}
	q := e.request
	out := container.ExecInspectResponse{ID: e.id, ContainerID: e.c.id, OpenStdin: q.AttachStdin, OpenStdout: q.AttachStdout,
		OpenStderr: q.AttachStderr, DetachKeys: e.keys, CanRemove: e.ended(),
		ProcessConfig: &container.ExecProcessConfig{Tty: q.Tty, Entrypoint: q.Cmd[0], Arguments: q.Cmd[1:], Privileged: &q.Privileged, User: q.User}}
	e.mu.Lock()
	defer e.mu.Unlock()
	out.Running, out.ExitCode = e.running, e.code
	if e.process != nil {
		out.Pid = e.process.Pid
	}
	return out, nil
}

// ExecResize tells the exec's terminal its size; where there is none nothing is done. A client may send it right after the start.
func (s *Service) ExecResize(ctx context.Context, execID string, rows, cols uint16) error {
	e, err := s.execs.find(execID)
	if err != nil {
		return err
	}
	timer := time.NewTimer(sessionWait)
	defer timer.Stop()
	select {
	case <-e.begun:
	case <-timer.C:
		return fail(errdefs.ErrFailedPrecondition, "exec %s has not been started within %s", e.id, sessionWait)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	e.mu.Lock()
	p := e.process
	e.mu.Unlock()
	if p == nil {
		return fail(errdefs.ErrConflict, "exec %s is not running", e.id)
	}
	if !e.request.Tty {
		return nil
	}
	if err := p.Resize(ctx, rows, cols); err != nil {
		return fmt.Errorf("resize the terminal of exec %s: %w", e.id, err)
	}
	return nil
}
