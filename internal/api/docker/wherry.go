package docker

import (
	"net/http"
	"os"
	"time"

	"wherry.dev/wherry/internal/version"
)

// State is the answer to GET /wherry/state: what a client on the same machine needs to know about the engine beyond Docker's info.
type State struct {
	Version      string
	ID           string
	Pid          int
	Root         string // where everything lasting lies
	State        string // where sockets and tasks lie until the next boot
	Hosts        []string
	CgroupParent string
	Started      time.Time
}

func (s *systemRoutes) state(w http.ResponseWriter, _ *http.Request) error {
	return writeJSON(w, http.StatusOK, State{
		Version: version.Version, ID: s.about.ID, Pid: os.Getpid(), Root: s.about.Root, State: s.about.State,
		Hosts: s.about.Hosts, CgroupParent: s.about.CgroupParent, Started: s.about.Started,
	})
}
