package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/moby/moby/api/types/container"

	"wherry.dev/wherry/internal/task"
)

// execNote is what a shim keeps of an exec for the engine's next life.
type execNote struct {
	Request container.ExecCreateRequest `json:"request"` // without its environment, which is of no use any more
	Keys    []byte                      `json:"keys,omitempty"`
}

// maxNote is the most that a shim is given to keep of one exec: it keeps many, and tells of all of them in one answer.
const maxNote = 4 << 10

// note leaves out arguments that are long. nil: not even the rest fits, and the next life does not know the exec.
func (e *execution) note() []byte {
	n := execNote{Request: e.request, Keys: e.keys}
	n.Request.Env = nil
	b, err := json.Marshal(n)
	if err == nil && len(b) > maxNote {
		n.Request.Cmd = n.Request.Cmd[:1]
		b, err = json.Marshal(n)
	}
	if err != nil || len(b) > maxNote {
		return nil
	}
	return b
}

// findExecs takes the execs of an earlier life into memory: those that run are waited for, the others have their exit codes.
func findExecs(ctx context.Context, l life, t *task.Task) error {
	states, err := t.Execs(ctx)
	if err != nil {
		return fmt.Errorf("find the execs of container %s: %w", l.c.record().Name, err)
	}
	var errs []error
	for _, state := range states {
		var n execNote
		err := json.Unmarshal(state.Note, &n)
		if err == nil && len(n.Request.Cmd) == 0 {
			err = errors.New("it names no command")
		}
		if err != nil { // one that is odd hides no other
			errs = append(errs, fmt.Errorf("exec %s of container %s: what is known of it cannot be read: %w", state.ID, l.c.record().Name, err))
			continue
		}
		e := &execution{id: state.ID, c: l.c, request: n.Request, keys: n.Keys, begun: make(chan struct{}), done: make(chan struct{}), claimed: true}
		l.s.execs.add(e)
		switch {
		case state.Process != nil:
			close(e.begun)
			e.running, e.process = true, state.Process
			l.s.execs.setRunning(e, true)
			l.s.lives.run(ctx, func(ctx context.Context) { e.waitFound(ctx, l.s) })
		case state.Told:
			e.code = &state.Code
			close(e.begun)
			close(e.done)
		default:
			l.s.execs.setRunning(e, true) // for as long as its end is being noted
			e.end(l.s, state.Code)
		}
	}
	return errors.Join(errs...)
}

// waitFound notes the end of an exec that an earlier life had started.
func (e *execution) waitFound(ctx context.Context, s *Service) {
	code, err := e.process.Wait(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return
		}
		code = 137 // the container has ended, and its shim with it
	}
	e.end(s, code)
}
