package docker

import (
	"net/http"
	"os"
	"time"

	images "wherry.dev/wherry/internal/image"
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

// meaning answers GET /wherry/meaning?reference=…[&registry=1][&platforms=1]: what a reference means here, or at its registry.
func (i *imageRoutes) meaning(w http.ResponseWriter, r *http.Request) error {
	q := queryOf(r)
	auth, err := registryAuth(r)
	if err != nil {
		return err
	}
	out, err := images.MeaningOf(r.Context(), i.s, q.Get("reference"), images.MeaningOptions{
		Registry: q.yes("registry"), Platforms: q.yes("platforms"), Auth: auth,
	})
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, out)
}
