package docker

import (
	"net/http"
	"strings"

	"github.com/moby/moby/api/types/checkpoint"

	containers "wherry.dev/wherry/internal/container"
)

func (c *containerRoutes) addCheckpoints(add adder) {
	add("GET /containers/{id}/checkpoints", c.checkpoints)
	add("POST /containers/{id}/checkpoints", c.checkpoint)
	add("DELETE /containers/{id}/checkpoints/{name}", c.removeCheckpoint)
}

// checkpointDir refuses a folder of the host's to who may not reach it.
func (c *containerRoutes) checkpointDir(r *http.Request, dir string) error {
	if l := limitsOf(r.Context(), c.s); l != nil && dir != "" {
		return l.v.no("--checkpoint-dir %s is a path of the host", dir)
	}
	return nil
}

func (c *containerRoutes) checkpoints(w http.ResponseWriter, r *http.Request) error {
	dir := queryOf(r).Get("dir")
	if err := c.checkpointDir(r, dir); err != nil {
		return err
	}
	names, err := containers.Checkpoints(c.s, r.PathValue("id"), dir)
	if err != nil {
		return err
	}
	list := []checkpoint.Summary{}
	for _, name := range names {
		list = append(list, checkpoint.Summary{Name: name})
	}
	return writeJSON(w, http.StatusOK, list)
}

func (c *containerRoutes) checkpoint(w http.ResponseWriter, r *http.Request) error {
	var req checkpoint.CreateRequest
	if err := decodeBody(w, r, &req); err != nil {
		return err
	}
	if err := c.checkpointDir(r, req.CheckpointDir); err != nil {
		return err
	}
	o := containers.CheckpointOptions{Name: req.CheckpointID, Dir: req.CheckpointDir, LeaveRunning: !req.Exit}
	if err := containers.MakeCheckpoint(r.Context(), c.s, r.PathValue("id"), o); err != nil {
		return err
	}
	w.WriteHeader(http.StatusCreated)
	return nil
}

func (c *containerRoutes) removeCheckpoint(w http.ResponseWriter, r *http.Request) error {
	o := containers.CheckpointOptions{Name: r.PathValue("name"), Dir: queryOf(r).Get("dir")}
	if err := c.checkpointDir(r, o.Dir); err != nil {
		return err
	}
	if err := containers.RemoveCheckpoint(c.s, r.PathValue("id"), o); err != nil {
		return err
	}
	return noContent(w)
}

// startFrom starts a container from a checkpoint on.
func (c *containerRoutes) startFrom(w http.ResponseWriter, r *http.Request) error {
	q := queryOf(r)
	o := containers.CheckpointOptions{Name: q.Get("checkpoint"), Dir: q.Get("checkpoint-dir")}
	if containers.ValidCheckpoint(o.Name) != nil {
		return invalid("invalid checkpoint ID %q", o.Name)
	}
	if err := c.checkpointDir(r, o.Dir); err != nil {
		return err
	}
	warnings, err := containers.StartFrom(r.Context(), c.s, r.PathValue("id"), o)
	if err != nil {
		return err
	}
	for _, text := range warnings {
		w.Header().Add(warningHeader, strings.ReplaceAll(text, "\n", " "))
	}
	return noContent(w)
}

// warningHeader has what a client should know of what was done for it, where Docker's answer has no place for it.
const warningHeader = "Wherry-Warning"
