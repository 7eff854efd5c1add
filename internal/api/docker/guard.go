package docker

import (
	"net/http"
	"strings"

	"wherry.dev/wherry/internal/audit"
	containers "wherry.dev/wherry/internal/container"
	networks "wherry.dev/wherry/internal/network"
)

// guard stands between the table of routes and each route: what it sees is what the route will see, however the path was written.
type guard struct{ s Services }

func (g *guard) wrap(pattern string, h handle) handle {
	return func(w http.ResponseWriter, r *http.Request) error {
		v := visitOf(r.Context())
		if v == nil {
			return h(w, r)
		}
		v.route = pattern[strings.IndexByte(pattern, '/'):]
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			v.object = g.object(pattern, r)
		}
		if v.object != nil && v.object.Type == "container" {
			v.mayStart(r.Context(), v.object.ID)
		}
		if err := g.permit(v, pattern, r); err != nil {
			return err
		}
		return h(w, r)
	}
}

// object is what a request's path names.
func (g *guard) object(pattern string, r *http.Request) *audit.Object {
	_, path, _ := strings.Cut(pattern, " ")
	noun, rest, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	if noun == "wherry" && strings.HasPrefix(rest, "exec/") { // of a container, in one conversation
		noun = "containers"
	}
	if noun == "wherry" && strings.HasPrefix(rest, "containers/") {
		noun = "containers"
	}
	id, name := r.PathValue("id"), r.PathValue("name")
	switch {
	case noun == "containers" && id != "":
		if c, err := containers.NameOf(g.s.Containers, id); err == nil {
			return &audit.Object{Type: "container", ID: c.ID, Name: c.Name}
		}
		return &audit.Object{Type: "container", Name: id}
	case noun == "exec" && id != "":
		if about, err := g.s.Containers.ExecInspect(id); err == nil {
			if c, err := containers.NameOf(g.s.Containers, about.ContainerID); err == nil {
				return &audit.Object{Type: "container", ID: c.ID, Name: c.Name}
			}
		}
		return &audit.Object{Type: "exec", ID: id}
	case noun == "networks" && id != "":
		if n, err := networks.NameOf(g.s.Networks, id); err == nil {
			return &audit.Object{Type: "network", ID: n.ID, Name: n.Name}
		}
		return &audit.Object{Type: "network", Name: id}
	case noun == "volumes" && name != "":
		return &audit.Object{Type: "volume", Name: name}
	case noun == "images" && name+r.PathValue("rest") != "":
		image, _, _ := strings.Cut(name+r.PathValue("rest"), "/push")
		return &audit.Object{Type: "image", Name: image}
	}
	return nil
}
