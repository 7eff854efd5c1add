package shim

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/cgroup"
	"wherry.dev/wherry/internal/logs"
	"wherry.dev/wherry/internal/why"
)

// Streams are the ends of a process's standard streams that belong to the process; nil: /dev/null.
type Streams [3]*os.File

// Runtime creates containers in this process.
type Runtime interface {
	Create(ctx context.Context, c Config, s Streams) (Container, error)
	// Restore makes the container of a checkpoint's folder. Its first process is there and has its namespaces; Start makes the rest.
	Restore(ctx context.Context, c Config, s Streams, from Restore) (Container, error)
}

// Container is one that this process has created.
type Container interface {
	Process
	Start(ctx context.Context) error // the hooks of the start, and the program
	Exec(ctx context.Context, p *specs.Process, s Streams) (Process, error)
	Checkpoint(ctx context.Context, c Checkpoint, pipes Pipes) error
	Cgroup() *cgroup.Group
	Warnings() []string
}

// Process is a child of this process.
type Process interface {
	Pid() int
	Console() *os.File                    // the terminal's master side, nil without one
	Reap() (code int, sig int, err error) // waits for the end; called once
	Kill(signal unix.Signal) error
}

// Coded is an error that knows the exit code it stands for (126, 127).
type Coded interface{ ExitCode() int }

// Caused is an error that knows the kind of what is wrong.
type Caused interface{ Cause() why.Cause }

// Server is one shim: one container.
type Server struct {
	dir     string
	runtime Runtime
	config  Config
	born    time.Duration // by the clock of the kernel's log, or a little before

	ended    chan struct{} // closed when exit.json is written
	quit     chan struct{} // closed when there is nothing left to do
	quitOnce sync.Once

	mu      sync.Mutex // guards what follows
	clients int        // connected now
	life    life
	oom     shortage
	untidy  int         // execs since memory was given back
	tidy    *time.Timer // gives memory back; nil before the first

	execs execs
	kept  kept
}

// life is what the container has come to.
type life struct {
	container Container
	program   string // the first process's, for people
	output    *output
	stdin     *os.File      // write side, or the terminal
	starting  chan struct{} // nil: nobody has said start; closed when it has worked or not
	started   bool
	exit      *Exit
	unwritten bool // the end is not in exit.json yet
}

// NewServer serves the task in a folder.
func NewServer(dir string, r Runtime) *Server {
	return &Server{dir: dir, runtime: r, born: monotonic() - logSlack, ended: make(chan struct{}), quit: make(chan struct{}), execs: execs{byID: map[string]*execution{}},
		oom: shortage{changed: make(chan struct{})}}
}

// logSlack is how far the kernel's log and the monotonic clock may be apart.
const logSlack = time.Second

func monotonic() time.Duration {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return logSlack
	}
	return time.Duration(now.Nano())
}

// Serve answers until the container is dead, its end is written down and nobody is connected, or until it is deleted, or until everybody
// has gone before there was a container.
func (s *Server) Serve(ctx context.Context, l *net.UnixListener, first *Conn) error {
	if err := ReadJSON(s.path(TaskFile), &s.config); err != nil {
		return err
	}
	go func() {
		<-s.quit
		l.Close()
	}()
	s.count(1)
	go s.client(ctx, first)
	for {
		c, err := l.AcceptUnix()
		switch {
		case errors.Is(err, net.ErrClosed):
			return nil
		case isShort(err): // the container must not end with this one: who knocks waits, and is let in later
			time.Sleep(acceptAgain)
			continue
		case err != nil:
			return err
		}
		s.count(1)
		go s.client(ctx, NewConn(c))
	}
}

// acceptAgain is how long a shim waits where the machine has no room for one more connection.
const acceptAgain = 50 * time.Millisecond

// isShort says that something has run out which others may give back: descriptors, of this process or of the machine, or memory.
func isShort(err error) bool {
	for _, e := range []error{unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM, unix.ECONNABORTED} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func (s *Server) client(ctx context.Context, c *Conn) {
	defer s.count(-1)
	defer s.execs.drainFor(c)
	defer c.Close()
	for {
		var r Request
		files, err := c.Receive(&r)
		if err != nil {
			return
		}
		if r.Method == MethodDelete {
			if s.answer(ctx, c, r, files) == nil {
				s.end()
				return
			}
			continue
		}
		if r.Method == MethodCreate { // before the client's end is seen: a shim does not end in the middle of it
			_ = s.answer(ctx, c, r, files)
			continue
		}
		go func() { _ = s.answer(ctx, c, r, files) }()
	}
}

// count notes who is connected, and ends the service when nobody is and nothing lives.
func (s *Server) count(change int) {
	s.mu.Lock()
	s.clients += change
	switch {
	case s.clients == 0 && change < 0:
		s.kept.stamp(true)
	case s.clients == 1 && change > 0:
		s.kept.stamp(false)
	}
	over := s.clients == 0 && (s.life.container == nil || s.hasEnded() && !s.life.unwritten)
	s.mu.Unlock()
	if over {
		s.end()
	}
}

// hasEnded says that the container's end is written down and its group taken away, or left to the engine.
func (s *Server) hasEnded() bool {
	select {
	case <-s.ended:
		return true
	default:
		return false
	}
}

func (s *Server) end() { s.quitOnce.Do(func() { close(s.quit) }) }

// answer carries one request out. Descriptors that came with it are closed here.
func (s *Server) answer(ctx context.Context, c *Conn, r Request, files []*os.File) error {
	defer func() {
		for _, f := range files {
			f.Close()
		}
	}()
	if r.Method == MethodKept {
		return s.kept.give(c, Response{N: r.N})
	}
	resp, give, err := s.do(ctx, c, r, files)
	resp.N = r.N
	if err != nil {
		resp.Error = err.Error()
		var coded Coded
		if errors.As(err, &coded) {
			resp.Code = coded.ExitCode()
		}
		var caused Caused
		if errors.As(err, &caused) {
			resp.Cause = caused.Cause()
		}
	}
	if give != nil {
		if sent := c.Send(resp, give); sent != nil { // who asked waits for an answer
			_ = c.Send(Response{N: r.N, Error: fmt.Sprintf("pass on a stream: %v", sent)})
		}
		give.Close() // the outlet of an exec has its own
		return err
	}
	switch sent := c.Send(resp); {
	case sent == nil && r.Method == MethodExecWait:
		s.execs.tell(r.Exec)
	case errors.Is(sent, ErrTooLarge):
		_ = c.Send(Response{N: r.N, Error: "the answer is " + sent.Error()})
	}
	return err
}

// do carries a request out. What it gives is closed when it has been sent.
func (s *Server) do(ctx context.Context, c *Conn, r Request, files []*os.File) (resp Response, give *os.File, err error) {
	switch r.Method {
	case MethodCreate:
		return s.create(ctx, r)
	case MethodStart:
		if err = s.start(ctx); err == nil && len(files) > 0 {
			_ = s.kept.keep(files) // for want of descriptors: names are late once
		}
		return resp, nil, err
	case MethodKeep:
		return resp, nil, s.kept.keep(files)
	case MethodState:
		return s.state(), nil, nil
	case MethodKill:
		return resp, nil, s.kill(unix.Signal(r.Signal), r.All)
	case MethodWait:
		return s.wait(c, r.N), nil, nil
	case MethodNoted:
		s.noted(r.Kills)
		return resp, nil, nil
	case MethodStdin:
		give, err = s.stdin()
		return resp, give, err
	case MethodCloseStdin:
		return resp, nil, s.closeStdin()
	case MethodResize:
		return resp, nil, s.resize(r.Rows, r.Cols)
	case MethodExec:
		return s.exec(ctx, c, r, files)
	case MethodExecs:
		return Response{Execs: s.execs.states()}, nil, nil
	case MethodExecKill:
		if e := s.execs.find(r.Exec); e != nil && r.All {
			s.mu.Lock()
			g := s.life.container.Cgroup()
			s.mu.Unlock()
			if g != nil {
				killTree(g, e.process.Pid())
			}
		}
		return s.execs.ask(r)
	case MethodExecWait:
		return s.execs.ask(r)
	case MethodCheckpoint:
		return resp, nil, s.checkpoint(context.WithoutCancel(ctx), r)
	case MethodDelete:
		return resp, nil, s.delete(ctx)
	}
	return resp, nil, fmt.Errorf("the shim knows no method %q", r.Method)
}

func (s *Server) create(ctx context.Context, r Request) (Response, *os.File, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.life.container != nil || s.life.exit != nil {
		return Response{}, nil, errors.New("the shim has created its container already")
	}
	spec := s.config.Spec
	if spec == nil || spec.Process == nil || len(spec.Process.Args) == 0 {
		return Response{}, nil, errors.New("the task has no process to run")
	}
	spec.Process.Env = append(spec.Process.Env, r.Env...)
	log, err := logs.Create(s.config.Log.Dir, s.config.Log.MaxSize, s.config.Log.MaxFiles)
	if err != nil {
		return Response{}, nil, fmt.Errorf("open the log: %w", err)
	}
	out := &output{log: log}
	streams, err := out.open(spec.Process.Terminal, s.config.Stdin)
	if err != nil {
		out.close()
		return Response{}, nil, err
	}
	var c Container
	if r.Restore == nil {
		c, err = s.runtime.Create(ctx, s.config, streams)
	} else {
		c, err = s.runtime.Restore(ctx, s.config, streams, *r.Restore)
	}
	streams.Close()
	if err != nil {
		out.close()
		return Response{}, nil, err
	}
	s.life.container, s.life.output, s.life.stdin, s.life.program = c, out, out.stdin, filepath.Base(spec.Process.Args[0])
	if console := c.Console(); console != nil {
		s.life.stdin = console
		out.pump(console, logs.Stdout)
	}
	err = out.run()
	go s.watch(context.WithoutCancel(ctx))
	if err != nil {
		return Response{}, nil, err // whoever asked has it ended
	}
	return Response{Pid: c.Pid(), Warnings: c.Warnings()}, nil, nil
}

func (s *Server) start(ctx context.Context) error {
	s.mu.Lock()
	c := s.life.container
	if c == nil || s.life.starting != nil {
		s.mu.Unlock()
		return errors.New("the container has not been created, or it has been started already")
	}
	s.life.starting = make(chan struct{})
	s.mu.Unlock()
	defer close(s.life.starting)
	if err := c.Start(ctx); err != nil {
		return err
	}
	s.mu.Lock()
	s.life.started = true
	s.tidyLater()
	s.mu.Unlock()
	if g := c.Cgroup(); g != nil {
		go s.watchMemory(g)
	}
	return nil
}

func (s *Server) state() Response {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := Response{Started: s.life.started, Exit: s.life.exit, Noted: s.oom.told}
	if s.life.container != nil {
		r.Pid = s.life.container.Pid()
		s.tidyLater() // an engine has come anew: that woke much that had been forgotten
	}
	return r
}

func (s *Server) kill(sig unix.Signal, all bool) error {
	s.mu.Lock()
	c, exit := s.life.container, s.life.exit
	s.mu.Unlock()
	switch {
	case c == nil:
		return errors.New("the container has not been created")
	case exit != nil:
		return nil
	}
	g := c.Cgroup()
	if !all || g == nil {
		return c.Kill(sig)
	}
	if sig == unix.SIGKILL {
		return g.Kill()
	}
	_, err := cgroup.Signal(g, sig)
	return err
}

// stdin is a descriptor of its own: the end of the container closes the other, and its number may be another file's by the time it is sent.
func (s *Server) stdin() (*os.File, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.life.stdin == nil {
		return nil, nil
	}
	f, err := duplicate(s.life.stdin)
	if err != nil { // the container has ended, or descriptors are short
		return nil, fmt.Errorf("pass on a stream: %w", err)
	}
	return f, nil
}

func (s *Server) closeStdin() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.life.stdin == nil || s.life.container.Console() != nil {
		return nil
	}
	err := s.life.stdin.Close()
	s.life.stdin = nil
	return err
}

func (s *Server) resize(rows, cols uint16) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.life.container == nil || s.life.container.Console() == nil {
		return errors.New("the container has no terminal")
	}
	return SetSize(s.life.container.Console(), rows, cols)
}

// SetSize tells a terminal how large it is.
func SetSize(terminal *os.File, rows, cols uint16) error {
	raw, err := terminal.SyscallConn()
	if err != nil {
		return err
	}
	closed := raw.Control(func(fd uintptr) {
		err = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols})
	})
	return errors.Join(closed, err)
}

// delete ends what is left and removes the group; a container that was created and never started ends here.
func (s *Server) delete(ctx context.Context) error {
	s.mu.Lock()
	c := s.life.container
	s.mu.Unlock()
	if c == nil {
		return nil
	}
	_ = s.kill(unix.SIGKILL, true)
	_ = c.Kill(unix.SIGKILL)
	select {
	case <-s.ended:
		return nil
	case <-time.After(30 * time.Second):
		return fmt.Errorf("processes of container %s do not die within 30 s of SIGKILL", s.config.ID)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
