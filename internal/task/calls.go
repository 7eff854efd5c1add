package task

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/cgroup"
	"wherry.dev/wherry/internal/shim"
	"wherry.dev/wherry/internal/why"
)

// ExecError is a program that could not be executed, as it crosses the socket.
type ExecError struct {
	Code    int // 126 or 127
	Message string
	Cause   why.Cause
}

func (e *ExecError) Error() string { return e.Message }

// errGone: nobody answers any more.
var errGone = errors.New("the container's shim does not answer")

// receive hands responses to their callers until the connection ends.
func (t *Task) receive(ctx context.Context) {
	for {
		var resp shim.Response
		files, err := t.conn.Receive(&resp)
		if err != nil {
			t.breakOff(fmt.Errorf("%w: %w", errGone, err))
			return
		}
		if resp.OOM != nil {
			t.shortOfMemory(*resp.OOM)
			continue
		}
		t.mu.Lock()
		ch := t.waiting[resp.N]
		delete(t.waiting, resp.N)
		t.mu.Unlock()
		if ch != nil {
			ch <- reply{resp, files}
			continue
		}
		for _, f := range files {
			f.Close()
		}
	}
}

func (t *Task) breakOff(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.broken = err
	for n, ch := range t.waiting {
		close(ch)
		delete(t.waiting, n)
	}
}

// call is a request that waits for its response.
type call struct {
	n      uint64
	answer chan reply
}

// call sends a request and waits for its response.
func (t *Task) call(ctx context.Context, r shim.Request, files ...*os.File) (shim.Response, []*os.File, error) {
	c, err := t.send(r, files...)
	if err != nil {
		return shim.Response{}, nil, err
	}
	return c.await(ctx, t)
}

func (t *Task) send(r shim.Request, files ...*os.File) (*call, error) {
	if t.conn == nil {
		return nil, errGone
	}
	c := &call{answer: make(chan reply, 1)}
	t.mu.Lock()
	if t.broken != nil {
		t.mu.Unlock()
		return nil, t.broken
	}
	t.next++
	c.n, r.N = t.next, t.next
	t.waiting[c.n] = c.answer
	t.mu.Unlock()
	switch err := t.conn.Send(r, files...); {
	case errors.Is(err, shim.ErrTooLarge):
		t.mu.Lock()
		delete(t.waiting, c.n)
		t.mu.Unlock()
		return nil, fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	case err != nil:
		return nil, fmt.Errorf("%w: %w", errGone, err)
	}
	return c, nil
}

func (c *call) await(ctx context.Context, t *Task) (shim.Response, []*os.File, error) {
	select {
	case got, ok := <-c.answer:
		if !ok {
			return shim.Response{}, nil, errGone
		}
		if got.resp.Error != "" {
			if got.resp.Code != 0 {
				return got.resp, nil, &ExecError{Code: got.resp.Code, Message: got.resp.Error, Cause: got.resp.Cause}
			}
			return got.resp, nil, errors.New(got.resp.Error)
		}
		return got.resp, got.files, nil
	case <-ctx.Done():
		t.mu.Lock()
		delete(t.waiting, c.n)
		t.mu.Unlock()
		return shim.Response{}, nil, context.Cause(ctx)
	}
}

// watch waits for the container's end, whatever it is.
func (t *Task) watch(ctx context.Context) {
	resp, _, err := t.call(ctx, shim.Request{Method: shim.MethodWait})
	if err == nil && resp.Exit != nil {
		t.endAs(*resp.Exit)
		return
	}
	t.mu.Lock()
	closed := t.closed
	t.mu.Unlock()
	if closed {
		return // this engine's life ends, not the container's
	}
	t.endWithout(ctx)
}

// endWithout settles how the container ended when its shim does not say it: by what it has written down, or by killing what is left.
func (t *Task) endWithout(ctx context.Context) {
	var exit shim.Exit
	if err := shim.ReadJSON(filepath.Join(t.dir, shim.ExitFile), &exit); err == nil {
		t.endAs(exit)
		return
	}
	t.killLost(ctx)
	t.setExit(&Exit{Code: 137, Signal: 9, At: time.Now(), Lost: true, Started: t.Started()})
}

// endAs settles what a shim has said of the end.
func (t *Task) endAs(e shim.Exit) {
	exit := fromShim(e)
	t.mu.Lock()
	defer t.mu.Unlock()
	exit.OOMUntold = e.OOMKills > max(e.OOMNoted, t.oom.told)
	t.settle(exit)
}

func (t *Task) setExit(e *Exit) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.settle(e)
}

// settle is setExit for who holds mu.
func (t *Task) settle(e *Exit) {
	if t.exit == nil {
		t.exit = e
		close(t.ended)
		if t.config.Last && t.goOn != nil {
			time.AfterFunc(calm, t.goOn)
		}
	}
}

// Start executes the user's program. Errors of execve come back as *ExecError. Sockets are kept as by Keep.
func (t *Task) Start(ctx context.Context, sockets ...*os.File) error {
	_, _, err := t.call(ctx, shim.Request{Method: shim.MethodStart}, sockets...)
	if err == nil {
		t.mu.Lock()
		t.started = true
		t.mu.Unlock()
		if !t.config.Last && t.goOn != nil {
			time.AfterFunc(calm, t.goOn)
		}
	}
	return err
}

// Kill sends a signal to the init process, or with all to every process of the cgroup (cgroup.kill for SIGKILL).
func (t *Task) Kill(ctx context.Context, signal int, all bool) error {
	_, _, err := t.call(ctx, shim.Request{Method: shim.MethodKill, Signal: signal, All: all})
	return err
}

// Wait returns when the init process is dead and its cgroup is empty and all its output is in the log.
func (t *Task) Wait(ctx context.Context) (Exit, error) {
	select {
	case <-t.ended:
		return *t.exit, nil
	case <-ctx.Done():
		return Exit{}, context.Cause(ctx)
	}
}

// Stdin is the write side of the container's stdin (the terminal's master with a terminal); nil without one. The caller closes it;
// closing does not end the container's stdin.
func (t *Task) Stdin(ctx context.Context) (*os.File, error) {
	_, files, err := t.call(ctx, shim.Request{Method: shim.MethodStdin})
	if err != nil || len(files) == 0 {
		return nil, err
	}
	return files[0], nil
}

// CloseStdin ends the container's stdin.
func (t *Task) CloseStdin(ctx context.Context) error {
	_, _, err := t.call(ctx, shim.Request{Method: shim.MethodCloseStdin})
	return err
}

// Resize sets the terminal's size.
func (t *Task) Resize(ctx context.Context, rows, cols uint16) error {
	_, _, err := t.call(ctx, shim.Request{Method: shim.MethodResize, Rows: rows, Cols: cols})
	return err
}

// Delete kills what is left, removes cgroup and directory, and ends the shim. It refuses while processes do not die.
func (t *Task) Delete(ctx context.Context) error {
	var err error
	select {
	case <-t.ended: // the group is gone too, and the shim ends by itself when nobody is connected
	default:
		_, _, err = t.call(ctx, shim.Request{Method: shim.MethodDelete})
	}
	_ = t.Close()
	if err != nil && !errors.Is(err, errGone) {
		return err
	}
	t.endWithout(ctx)
	t.mu.Lock()
	if t.pidfd != nil {
		t.pidfd.Close()
		t.pidfd = nil
	}
	t.mu.Unlock()
	if t.config.Last && t.config.Cgroup != "" { // its shim has left the group to this process
		g, err := cgroup.Open(t.config.Cgroup)
		if err == nil {
			err = g.Delete()
		}
		if err != nil {
			return err
		}
	}
	return os.RemoveAll(t.dir)
}

// ExecOptions describe one more process.
type ExecOptions struct {
	ID      string
	Process *specs.Process
	// Note is what the engine's next life is told of the exec by Execs; nil: it is not told of it.
	Note []byte
	// In, Out, Err are the process's own ends (pipes), which are made to block, as programs expect; nil means /dev/null. Ignored with a terminal.
	In, Out, Err *os.File
}

// block makes a pipe's end wait for the other, as Go's own pipes do not: to the process that it goes to, that would be an error.
func block(f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	e := raw.Control(func(fd uintptr) { err = unix.SetNonblock(int(fd), false) })
	return errors.Join(e, err)
}

// Process is a running exec.
type Process struct {
	Pid     int
	Console *os.File // the terminal's master side, nil without a terminal
	id      string
	task    *Task
}

// Exec runs a process in the container; it returns when execve has happened, or *ExecError.
func (t *Task) Exec(ctx context.Context, o ExecOptions) (*Process, error) {
	r := shim.Request{Method: shim.MethodExec, Exec: o.ID, Process: o.Process, Note: o.Note}
	var files []*os.File
	for i, f := range []*os.File{o.In, o.Out, o.Err} {
		if f != nil {
			if err := block(f); err != nil {
				return nil, err
			}
			r.Streams |= 1 << i
			files = append(files, f)
		}
	}
	resp, got, err := t.call(ctx, r, files...)
	if err != nil {
		return nil, err
	}
	p := &Process{Pid: resp.Pid, id: o.ID, task: t}
	if len(got) > 0 {
		p.Console = got[0]
	}
	return p, nil
}

// Wait returns the exec's exit code once its process has exited. It does not wait for grandchildren that hold the streams.
func (p *Process) Wait(ctx context.Context) (code int, err error) {
	resp, _, err := p.task.call(ctx, shim.Request{Method: shim.MethodExecWait, Exec: p.id})
	if err != nil {
		return 0, err
	}
	return resp.Exit.Code, nil
}

// Kill signals the exec's process.
func (p *Process) Kill(ctx context.Context, signal int) error {
	_, _, err := p.task.call(ctx, shim.Request{Method: shim.MethodExecKill, Exec: p.id, Signal: signal})
	return err
}

// KillTree kills the exec's process with all that it has started.
func (p *Process) KillTree(ctx context.Context) error {
	_, _, err := p.task.call(ctx, shim.Request{Method: shim.MethodExecKill, Exec: p.id, Signal: int(unix.SIGKILL), All: true})
	return err
}

// Resize sets the size of the exec's terminal.
func (p *Process) Resize(_ context.Context, rows, cols uint16) error {
	if p.Console == nil {
		return errors.New("the exec has no terminal")
	}
	return shim.SetSize(p.Console, rows, cols)
}
