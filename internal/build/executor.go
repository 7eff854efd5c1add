package build

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/moby/buildkit/executor"
	resourcestypes "github.com/moby/buildkit/executor/resources/types"
	gatewayapi "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/pb"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/container"
	"wherry.dev/wherry/internal/logs"
	"wherry.dev/wherry/internal/settings"
	"wherry.dev/wherry/internal/task"
)

// stepExecutor runs the steps of builds as sandboxed containers: BuildKit's executor.Executor.
type stepExecutor struct {
	b       *Builder
	ground  container.Ground
	watcher logs.Watcher

	mu      sync.Mutex // guards what follows
	running map[string]*step
}

func newExecutor(b *Builder) *stepExecutor {
	return &stepExecutor{b: b, ground: container.GroundOf(b.o.Containers), running: map[string]*step{}}
}

var _ executor.Executor = (*stepExecutor)(nil)

// killLimit is how long the end of a step that was cancelled may take.
const killLimit = time.Minute

// Run runs a step to its end. What it has made is taken away again whatever happens.
func (x *stepExecutor) Run(ctx context.Context, id string, root executor.Mount, mounts []executor.Mount, p executor.ProcessInfo, started chan<- struct{}) (_ resourcestypes.Recorder, err error) {
	begun := sync.OnceFunc(func() {
		if started != nil {
			close(started)
		}
	})
	defer begun()
	if err := allowedStep(&p.Meta, x.b.o.Settings); err != nil {
		return nil, err
	}
	s := &step{x: x, id: newStepID(), name: id, process: p, up: make(chan struct{}), over: make(chan struct{})}
	x.enter(s)
	defer x.leave(s)
	defer func() { err = errors.Join(err, s.undoAll(context.WithoutCancel(ctx))) }()
	if err := s.make(ctx, root, mounts); err != nil {
		return nil, stepError(ctx, err, &p.Meta)
	}
	return nil, s.run(ctx, begun)
}

// allowedStep refuses what no builder of this engine gives, and every word that it does not know.
func allowedStep(m *executor.Meta, o settings.Builds) error {
	switch m.SecurityMode {
	case pb.SecurityMode_SANDBOX:
	case pb.SecurityMode_INSECURE: // the client has allowed it, or BuildKit had refused
		if right := "security.insecure"; !slices.Contains(o.Entitlements, right) {
			return explainRights(fmt.Errorf("granting entitlement %s is not allowed", right), o)
		}
	default:
		return fmt.Errorf("invalid security mode %d: this engine does not know it", m.SecurityMode)
	}
	switch m.NetMode {
	case pb.NetMode_UNSET, pb.NetMode_HOST, pb.NetMode_NONE:
	default:
		return fmt.Errorf("a step asks for network mode %d, which this engine does not know", m.NetMode)
	}
	if m.Proxy != nil {
		return errors.New("a step asks for a network behind a proxy that records what it loads: this engine has none")
	}
	return nil
}

func newStepID() string {
	var raw [32]byte
	_, _ = rand.Read(raw[:])
	return hex.EncodeToString(raw[:])
}

func (x *stepExecutor) enter(s *step) {
	if s.name == "" {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.running[s.name] = s
}

func (x *stepExecutor) leave(s *step) {
	close(s.over)
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.running[s.name] == s {
		delete(x.running, s.name)
	}
}

// run starts the program, calls begun, and follows it to its end.
func (s *step) run(ctx context.Context, begun func()) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var outputs sync.WaitGroup
	defer outputs.Wait()
	if s.process.Stdin != nil {
		defer s.process.Stdin.Close() // however it ends: who feeds the step would wait for a client that has no more to say
	}
	reading, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	outputErr := make(chan error, 1)
	outputs.Go(func() { outputErr <- s.print(reading) })
	if err := s.task.Start(ctx); err != nil {
		return stepError(ctx, err, &s.process.Meta)
	}
	close(s.up) // only now its namespaces are whole, and others can join them
	begun()
	outputs.Go(func() { s.control(ctx) })
	if s.process.Stdin != nil {
		outputs.Go(func() { s.feed(ctx) })
	}
	exit, err := s.task.Wait(ctx)
	if err != nil {
		err = errors.Join(err, s.kill(context.WithoutCancel(ctx)))
		return stepError(ctx, err, &s.process.Meta)
	}
	cancel(errors.New("the step has ended"))
	if err := <-outputErr; err != nil && !errors.Is(err, logs.ErrLost) {
		return fmt.Errorf("read what the step prints: %w", err)
	}
	return exitError(exit, &s.process.Meta)
}

// kill ends all of the step's processes.
func (s *step) kill(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, killLimit)
	defer cancel()
	err := s.task.Kill(ctx, int(unix.SIGKILL), true)
	if _, waited := s.task.Wait(ctx); waited != nil {
		return errors.Join(err, waited)
	}
	return nil
}

// print hands on what the step prints until its end.
func (s *step) print(ctx context.Context) error {
	r, err := logs.Open(s.logDir(), logs.ReadOptions{Follow: &s.x.watcher})
	if err != nil {
		return err
	}
	defer r.Close()
	for {
		e, err := r.Next(ctx)
		if errors.Is(err, io.EOF) || ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		w := s.process.Stdout
		if e.Stream == logs.Stderr {
			w = s.process.Stderr
		}
		if w != nil {
			if _, err := w.Write(e.Data); err != nil {
				return err
			}
		}
	}
}

// control passes signals and sizes on.
func (s *step) control(ctx context.Context) {
	for {
		select {
		case sig, ok := <-s.process.Signal:
			if !ok {
				s.process.Signal = nil
				continue
			}
			_ = s.task.Kill(ctx, int(sig), false)
		case size, ok := <-s.process.Resize:
			if !ok {
				s.process.Resize = nil
				continue
			}
			_ = s.task.Resize(ctx, uint16(size.Rows), uint16(size.Cols))
		case <-ctx.Done():
			return
		}
	}
}

// feed gives the step its input.
func (s *step) feed(ctx context.Context) {
	in, err := s.task.Stdin(ctx)
	if err != nil || in == nil {
		return
	}
	_, _ = io.Copy(in, s.process.Stdin)
	_ = in.Close()
	_ = s.task.CloseStdin(ctx)
}

// stepError is how BuildKit is told that a step did not begin, or was cancelled.
func stepError(ctx context.Context, err error, m *executor.Meta) error {
	var failure *task.ExecError
	if errors.As(err, &failure) {
		if slices.Contains(m.ValidExitCodes, failure.Code) {
			return nil
		}
		return &gatewayapi.ExitError{ExitCode: uint32(failure.Code), Err: errors.New(failure.Message)}
	}
	if ctx.Err() != nil {
		return &gatewayapi.ExitError{ExitCode: gatewayapi.UnknownExitStatus, Err: errors.Join(context.Cause(ctx), err)}
	}
	return err
}

func exitError(e task.Exit, m *executor.Meta) error {
	if m.ValidExitCodes == nil && e.Code == 0 || slices.Contains(m.ValidExitCodes, e.Code) {
		return nil
	}
	out := &gatewayapi.ExitError{ExitCode: uint32(e.Code)}
	switch {
	case e.Lost:
		out.Err = errors.New("the process that watched over the step has died: the step was killed")
	case e.OOMKilled:
		out.Err = errors.New("the step was killed for want of memory")
	case e.Signal != 0:
		out.Err = fmt.Errorf("the step was ended by signal %s", unix.SignalName(syscall.Signal(e.Signal)))
	}
	return out
}
