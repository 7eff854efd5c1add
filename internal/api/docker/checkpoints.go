package docker

import (
	"net/http"
	"os/exec"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/checkpoint"
)

// The engine keeps no checkpoints: criu's command line cannot make a user namespace with what is in it again, nor hand the output of what it
// restores to a shim. What can be done is `oar checkpoint`, for bundles without a user namespace.

func (c *containerRoutes) addCheckpoints(add adder) {
	add("GET /containers/{id}/checkpoints", c.checkpoints)
	add("POST /containers/{id}/checkpoints", c.checkpoint)
	add("DELETE /containers/{id}/checkpoints/{name}", c.removeCheckpoint)
}

func (c *containerRoutes) checkpoints(w http.ResponseWriter, r *http.Request) error {
	if _, err := c.s.Terminal(r.PathValue("id")); err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, []checkpoint.Summary{})
}

// checkpoint refuses with what is missing first: the container, its running, the program, what the program cannot do.
func (c *containerRoutes) checkpoint(w http.ResponseWriter, r *http.Request) error {
	var req checkpoint.CreateRequest
	if err := decodeBody(w, r, &req); err != nil {
		return err
	}
	id := r.PathValue("id")
	about, err := c.s.Inspect(r.Context(), id)
	if err != nil {
		return err
	}
	if err := checkName(req.CheckpointID); err != nil || req.CheckpointID == "" {
		return invalid("invalid checkpoint name %q: it has letters, digits and _.- only", req.CheckpointID)
	}
	if !about.State.Running {
		return classed(errdefs.ErrConflict, "container %s is not running", id)
	}
	if _, err := exec.LookPath("criu"); err != nil {
		return classed(errdefs.ErrNotImplemented, "checkpoint of container %s: the program criu is not on this machine: install the package criu", id)
	}
	if about.Wherry.UserNamespace != "" {
		return classed(errdefs.ErrNotImplemented, "checkpoint of container %s: it has a user namespace of its own, whose device nodes criu cannot make again; "+
			"oar checkpoint takes bundles without one", id)
	}
	return classed(errdefs.ErrNotImplemented, "checkpoint of container %s: criu cannot give what it restores back to the shim that holds the container's output; "+
		"oar checkpoint and oar restore do without one", id)
}

func (c *containerRoutes) removeCheckpoint(w http.ResponseWriter, r *http.Request) error {
	id, name := r.PathValue("id"), r.PathValue("name")
	if _, err := c.s.Terminal(id); err != nil {
		return err
	}
	return noCheckpoint(id, name)
}

func noCheckpoint(id, name string) error {
	return classed(errdefs.ErrNotFound, "checkpoint %s does not exist for container %s", name, id)
}
