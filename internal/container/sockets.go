package container

import (
	"context"
	"os"

	networks "wherry.dev/wherry/internal/network"
	"wherry.dev/wherry/internal/task"
)

// KeptSockets returns what network.Options.Kept wants, of containers whose tasks lie in the state directory.
func KeptSockets(state string) func(ctx context.Context, id string) ([]*os.File, error) {
	return func(ctx context.Context, id string) ([]*os.File, error) {
		_, dir := (&Options{State: state}).dirsOf(id)
		return task.Kept(ctx, dir)
	}
}

// keepSockets has the shim of a running container keep what its network needs while no engine runs, unless it has it. One of an earlier build does
// not.
func keepSockets(ctx context.Context, l life) {
	t, _, err := l.c.running()
	if err != nil {
		return
	}
	sockets := networks.Sockets(l.s.o.Networks, l.c.id)
	if len(sockets) == 0 {
		return
	}
	defer closeFiles(sockets)
	_ = task.Keep(ctx, t, sockets)
}
