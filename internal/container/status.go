package container

import (
	"slices"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
)

// Status is where a container is in its life; the names are Docker's.
type Status string

// The states of a container.
const (
	Created    Status = "created"    // never started
	Running    Status = "running"    // its program runs
	Paused     Status = "paused"     // its processes are frozen
	Restarting Status = "restarting" // ended, and waiting to be started by its restart policy
	Removing   Status = "removing"   // intended to be removed: an engine that starts goes on with it
	Exited     Status = "exited"     // ended
	Dead       Status = "dead"       // could not be removed; may be tried again
)

// transitions are the changes that there are. What is not here is a bug or a request that comes too late.
var transitions = map[Status][]Status{
	Created:    {Running, Removing},
	Running:    {Paused, Restarting, Exited},
	Paused:     {Running, Restarting, Exited},
	Restarting: {Running, Exited, Removing},
	Exited:     {Running, Restarting, Removing},
	Removing:   {Dead},
	Dead:       {Removing},
}

// To guards a change of status.
func (s Status) To(next Status) (Status, error) {
	if slices.Contains(transitions[s], next) {
		return next, nil
	}
	return s, fail(errdefs.ErrConflict, "a container that is %s cannot become %s", s, next)
}

// Alive says that there is a process.
func (s Status) Alive() bool { return s == Running || s == Paused }

// API is the status as the API says it.
func (s Status) API() container.ContainerState { return container.ContainerState(s) }
