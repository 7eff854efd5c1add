package main

import (
	"context"
	"errors"
)

// refuseCheckpoint says that processes cannot be written to disk and back.
func refuseCheckpoint(context.Context, []string) error {
	return errors.New("checkpoint and restore are not supported by oar yet; use runc or crun with criu for containers that must move while they run")
}
