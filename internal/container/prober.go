package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"wherry.dev/wherry/internal/awake"
	"wherry.dev/wherry/internal/task"
)

// prober runs probes: the check's command as the container's own user, in its own environment.
type prober struct {
	life
	check   *check
	task    *task.Task
	process *specs.Process // as the container was started; nil until the first probe
}

func (p *prober) probe(ctx context.Context) *container.HealthcheckResult {
	result := &container.HealthcheckResult{Start: time.Now()}
	code, output, err := p.run(ctx)
	result.End = time.Now()
	result.ExitCode, result.Output = code, output
	if err != nil {
		result.ExitCode = -1
		var notRun *task.ExecError
		if errors.As(err, &notRun) {
			result.ExitCode = notRun.Code
		}
		result.Output = err.Error()
		if output != "" {
			result.Output += ": " + output
		}
	}
	return result
}

// command is what a probe executes. Its limits, user and environment are the container's.
func (p *prober) command() (*specs.Process, error) {
	if p.process == nil {
		process, err := task.StartedAs(p.task)
		if err != nil {
			return nil, err
		}
		process.Args, process.Terminal, process.ConsoleSize = p.check.args, false, nil
		p.process = process
	}
	return p.process, nil
}

func (p *prober) run(ctx context.Context) (code int, output string, err error) {
	process, err := p.command()
	if err != nil {
		return 0, "", err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return 0, "", err
	}
	defer r.Close()
	text := make(chan string, 1)
	go func() { text <- readSome(r) }() // ends by the deadline below
	id := newID()
	defer func() { p.tell(events.ActionExecDie, "execID", id, "exitCode", strconv.Itoa(code)) }()
	p.tell(events.Action(string(events.ActionExecCreate)+": "+strings.Join(process.Args, " ")), "execID", id)
	p.tell(events.Action(string(events.ActionExecStart)+": "+strings.Join(process.Args, " ")), "execID", id)
	// What the engine takes to start the probe is not the probe's time.
	starting, cancel := context.WithTimeoutCause(ctx, startLimit, fmt.Errorf("the health check took longer than %s to start", startLimit))
	defer cancel()
	exec, err := p.task.Exec(starting, task.ExecOptions{ID: id, Process: process, Out: w, Err: w})
	w.Close()
	if err != nil {
		_ = r.SetReadDeadline(time.Now())
		<-text
		return 0, "", err
	}
	limited, end := context.WithCancelCause(ctx)
	defer end(nil)
	defer awake.After(p.check.timeout, func() { end(context.DeadlineExceeded) }).Stop() // the probe stands still with the host
	code, err = exec.Wait(limited)
	if err != nil {
		lasting, done := p.s.lives.outlive(ctx)
		_ = exec.KillTree(lasting)
		done()
		code, err = sigkill+128, p.late(limited, err)
	}
	_ = r.SetReadDeadline(time.Now().Add(probeDrain))
	return code, <-text, err
}

func (p *prober) tell(action events.Action, more ...string) {
	p.s.publish(p.c.record(), action, more...)
}

// late says that a probe took too long, where it did.
func (p *prober) late(ctx context.Context, err error) error {
	if context.Cause(ctx) == context.DeadlineExceeded {
		return fmt.Errorf("Health check exceeded timeout (%v)", p.check.timeout) //nolint:staticcheck // Docker's words
	}
	return err
}

// readSome keeps the beginning of what comes and throws away the rest, which three dots stand for.
func readSome(r io.Reader) string {
	b := make([]byte, probeOutput)
	n, err := io.ReadFull(r, b)
	if err != nil {
		return string(b[:n])
	}
	if rest, _ := io.Copy(io.Discard, r); rest > 0 {
		return string(b) + "..."
	}
	return string(b)
}
