package docker

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/containerd/errdefs"

	"wherry.dev/wherry/internal/access"
	images "wherry.dev/wherry/internal/image"
)

// routes builds the table of everything that is answered. Each noun adds its own routes.
func routes(s Services, about About, srv *Server) http.Handler {
	mux := http.NewServeMux()
	g := &guard{s}
	add := func(pattern string, h handle) { mux.Handle(pattern, g.wrap(pattern, h)) }

	(&systemRoutes{Services: s, about: about, server: srv}).add(add)
	(&containerRoutes{s: s.Containers, files: s.Files, monitor: s.Monitor, server: srv}).add(add)
	(&streamRoutes{s: s.Containers, server: srv}).add(add)
	(&runRoutes{s: s.Containers, server: srv}).add(add)
	(&execRoutes{s: s.Containers, server: srv}).add(add)
	(&fileRoutes{s: s.Files, images: s.Images}).add(add)
	(&imageRoutes{s: s.Images, containers: s.Containers}).add(add)
	(&transferRoutes{s: s.Images}).add(add)
	(&storeRoutes{images: s.Images, containers: s.Containers, cleaner: s.Cleaner}).add(add)
	(&listRoutes{images.Lists{S: s.Images}, images.Manifests{S: s.Images}}).add(add)
	(&artifactRoutes{images.Artifacts{S: s.Images}, images.Manifests{S: s.Images}}).add(add)
	(&networkRoutes{s: s.Networks, containers: s.Containers}).add(add)
	(&portRoutes{networks: s.Networks, containers: s.Containers}).add(add)
	(&volumeRoutes{s: s.Volumes}).add(add)
	(&buildRoutes{b: s.Builder, server: srv}).add(add)
	(&auditRoutes{log: s.Audit, server: srv}).add(add)
	(&metricsRoutes{s.Metrics}).add(add)
	(&secretRoutes{s: s.Secrets, path: "/wherry/secrets"}).add(add)
	(&secretRoutes{s: s.Configs, path: "/wherry/configs"}).add(add)
	absentRoutes(add)

	// ServeMux redirects paths that are not clean; the API never did.
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.Builder != nil && isBuildKit(r) {
			if v := visitOf(r.Context()); v != nil && v.may < access.All {
				writeError(w, v.no("builds use the cache and the images of all"))
				return
			}
			s.Builder.ServeHTTP(w, r)
			return
		}
		r = oneSegment(r)
		_, pattern := mux.Handler(r)
		if pattern == "" || unclean(r.URL.Path) {
			notFound(w, r, mux)
			return
		}
		if lacksSlash(r.URL.Path, pattern) {
			r = r.Clone(r.Context())
			r.URL.Path += "/"
		}
		mux.ServeHTTP(w, r)
	})
}

// lacksSlash says that a path is a pattern's with nothing in the place of its last wildcard: clients cut off the slash before an empty name.
func lacksSlash(path, pattern string) bool {
	_, of, _ := strings.Cut(pattern, " ")
	return strings.HasPrefix(of, path+"/{") && strings.HasSuffix(of, "...}")
}

// oneSegment writes a network's name with slashes as one part of the path, as clients may and most do not: routes, rights and the audit log know it by
// one {id}, however it was sent. What follows a name is known by the method: of those with a name only POST has a verb.
func oneSegment(r *http.Request) *http.Request {
	name, ok := strings.CutPrefix(r.URL.Path, "/networks/")
	if !ok || !strings.Contains(name, "/") {
		return r
	}
	verb := ""
	if r.Method == http.MethodPost {
		at := strings.LastIndexByte(name, '/')
		name, verb = name[:at], "/"+url.PathEscape(name[at+1:])
	}
	u := *r.URL
	u.RawPath = "/networks/" + url.PathEscape(name) + verb
	r = r.Clone(r.Context())
	r.URL = &u
	return r
}

// unclean says that a path is no clean one: it is another's only by what somebody makes of it.
func unclean(path string) bool {
	return strings.Contains(path, "//") || strings.Contains(path+"/", "/./") || strings.Contains(path+"/", "/../")
}

// notFound tells a path that nobody serves from one that is served under another method.
func notFound(w http.ResponseWriter, r *http.Request, mux *http.ServeMux) {
	for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete} {
		other := r.Clone(r.Context())
		other.Method = method
		if _, pattern := mux.Handler(other); pattern != "" && method != r.Method && !unclean(r.URL.Path) {
			w.Header().Set("Allow", method)
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusMethodNotAllowed)
			_, _ = w.Write([]byte(`{"message":"method not allowed"}` + "\n"))
			return
		}
	}
	writeError(w, classed(errdefs.ErrNotFound, "page not found"))
}

type adder func(pattern string, h handle)

// absentRoutes answer for the parts of Docker's API that Wherry does not have, so that a client can say why.
func absentRoutes(add adder) {
	swarm := func(w http.ResponseWriter, r *http.Request) error {
		return classed(errdefs.ErrUnavailable,
			`This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.`)
	}
	noSwarm := func(w http.ResponseWriter, r *http.Request) error {
		return classed(errdefs.ErrNotImplemented, "Wherry is a single machine's engine and has no swarm mode")
	}
	for _, noun := range []string{"nodes", "services", "tasks", "secrets", "configs"} {
		add("/"+noun, swarm)
		add("/"+noun+"/", swarm)
	}
	add("GET /swarm", swarm)
	add("GET /swarm/unlockkey", swarm)
	add("POST /swarm/leave", swarm)
	add("POST /swarm/update", swarm)
	add("POST /swarm/unlock", swarm)
	add("POST /swarm/init", noSwarm)
	add("POST /swarm/join", noSwarm)
	add("GET /plugins", func(w http.ResponseWriter, r *http.Request) error {
		return writeJSON(w, http.StatusOK, []struct{}{})
	})
	add("GET /plugins/privileges", noPlugins)
	for _, verb := range []string{"GET", "DELETE"} {
		add(verb+" /plugins/{rest...}", func(w http.ResponseWriter, r *http.Request) error {
			return classed(errdefs.ErrNotFound, "plugin %q not found", strings.TrimSuffix(r.PathValue("rest"), "/json"))
		})
	}
	add("/plugins/", noPlugins)
}

func noPlugins(http.ResponseWriter, *http.Request) error {
	return classed(errdefs.ErrNotImplemented, "Wherry has no plugins")
}
