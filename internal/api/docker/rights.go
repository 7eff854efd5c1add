package docker

import (
	"net/http"
	"strings"

	"wherry.dev/wherry/internal/access"
)

// The routes that callers with less than all rights reach. A route that is in no list is reached by nobody of them: who adds one decides.

// readable are the routes of the right read-only: what the engine says of things, and none of the files in them.
const readable = `
GET /_ping
GET /version
GET /info
GET /events
GET /system/df
GET /metrics
GET /containers/json
GET /containers/{id}/json
GET /containers/{id}/{alias}/json
GET /containers/{id}/logs
GET /containers/{id}/stats
GET /containers/{id}/top
GET /containers/{id}/changes
GET /containers/{id}/checkpoints
POST /containers/{id}/wait
GET /exec/{id}/json
GET /images/json
GET /images/search
GET /images/{rest...}
GET /networks
GET /networks/{$}
GET /networks/{id}
GET /volumes
GET /volumes/{name}
GET /plugins
GET /swarm
/nodes
/services
/tasks
/secrets
/configs
GET /wherry/state
GET /wherry/why/{id}
GET /wherry/containers/{id}/healthy
GET /wherry/layers
GET /wherry/ports
GET /wherry/ports/{port}/{proto}
GET /wherry/pins
GET /wherry/policy
GET /wherry/policy/check
GET /wherry/meaning
GET /wherry/manifests
GET /wherry/artifacts
GET /wherry/artifacts/inspect
GET /wherry/referrers
`

// anyones are the routes of the right own that are nobody's, or that show and touch only what is the caller's by themselves: lists, prunes, and what
// makes something, where the body is checked once it is decoded.
const anyones = `
GET /_ping
GET /version
GET /info
GET /events
GET /containers/json
POST /containers/prune
POST /containers/create
POST /wherry/run
GET /images/json
GET /images/search
GET /images/{rest...}
POST /images/create
GET /networks
GET /networks/{$}
GET /networks/{id}
POST /networks/create
POST /networks/prune
DELETE /networks/{id}
POST /networks/{id}/connect
POST /networks/{id}/disconnect
GET /volumes
GET /volumes/{name}
POST /volumes/create
POST /volumes/prune
DELETE /volumes/{name}
GET /plugins
GET /swarm
GET /wherry/state
GET /wherry/meaning
`

// theirs are the routes of the right own that name a container or an exec, which has to be the caller's.
const theirs = `
GET /containers/{id}/json
GET /containers/{id}/logs
GET /containers/{id}/stats
GET /containers/{id}/top
GET /containers/{id}/changes
GET /containers/{id}/attach/ws
GET /containers/{id}/archive
HEAD /containers/{id}/archive
PUT /containers/{id}/archive
GET /containers/{id}/export
POST /containers/{id}/start
POST /containers/{id}/stop
POST /containers/{id}/restart
POST /containers/{id}/kill
POST /containers/{id}/pause
POST /containers/{id}/unpause
POST /containers/{id}/rename
POST /containers/{id}/update
POST /containers/{id}/wait
POST /containers/{id}/resize
POST /containers/{id}/attach
POST /containers/{id}/exec
DELETE /containers/{id}
POST /wherry/containers/{id}/ports
POST /wherry/containers/{id}/replace
POST /wherry/exec/{id}
GET /wherry/why/{id}
GET /wherry/containers/{id}/healthy
GET /exec/{id}/json
POST /exec/{id}/start
POST /exec/{id}/resize
`

func among(list, pattern string) bool { return strings.Contains(list, "\n"+pattern+"\n") }

// permit says whether the caller may use a route, and pins the container that it names: it is the one that was looked at, whatever has that name later.
func (g *guard) permit(v *visit, pattern string, r *http.Request) error {
	switch {
	case v.may == access.All:
		return nil
	case v.may == access.ReadOnly && among(readable, pattern) && !(pattern == "GET /images/{rest...}" && strings.HasSuffix(r.PathValue("rest"), "/get")):
		return nil
	case v.may == access.ReadOnly:
		return v.no("%s %s changes something, or reads files", r.Method, v.path)
	case v.may != access.Own:
		return refused(v)
	case among(anyones, pattern):
		if pattern == "POST /images/create" && r.URL.Query().Get("fromSrc") != "" {
			return v.no("images are everybody's: they may be pulled, and not imported")
		}
		return nil
	case !among(theirs, pattern):
		return v.no("%s %s is not about a container of their own", r.Method, v.path)
	}
	l := &limits{v, g.s.Containers}
	id := r.PathValue("id")
	if strings.Contains(pattern, " /exec/") {
		about, err := g.s.Containers.ExecInspect(id)
		if err != nil {
			return err
		}
		_, err = l.own(about.ContainerID)
		return err
	}
	c, err := l.own(id)
	if err == nil {
		r.SetPathValue("id", c.ID)
	}
	return err
}
