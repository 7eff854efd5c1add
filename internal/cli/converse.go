package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/moby/moby/api/types/container"

	"wherry.dev/wherry/internal/client"
	"wherry.dev/wherry/internal/terse"
)

// conversation is a run or an exec that is one request: the engine makes it, starts it, passes its streams on and tells how it has ended. What it
// tells comes as notes between output.
type conversation struct {
	streams  *client.Hijacked
	id       string // of the container or exec
	warnings []string
	running  chan string     // gets the id when its process runs
	started  func(id string) // is told then; may be nil
	failed   error           // why it was not started; then nothing is left of it
	ended    *container.WaitResponse
}

// note is one that the engine writes.
type note struct {
	ID       string `json:"Id"`
	Warnings []string
	Started  bool
	Failure  *struct {
		Status  int
		Message string
	}
	Exit *container.WaitResponse
}

const (
	runStreamType = "application/vnd.wherry.run-stream"
	noteStream    = 4 // the number of the stream of frames that notes come in
)

// begin asks for one. An error says that nothing was made.
func (t *conversation) begin(ctx context.Context, c *client.Client, r client.Request, body any) error {
	b, err := terse.Marshal(body)
	if err != nil {
		return fmt.Errorf("encode the request %s: %w", r.Path, err)
	}
	r.Header, r.Body = http.Header{"Content-Type": {"application/json"}}, bytes.NewReader(b)
	if t.streams, err = c.Hijack(ctx, r); err != nil {
		if client.IsNotFound(err) && err.Error() == "page not found" {
			return errors.New("the engine is older than this client, or another's: restart wherryd, or use the client that came with it")
		}
		return err
	}
	first, err := readNote(t.streams.Reader)
	if err == nil {
		err = t.hear(first)
	}
	if err == nil && t.id == "" {
		err = errors.New("the engine does not say what it has made")
	}
	if err != nil {
		t.streams.Close()
		return fmt.Errorf("read the engine's answer to %s: %w", r.Path, err)
	}
	return nil
}

// hear takes a note in.
func (t *conversation) hear(b []byte) error {
	var n note
	if err := json.Unmarshal(b, &n); err != nil {
		return fmt.Errorf("read a note of the engine's: %w", err)
	}
	if n.ID != "" {
		t.id, t.warnings = n.ID, n.Warnings
	}
	if n.Started {
		select {
		case t.running <- t.id:
		default:
		}
		if t.started != nil {
			t.started(t.id)
		}
	}
	if n.Failure != nil {
		t.failed = &client.Error{Status: n.Failure.Status, Message: n.Failure.Message}
	}
	if n.Exit != nil {
		t.ended = n.Exit
	}
	return nil
}

func (t *conversation) close() {}

// exit is called after the end of the streams.
func (t *conversation) exit(id string) error {
	switch {
	case t.failed != nil:
		return startFailure(t.failed)
	case t.ended == nil:
		return &exitError{125, fmt.Errorf("container %s: %w", shortID(id), errEngineGone)}
	}
	return exitOf(id, *t.ended)
}
