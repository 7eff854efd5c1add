package main

import (
	"context"
	"errors"
	"slices"
)

// refuseCheckpoint says that processes cannot be written to disk and back.
func refuseCheckpoint(_ context.Context, f flags) error {
	if slices.ContainsFunc(f.args, func(a string) bool { return a == "-h" || a == "-help" || a == "--help" }) {
		f.explain()
		return nil
	}
	return errors.New("checkpoint and restore are not supported by oar yet; use runc or crun with criu for containers that must move while they run")
}
