package main

import (
	"context"
	"fmt"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// freezeTimeout bounds how long processes may take to stand still.
const freezeTimeout = 10 * time.Second

// pause freezes all processes of a container.
func (r *store) pause(ctx context.Context, f flags) error {
	id, err := f.id()
	if err != nil {
		return err
	}
	return r.freeze(ctx, id, true)
}

// resume lets them go on.
func (r *store) resume(ctx context.Context, f flags) error {
	id, err := f.id()
	if err != nil {
		return err
	}
	return r.freeze(ctx, id, false)
}

func (r *store) freeze(ctx context.Context, id string, freeze bool) error {
	c, err := r.load(id)
	if err != nil {
		return err
	}
	release, err := c.lockCreated()
	if err != nil {
		return err
	}
	defer release()
	what := "resume"
	if freeze {
		what = "pause"
	}
	g, err := needGroup(c, what)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, freezeTimeout, fmt.Errorf("it took longer than %s", freezeTimeout))
	defer cancel()
	if !freeze {
		if err := c.require("resume", statusPaused); err != nil {
			return err
		}
		return g.Thaw(ctx)
	}
	if err := c.require("pause", specs.StateCreated, specs.StateRunning); err != nil {
		return err
	}
	return g.Freeze(ctx)
}
