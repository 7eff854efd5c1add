package docker

import (
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"wherry.dev/wherry/internal/access"
	containers "wherry.dev/wherry/internal/container"
	"wherry.dev/wherry/internal/why"
)

// why answers GET /wherry/why/{id}: why a container has ended, the last times.
func (c *containerRoutes) why(w http.ResponseWriter, r *http.Request) error {
	report, err := containers.Why(c.s, r.PathValue("id"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, report)
}

// onUnhealthy answers POST /wherry/containers/{id}/on-unhealthy?do=…: what is done when a container's health check fails.
func (c *containerRoutes) onUnhealthy(w http.ResponseWriter, r *http.Request) error {
	if err := containers.SetOnUnhealthy(c.s, r.PathValue("id"), queryOf(r).Get("do")); err != nil {
		return err
	}
	return noContent(w)
}

// healthy answers GET /wherry/containers/{id}/healthy when the container is healthy, or says why it is not to be.
func (c *containerRoutes) healthy(w http.ResponseWriter, r *http.Request) error {
	if err := containers.WaitHealthy(r.Context(), c.s, r.PathValue("id")); err != nil {
		return err
	}
	return noContent(w)
}

// probe answers POST /wherry/containers/{id}/probe with what a health check that is run now says.
func (c *containerRoutes) probe(w http.ResponseWriter, r *http.Request) error {
	result, err := containers.ProbeNow(r.Context(), c.s, r.PathValue("id"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, result)
}

// clientOf looks at the program at the other end of a request's connection, which waits for the answer.
func clientOf(caller *access.Caller) func() why.Client {
	return func() why.Client {
		if caller.Certificate != nil {
			return why.Client{Certificate: caller.ID(), Address: caller.Address}
		}
		c := why.Client{Pid: int(caller.PID), UID: caller.UID, Program: filepath.Base(caller.Program)}
		if name, err := os.ReadFile("/proc/" + strconv.Itoa(c.Pid) + "/comm"); err == nil && string(name) != "exe\n" { // of who executes itself
			c.Program = strings.TrimSpace(string(name)) // of a script it is the script's
		}
		return c
	}
}
