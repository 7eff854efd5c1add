package build

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/moby/buildkit/executor"
	resourcestypes "github.com/moby/buildkit/executor/resources/types"
	gatewayapi "github.com/moby/buildkit/frontend/gateway/pb"
)

// frontendExecutor runs a frontend that is an image, and keeps what it says on its standard error. Its other output is the conversation with
// BuildKit.
type frontendExecutor struct {
	executor.Executor
	said *lastWords
}

// Run is executor.Executor's.
func (x frontendExecutor) Run(ctx context.Context, id string, root executor.Mount, mounts []executor.Mount, p executor.ProcessInfo, started chan<- struct{}) (resourcestypes.Recorder, error) {
	if id == "" { // containers that the frontend itself makes have one
		p.Stderr = x.said
	}
	return x.Executor.Run(ctx, id, root, mounts, p, started)
}

// wordsLimit is how much of what a frontend says is kept.
const wordsLimit = 4 << 10

// lastWords keep the end of what is written to them.
type lastWords struct {
	mu   sync.Mutex // guards what follows
	text []byte
}

// Write is io.Writer's.
func (w *lastWords) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.text = append(w.text, b[max(0, len(b)-wordsLimit):]...)
	w.text = w.text[max(0, len(w.text)-wordsLimit):]
	return len(b), nil
}

// Close is io.Closer's.
func (w *lastWords) Close() error { return nil }

// explain names the frontend that ended without an answer, and what it has said.
func (w *lastWords) explain(source string, err error) error {
	var exit *gatewayapi.ExitError
	if !errors.As(err, &exit) {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if said := strings.TrimSpace(string(w.text)); said != "" {
		return fmt.Errorf("the frontend %s ended: %w: it said: %s", source, err, said)
	}
	return fmt.Errorf("the frontend %s ended: %w", source, err)
}
