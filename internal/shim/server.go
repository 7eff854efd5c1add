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
)

// Streams are the ends of a process's standard streams that belong to the process; nil: /dev/null.
type Streams [3]*os.File

// Runtime creates containers in this process.
type Runtime interface {
	Create(ctx context.Context, c Config, s Streams) (Container, error)
}

// Container is one that this process has created.
type Container interface {
	Process
	Start() error
	Exec(ctx context.Context, p *specs.Process, s Streams) (Process, error)
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

// Server is one shim: one container.
type Server struct {
	dir     string
	runtime Runtime
	config  Config

	ended   chan struct{} // closed when exit.json is written
	quit    chan struct{} // closed when there is nothing left to do
	quitOne sync.Once

	mu        sync.Mutex // guards what follows
	container Container
	output    *output
	stdin     *os.File      // write side, or the terminal
	starting  chan struct{} // nil: nobody has said start; closed when it has worked or not
	started   bool
	clients   int    // connected now
	program   string // the first process's, for people
	exit      *Exit
	execs     map[string]*execution
	untidy    int         // execs so far
	tidy      *time.Timer // gives memory back; nil before the first exec
}

// execution is one exec under way.
type execution struct {
	process Process
	done    chan struct{}
	exit    Exit
}

// NewServer serves the task in a folder.
func NewServer(dir string, r Runtime) *Server {
	return &Server{dir: dir, runtime: r, ended: make(chan struct{}), quit: make(chan struct{}), execs: map[string]*execution{}}
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
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		s.count(1)
		go s.client(ctx, NewConn(c))
	}
}

func (s *Server) client(ctx context.Context, c *Conn) {
	defer s.count(-1)
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
		go func() { _ = s.answer(ctx, c, r, files) }()
	}
}

// count notes who is connected, and ends the service when nobody is and nothing lives.
func (s *Server) count(change int) {
	s.mu.Lock()
	s.clients += change
	over := s.clients == 0 && (s.container == nil || s.exit != nil)
	s.mu.Unlock()
	if over {
		s.end()
	}
}

func (s *Server) end() { s.quitOne.Do(func() { close(s.quit) }) }

// answer carries one request out. Descriptors that came with it are closed here.
func (s *Server) answer(ctx context.Context, c *Conn, r Request, files []*os.File) error {
	defer func() {
		for _, f := range files {
			f.Close()
		}
	}()
	resp, give, err := s.do(ctx, r, files)
	resp.N = r.N
	if err != nil {
		resp.Error = err.Error()
		var coded Coded
		if errors.As(err, &coded) {
			resp.Code = coded.ExitCode()
		}
	}
	if give != nil {
		_ = c.Send(resp, give)
		return err
	}
	_ = c.Send(resp)
	return err
}

func (s *Server) do(ctx context.Context, r Request, files []*os.File) (resp Response, give *os.File, err error) {
	switch r.Method {
	case MethodCreate:
		return s.create(ctx)
	case MethodStart:
		return resp, nil, s.start()
	case MethodState:
		return s.state(), nil, nil
	case MethodKill:
		return resp, nil, s.kill(unix.Signal(r.Signal), r.All)
	case MethodWait:
		<-s.ended
		return Response{Exit: s.exit}, nil, nil
	case MethodStdin:
		s.mu.Lock()
		defer s.mu.Unlock()
		return resp, s.stdin, nil
	case MethodCloseStdin:
		return resp, nil, s.closeStdin()
	case MethodResize:
		return resp, nil, s.resize(r.Rows, r.Cols)
	case MethodExec:
		return s.exec(ctx, r, files)
	case MethodExecWait, MethodExecKill:
		return s.execution(r)
	case MethodDelete:
		return resp, nil, s.delete(ctx)
	}
	return resp, nil, fmt.Errorf("the shim knows no method %q", r.Method)
}

func (s *Server) create(ctx context.Context) (Response, *os.File, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.container != nil || s.exit != nil {
		return Response{}, nil, errors.New("the shim has created its container already")
	}
	spec := s.config.Spec
	if spec == nil || spec.Process == nil || len(spec.Process.Args) == 0 {
		return Response{}, nil, errors.New("the task has no process to run")
	}
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
	c, err := s.runtime.Create(ctx, s.config, streams)
	streams.Close()
	if err != nil {
		out.close()
		return Response{}, nil, err
	}
	s.container, s.output, s.stdin, s.program = c, out, out.stdin, filepath.Base(spec.Process.Args[0])
	if console := c.Console(); console != nil {
		s.stdin = console
		out.pump(console, logs.Stdout)
	}
	out.run()
	go s.watch(context.WithoutCancel(ctx))
	return Response{Pid: c.Pid(), Warnings: c.Warnings()}, nil, nil
}

func (s *Server) start() error {
	s.mu.Lock()
	c := s.container
	if c == nil || s.starting != nil {
		s.mu.Unlock()
		return errors.New("the container has not been created, or it has been started already")
	}
	s.starting = make(chan struct{})
	s.mu.Unlock()
	defer close(s.starting)
	if err := c.Start(); err != nil {
		return err
	}
	s.mu.Lock()
	s.started = true
	s.mu.Unlock()
	return nil
}

// hasStarted says whether the program has ever run; a start that is under way is waited for: the program may have ended before its
// start has been told.
func (s *Server) hasStarted() bool {
	s.mu.Lock()
	starting := s.starting
	s.mu.Unlock()
	if starting == nil {
		return false
	}
	<-starting
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.started
}

func (s *Server) state() Response {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := Response{Started: s.started, Exit: s.exit}
	if s.container != nil {
		r.Pid = s.container.Pid()
	}
	return r
}

// watch follows the container to its end: its first process, then whatever is left in its group, then its output.
func (s *Server) watch(ctx context.Context) {
	c := s.container
	code, sig, err := c.Reap()
	exit := Exit{Code: code, Signal: sig, At: time.Now()}
	if err != nil {
		exit.Code = 255
	}
	if g := c.Cgroup(); g != nil {
		killAll(ctx, g)
		if n, err := g.OOMKills(); err == nil && n > 0 {
			exit.OOMKilled = true
			if exit.OOMVictim = g.OOMVictim(); exit.OOMVictim == "" && sig == int(unix.SIGKILL) {
				exit.OOMVictim = s.program
			}
		}
	}
	s.output.finish()
	exit.Started = s.hasStarted()
	_ = WriteJSON(s.path(ExitFile), exit)
	s.mu.Lock()
	s.exit = &exit
	s.mu.Unlock()
	if g := c.Cgroup(); g != nil {
		_ = g.Delete()
	}
	close(s.ended)
	s.count(0)
}

// killAll ends what is left of a group and comes back when it is empty: before that nothing may be called dead. A process that sleeps in
// the kernel (a lost disk) can make that long.
func killAll(ctx context.Context, g *cgroup.Group) {
	for {
		_ = g.Kill()
		wait, cancel := context.WithTimeout(ctx, 30*time.Second)
		err := g.WaitEmpty(wait)
		cancel()
		if err == nil {
			return
		}
	}
}

func (s *Server) kill(sig unix.Signal, all bool) error {
	s.mu.Lock()
	c, exit := s.container, s.exit
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
	pids, err := g.Procs()
	for _, pid := range pids {
		_ = unix.Kill(pid, sig)
	}
	return err
}

func (s *Server) closeStdin() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stdin == nil || s.container.Console() != nil {
		return nil
	}
	err := s.stdin.Close()
	s.stdin = nil
	return err
}

func (s *Server) resize(rows, cols uint16) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.container == nil || s.container.Console() == nil {
		return errors.New("the container has no terminal")
	}
	return SetSize(s.container.Console(), rows, cols)
}

// SetSize tells a terminal how large it is.
func SetSize(terminal *os.File, rows, cols uint16) error {
	fd, err := descriptor(terminal)
	if err != nil {
		return err
	}
	return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols})
}

// delete ends what is left and removes the group; a container that was created and never started ends here.
func (s *Server) delete(ctx context.Context) error {
	s.mu.Lock()
	c := s.container
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
