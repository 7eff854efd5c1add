package container

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/containerd/errdefs"
)

// Layer is a container's writable layer as something that one mounts at a time: overlay empties the working directory of a layer that is
// mounted once more, and who had mounted it before can change nothing any more that is not in it yet (ENOENT). A start holds it until it is over,
// package files while it mounts the layer of a container that does not run, and as long as it writes. Safe for many goroutines; the zero
// value is free.
type Layer struct {
	mu   sync.Mutex
	held chan struct{} // closed when it is free again; nil: it is
}

// Hold waits until nobody else holds it.
func (l *Layer) Hold(ctx context.Context) (free func(), err error) {
	for {
		l.mu.Lock()
		other := l.held
		if other == nil {
			l.held = make(chan struct{})
			l.mu.Unlock()
			return l.free, nil
		}
		l.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func (l *Layer) free() {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.held)
	l.held = nil
}

// copyLimit is how long a start waits for who writes into the container: other requests about it wait for the start.
const copyLimit = 30 * time.Second

// alone waits until nobody else has the writable layer mounted who writes.
func (n *starting) alone(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, copyLimit, fmt.Errorf("files are still being copied into it: start it when they have been: %w", errdefs.ErrConflict))
	defer cancel()
	n.free, err = n.c.disk.layer.Hold(ctx)
	return err
}
