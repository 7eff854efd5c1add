package main

import (
	"context"
	"encoding/json"
	"os"
	"os/user"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// stateOutput is the specification's state with what runc adds.
type stateOutput struct {
	Version     string               `json:"ociVersion"`
	ID          string               `json:"id"`
	Pid         int                  `json:"pid"`
	Status      specs.ContainerState `json:"status"`
	Bundle      string               `json:"bundle"`
	Rootfs      string               `json:"rootfs"`
	Created     time.Time            `json:"created"`
	Annotations map[string]string    `json:"annotations,omitempty"`
	Owner       string               `json:"owner"`
}

func (c *record) output() stateOutput {
	s := c.ociState(c.status())
	return stateOutput{Version: s.Version, ID: s.ID, Pid: s.Pid, Status: s.Status, Bundle: s.Bundle, Rootfs: c.Rootfs, Created: c.Created,
		Annotations: s.Annotations, Owner: userName(c.Owner)}
}

// state prints a container's state.
func (r *store) state(_ context.Context, f flags) error {
	id, err := f.id()
	if err != nil {
		return err
	}
	c, err := r.load(id)
	if err != nil {
		return err
	}
	return printJSON(c.output())
}

func printJSON(v any) error {
	e := json.NewEncoder(os.Stdout)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// userName is a user's name on the host, its id where it has none.
func userName(id string) string {
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return id
}
