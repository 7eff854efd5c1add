package task

import (
	"context"

	"wherry.dev/wherry/internal/shim"
)

// CheckpointOptions say what Checkpoint makes.
type CheckpointOptions struct {
	Dir          string // a folder that is there and is written to
	Into         string // its name once all is on the disk
	LeaveRunning bool
	Criu         string // the program's path
}

// Checkpoint writes the container's processes to a folder. They end then, unless they are left running; after an error they go on.
func Checkpoint(ctx context.Context, t *Task, o CheckpointOptions) error {
	c := shim.Checkpoint(o)
	_, _, err := t.call(ctx, shim.Request{Method: shim.MethodCheckpoint, Checkpoint: &c})
	return err
}
