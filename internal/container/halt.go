package container

import (
	"context"
	"sync"
	"time"

	"wherry.dev/wherry/internal/why"
)

// haltLimit is how long a container may take to end when the host is shut down, whatever its own timeout: service managers wait a minute and a half.
const haltLimit = time.Minute

// Halt ends all containers, since the host is being shut down: each by its stop signal, and by SIGKILL after its timeout. Nobody wants them
// stopped, so at the next boot the engine starts what its policy wants running. Nothing is started any more.
func Halt(ctx context.Context, s *Service) {
	s.halting.Store(true)
	ctx = asking(ctx, why.AskShutdown)
	var wg sync.WaitGroup
	for _, c := range s.index.all() {
		l := life{s, c}
		n, err := l.alive()
		if err != nil {
			continue // it does not run, or its shim has not answered
		}
		wg.Go(func() {
			signal, timeout, err := stopRules(n.r, StopOptions{})
			if err != nil {
				signal, timeout = sigterm, defaultTimeout
			}
			if timeout < 0 || timeout > haltLimit {
				timeout = haltLimit
			}
			_, err = n.end(ctx, signal, timeout)
			s.log(err)
		})
	}
	wg.Wait()
}
