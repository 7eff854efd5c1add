package main

import (
	"context"
	"log/slog"
	"runtime"
	"sync"
	"time"
)

// endLimit is how long the engine's end may take. Its next life goes on from any moment: what hangs until then, such as a disk, is not waited for.
const endLimit = 10 * time.Second

// bound calls exit where over is not called within limit after ctx has ended.
func bound(ctx context.Context, limit time.Duration, log *slog.Logger, exit func()) (over func()) {
	ended := make(chan struct{})
	go func() { // ends with over
		select {
		case <-ctx.Done():
		case <-ended:
			return
		}
		late := time.NewTimer(limit)
		defer late.Stop()
		select {
		case <-late.C:
		case <-ended:
			return
		}
		stacks := make([]byte, 1<<20)
		log.Error("something keeps the engine from its end: it ends as it is, and its next life goes on from there",
			"waited", limit, "goroutines", string(stacks[:runtime.Stack(stacks, true)]))
		exit()
	}()
	return sync.OnceFunc(func() { close(ended) })
}
