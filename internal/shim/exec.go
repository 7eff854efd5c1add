package shim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// execsKept is how many execs that have ended are remembered for an engine's next life.
	execsKept = 32
	// untoldKept is how many may be while nobody has waited for them: an engine that is slow, or that starts many at once, still will.
	untoldKept = 1024
	// outletsKept bounds the descriptors that are held for what execs print should their client go.
	outletsKept = 256
	// forgetAfter is how long the exit of an exec without a note is kept for who may wait for it.
	forgetAfter = time.Minute
)

// execs are those of one container.
type execs struct {
	mu      sync.Mutex // guards what follows
	byID    map[string]*execution
	ended   []string // that are kept for a later life, the oldest first
	outlets []outlet
	making  int           // that are being started
	over    chan struct{} // nil: the container lives. Else no more are started; closed when none is being started any more
}

// execution is one exec, under way or ended.
type execution struct {
	process Process
	note    json.RawMessage // what the engine wants to know of it in its next life; none: it does not
	told    bool            // somebody has waited for it
	done    chan struct{}
	exit    Exit
}

// ExecState is what is known of an exec.
type ExecState struct {
	ID   string          `json:"id"`
	Note json.RawMessage `json:"note"`
	Pid  int             `json:"pid,omitempty"`
	Exit *Exit           `json:"exit,omitempty"` // nil: it runs
	Told bool            `json:"told,omitempty"` // an engine has waited for its end
}

func (s *Server) exec(ctx context.Context, client *Conn, r Request, files []*os.File) (Response, *os.File, error) {
	s.mu.Lock()
	c, exit := s.life.container, s.life.exit
	s.mu.Unlock()
	switch {
	case c == nil || exit != nil:
		return Response{}, nil, errors.New("the container is not running")
	case r.Process == nil || s.execs.find(r.Exec) != nil:
		return Response{}, nil, fmt.Errorf("exec %q: no process, or its name is taken", r.Exec)
	}
	if !s.execs.begin() {
		return Response{}, nil, errors.New("the container is not running")
	}
	defer s.execs.made()
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
	e := &execution{process: p, note: r.Note, done: make(chan struct{})}
	s.execs.add(r.Exec, e, client, outletsOf(p, streams))
	go s.follow(r.Exec, e)
	return Response{Pid: p.Pid()}, p.Console(), nil
}

// follow waits for an exec's end.
func (s *Server) follow(id string, e *execution) {
	code, sig, err := e.process.Reap()
	exit := Exit{Code: code, Signal: sig, At: time.Now(), Started: true}
	if err != nil {
		exit.Code = 255
	}
	s.execs.end(id, e, exit)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.untidy++
	s.tidyLater()
}

func (x *execs) find(id string) *execution {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.byID[id]
}

// begin notes that an exec is being started, made that it has been or could not be; false: the container is at its end.
func (x *execs) begin() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.over != nil {
		return false
	}
	x.making++
	return true
}

func (x *execs) made() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.making--; x.making == 0 && x.over != nil {
		close(x.over)
	}
}

// refuse lets no more begin. What it returns is closed when none is being started any more: all there will be are in the group then, or dead.
func (x *execs) refuse() <-chan struct{} {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.over = make(chan struct{})
	if x.making == 0 {
		close(x.over)
	}
	return x.over
}

func (x *execs) add(id string, e *execution, client *Conn, streams []*os.File) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.byID[id] = e
	for _, f := range streams {
		o := outlet{client, f}
		if client.gone {
			go o.drain()
			continue
		}
		x.outlets = append(x.outlets, o)
	}
	for len(x.outlets) > outletsKept { // of many execs that have left something behind
		x.outlets[0].from.Close()
		x.outlets = x.outlets[1:]
	}
}

func (x *execs) end(id string, e *execution, exit Exit) {
	x.mu.Lock()
	defer x.mu.Unlock()
	e.exit = exit
	close(e.done)
	x.outlets = closeOutlets(x.outlets)
	if e.note == nil {
		time.AfterFunc(forgetAfter, func() { x.forget(id, e) }) // an engine that was killed asks no more
		return
	}
	x.ended = append(x.ended, id)
	x.trim()
}

// trim forgets execs that have ended, the oldest first, and those that nobody has waited for only where they are very many. The caller holds mu.
func (x *execs) trim() {
	for i := 0; i < len(x.ended) && len(x.ended) > execsKept; {
		id := x.ended[i]
		if len(x.ended) <= untoldKept && !x.byID[id].told {
			i++
			continue
		}
		delete(x.byID, id)
		x.ended = slices.Delete(x.ended, i, i+1)
	}
}

// ask waits for an exec, or signals it.
func (x *execs) ask(r Request) (Response, *os.File, error) {
	e := x.find(r.Exec)
	if e == nil {
		return Response{}, nil, fmt.Errorf("there is no exec %q", r.Exec)
	}
	if r.Method == MethodExecKill {
		return Response{}, nil, e.process.Kill(unix.Signal(r.Signal))
	}
	<-e.done
	if e.note == nil {
		x.forget(r.Exec, e)
	}
	return Response{Exit: &e.exit}, nil, nil
}

// tell notes that somebody knows of an exec's end.
func (x *execs) tell(id string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if e := x.byID[id]; e != nil {
		e.told = true
		x.trim()
	}
}

func (x *execs) forget(id string, e *execution) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.byID[id] == e {
		delete(x.byID, id)
	}
}

// sweep closes outlets that nobody can write to any more.
func (x *execs) sweep() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.outlets = closeOutlets(x.outlets)
}

// states are the execs that an engine's next life wants to know.
func (x *execs) states() []ExecState {
	x.mu.Lock()
	defer x.mu.Unlock()
	var out []ExecState
	for id, e := range x.byID {
		if e.note == nil {
			continue
		}
		state := ExecState{ID: id, Note: e.note, Pid: e.process.Pid(), Told: e.told}
		select {
		case <-e.done:
			state.Exit, state.Pid = &e.exit, 0
		default:
		}
		out = append(out, state)
	}
	return out
}

// await waits for those of a container whose processes are all dead.
func (x *execs) await() {
	x.mu.Lock()
	var running []*execution
	for _, e := range x.byID {
		running = append(running, e)
	}
	x.mu.Unlock()
	for _, e := range running {
		<-e.done
	}
}

// drainFor reads on for a client that has gone.
func (x *execs) drainFor(client *Conn) {
	x.mu.Lock()
	defer x.mu.Unlock()
	client.gone = true
	var left []outlet
	for _, o := range x.outlets {
		if o.client == client {
			go o.drain()
			continue
		}
		left = append(left, o)
	}
	x.outlets = left
}
