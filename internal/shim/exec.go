package shim

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

func (s *Server) exec(ctx context.Context, r Request, files []*os.File) (Response, *os.File, error) {
	s.mu.Lock()
	c, exit := s.life.container, s.life.exit
	_, taken := s.execs[r.Exec]
	s.mu.Unlock()
	switch {
	case c == nil || exit != nil:
		return Response{}, nil, errors.New("the container is not running")
	case taken || r.Process == nil:
		return Response{}, nil, fmt.Errorf("exec %q: no process, or its name is taken", r.Exec)
	}
	var streams Streams
	for i := range streams {
		if r.Streams&(1<<i) != 0 && len(files) > 0 {
			streams[i], files = files[0], files[1:]
		}
	}
	p, err := c.Exec(ctx, r.Process, streams)
	if err != nil {
		return Response{}, nil, err
	}
	e := &execution{process: p, done: make(chan struct{})}
	s.mu.Lock()
	s.execs[r.Exec] = e
	s.mu.Unlock()
	go func() {
		code, sig, err := p.Reap()
		e.exit = Exit{Code: code, Signal: sig, At: time.Now(), Started: true}
		if err != nil {
			e.exit.Code = 255
		}
		close(e.done)
		time.AfterFunc(forgetAfter, func() { s.forget(r.Exec, e) }) // an engine that was killed asks no more
	}()
	return Response{Pid: p.Pid()}, p.Console(), nil
}

// execution waits for an exec, which is then forgotten, or signals it.
func (s *Server) execution(r Request) (Response, *os.File, error) {
	s.mu.Lock()
	e := s.execs[r.Exec]
	s.mu.Unlock()
	if e == nil {
		return Response{}, nil, fmt.Errorf("there is no exec %q", r.Exec)
	}
	if r.Method == MethodExecKill {
		return Response{}, nil, e.process.Kill(unix.Signal(r.Signal))
	}
	<-e.done
	s.forget(r.Exec, e)
	return Response{Exit: &e.exit}, nil, nil
}

// forgetAfter is how long an exec's exit is kept for who may wait for it.
const forgetAfter = time.Minute

func (s *Server) forget(id string, e *execution) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.execs[id] != e {
		return
	}
	delete(s.execs, id)
	if console := e.process.Console(); console != nil {
		console.Close()
	}
	s.untidy++
	s.tidyLater()
}
