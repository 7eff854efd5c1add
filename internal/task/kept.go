package task

import (
	"context"
	"errors"
	"fmt"
	"os"

	"wherry.dev/wherry/internal/shim"
)

// Keep has the shim keep sockets, as long as the container lives, for an engine's next life, instead of those that it has kept before. The files
// stay the caller's.
func Keep(ctx context.Context, t *Task, sockets []*os.File) error {
	_, _, err := t.call(ctx, shim.Request{Method: shim.MethodKeep}, sockets...)
	return err
}

// Kept are the sockets that the shim of a task's folder keeps; none where it is gone. Its own connection ends with it.
func Kept(ctx context.Context, dir string) ([]*os.File, error) {
	f, err := os.Open(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	t := newTask(dir, shim.Config{})
	if err := t.connect(ctx, f); err != nil {
		return nil, fmt.Errorf("ask for the sockets that are kept in %s: %w", dir, err)
	}
	defer t.Close()
	_, files, err := t.call(ctx, shim.Request{Method: shim.MethodKept})
	if err != nil {
		return nil, fmt.Errorf("ask for the sockets that are kept in %s: %w", dir, err)
	}
	return files, nil
}
