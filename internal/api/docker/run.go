package docker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"

	containers "wherry.dev/wherry/internal/container"
)

// runRoutes are what a client otherwise does in four requests (create, attach, wait, start) or three (create an exec, start it, inspect it), in
// one: each turn less between client and engine makes a run shorter.
//
//	client                              engine
//	POST /wherry/run, a create body  →
//	                                 ←  101, or an error's status: then nothing was made
//	                                 ←  note: Id, Warnings
//	                                 ←  note: Started; or Failure, then close
//	stdin, raw …                     →
//	                                 ←  output, in frames, also that of a terminal
//	shutdown(SHUT_WR): end of stdin  →
//	                                 ←  note: Exit, then close
//
// A note is a frame of stream 4 with one JSON document. A stream that ends without Exit or Failure says that the engine went away.
// POST /wherry/exec/CONTAINER takes the body of an exec's creation, and its 101 says that the program was executed, or could not be.
type runRoutes struct {
	s      *containers.Service
	server *Server
}

// runNote is what the engine tells beside output.
type runNote struct {
	ID       string                  `json:"Id,omitempty"` // of the container or exec
	Warnings []string                `json:",omitempty"`
	Started  bool                    `json:",omitempty"`
	Failure  *runFailure             `json:",omitempty"` // it was not started, and is removed again
	Exit     *container.WaitResponse `json:",omitempty"`
}

// runFailure is what an error's answer would have been.
type runFailure struct {
	Status  int
	Message string
}

const (
	runStreamType = "application/vnd.wherry.run-stream"
	noteStream    = 4
)

func (n *runRoutes) add(add adder) {
	add("POST /wherry/run", n.server.lasting(n.run))
	add("POST /wherry/exec/{id}", n.server.lasting(n.exec))
}

// running is one such conversation.
type running struct {
	*stream
	notes          io.Writer
	stdout, stderr io.Writer
}

func (n *runRoutes) newRunning(w http.ResponseWriter, r *http.Request) *running {
	c := &running{stream: n.server.newStream(w, r, false)}
	c.contentType = runStreamType
	out := &framed{w: c.stream}
	c.stdout, c.stderr, c.notes = frames{out, 1}, frames{out, 2}, frames{out, noteStream}
	return c
}

// greet takes the connection over; the first note comes before any output.
func (c *running) greet(note runNote) {
	var first bytes.Buffer
	if b, err := json.Marshal(note); err == nil {
		_, _ = frames{&framed{w: &first}, noteStream}.Write(b)
	}
	c.greeting = first.Bytes()
	c.open()
}

// tell sends a note. A client that has gone needs none.
func (c *running) tell(note runNote) {
	if b, err := json.Marshal(note); err == nil {
		_, _ = c.notes.Write(b)
	}
}

func (c *running) fail(err error) {
	failLate(c.w, err)
	c.tell(runNote{Failure: &runFailure{Status: statusOf(err), Message: message(err)}})
}

func (n *runRoutes) run(w http.ResponseWriter, r *http.Request) error {
	req, err := readCreate(n.s, w, r)
	if err != nil {
		return err
	}
	made, err := n.s.Create(r.Context(), req)
	if err != nil {
		return err
	}
	noteMade(r.Context(), n.s, made.ID)
	c := n.newRunning(w, r)
	defer c.close()
	ctx, cancel := c.watch(r.Context())
	defer cancel()
	c.greet(runNote{ID: made.ID, Warnings: made.Warnings})
	condition := container.WaitConditionNextExit
	if req.HostConfig.AutoRemove {
		condition = container.WaitConditionRemoved
	}
	ended, err := n.s.Wait(ctx, made.ID, condition)
	if err != nil {
		c.fail(err)
		return nil
	}
	attached, ready := make(chan error, 1), make(chan struct{})
	go func() { attached <- n.s.Attach(ctx, made.ID, c.attachOptions(req.Config, func() { close(ready) })) }()
	select {
	case <-ready:
		if err = errClientGone; !hungUp(c.conn) {
			err = n.s.Start(context.WithoutCancel(ctx), made.ID)
		}
	case err = <-attached:
	}
	if err != nil {
		n.undo(ctx, made.ID, err, c)
		return nil
	}
	c.tell(runNote{Started: true})
	if err := <-attached; err != nil {
		if ctx.Err() == nil && !errors.Is(err, io.EOF) {
			n.server.log.Debug("attach ended", "container", made.ID, "error", err)
			c.stream.fail(err)
		}
		return nil
	}
	select {
	case exit := <-ended:
		c.tell(runNote{Exit: &exit})
	case <-ctx.Done():
	}
	return nil
}

var errClientGone = errors.New("the client has gone before the container was started")

// undo removes a container that was made for this run and never ran, and says why it did not.
func (n *runRoutes) undo(ctx context.Context, id string, err error, c *running) {
	removed := n.s.Remove(context.WithoutCancel(ctx), id, containers.RemoveOptions{Force: true, Volumes: true})
	if removed != nil && !errdefs.IsNotFound(removed) { // --rm has been quicker
		err = errors.Join(err, removed)
	}
	c.fail(err)
}

func (c *running) attachOptions(config *container.Config, ready func()) containers.AttachOptions {
	o := containers.AttachOptions{Stream: true, Ready: ready}
	if config.AttachStdin {
		o.Stdin = c.stream
	}
	if config.AttachStdout {
		o.Stdout = c.stdout
	}
	if config.AttachStderr {
		o.Stderr = c.stderr
	}
	return o
}

func (n *runRoutes) exec(w http.ResponseWriter, r *http.Request) error {
	req, err := readExec(w, r)
	if err != nil {
		return err
	}
	id, err := n.s.ExecCreate(r.Context(), r.PathValue("id"), req)
	if err != nil {
		return err
	}
	c := n.newRunning(w, r)
	defer c.close()
	o := containers.ExecStreams{ConsoleSize: req.ConsoleSize, Stdout: c.stdout, Stderr: c.stderr}
	o.Started = func() { c.greet(runNote{ID: id}) }
	if req.AttachStdin {
		o.Stdin = c.stream
	}
	ctx, cancel := c.watch(r.Context())
	defer cancel()
	err = n.s.ExecStart(ctx, id, o)
	switch {
	case !c.opened():
		return err
	case ctx.Err() != nil:
		return nil
	case err != nil && !errors.Is(err, io.EOF):
		c.fail(err)
		return nil
	}
	about, err := n.s.ExecInspect(id)
	if err == nil && about.ExitCode != nil {
		c.tell(runNote{Exit: &container.WaitResponse{StatusCode: int64(*about.ExitCode)}})
	}
	return nil
}
