package docker

import (
	"cmp"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"

	"wherry.dev/wherry/internal/access"
	containers "wherry.dev/wherry/internal/container"
	"wherry.dev/wherry/internal/files"
	"wherry.dev/wherry/internal/monitor"
)

// containerRoutes are the life cycle of containers and what can be asked about them.
type containerRoutes struct {
	s       *containers.Service
	files   *files.Service
	monitor *monitor.Service
	server  *Server
}

func (c *containerRoutes) add(add adder) {
	c.addCheckpoints(add)
	add("POST /containers/create", c.create)
	add("GET /containers/json", c.list)
	add("GET /containers/{id}/json", c.inspect)
	add("GET /containers/{id}/{alias}/json", c.inspect)
	add("POST /containers/{id}/start", c.start)
	add("POST /containers/{id}/stop", c.stop)
	add("POST /containers/{id}/restart", c.restart)
	add("POST /containers/{id}/kill", c.kill)
	add("POST /containers/{id}/pause", c.pause)
	add("POST /containers/{id}/unpause", c.unpause)
	add("POST /containers/{id}/rename", c.rename)
	add("POST /containers/{id}/update", c.update)
	add("POST /containers/{id}/wait", c.server.lasting(c.wait))
	add("DELETE /containers/{id}", c.remove)
	add("DELETE /containers/{id}/{alias}", c.unlink)
	add("POST /wherry/containers/{id}/replace", c.server.lasting(c.replace))
	add("POST /containers/prune", c.prune)
	add("POST /containers/{id}/resize", c.resize)
	add("GET /wherry/why/{id}", c.why)
	add("POST /wherry/containers/{id}/on-unhealthy", c.onUnhealthy)
	add("POST /wherry/containers/{id}/probe", c.server.lasting(c.probe))
	add("GET /wherry/containers/{id}/healthy", c.server.lasting(c.healthy))
	add("GET /containers/{id}/top", c.top)
	add("GET /containers/{id}/stats", c.server.lasting(c.stats))
}

func (c *containerRoutes) create(w http.ResponseWriter, r *http.Request) error {
	req, err := readCreate(c.s, w, r)
	if err != nil {
		return err
	}
	out, err := c.s.Create(r.Context(), req)
	if err != nil {
		return err
	}
	noteMade(r.Context(), c.s, out.ID)
	out.Warnings = orEmpty(out.Warnings)
	return writeJSON(w, http.StatusCreated, out)
}

// readCreate reads what a container is to be, and holds it against what words there are.
func readCreate(s *containers.Service, w http.ResponseWriter, r *http.Request) (out containers.CreateRequest, err error) {
	var body createBody
	if err := checkJSON(r); err != nil {
		return out, err
	}
	if empty, err := readJSON(w, r, &body); err != nil {
		return out, err
	} else if empty {
		return out, invalid("invalid JSON: EOF") // dockerd has a reader of its own for this body
	}
	q := queryOf(r)
	v := clientVersion(r.Context())
	if v < 1041 {
		q.Del("platform")
	}
	if out.Platform, err = q.platform(); err != nil {
		return out, err
	}
	out.Name = strings.TrimPrefix(q.Get("name"), "/")
	if err := checkName(out.Name); err != nil {
		return out, err
	}
	req := body.request(v)
	if err := checkCreate(&req); err != nil { // fills in a host configuration
		return out, err
	}
	if err := olderCreate(v, &req); err != nil {
		return out, err
	}
	out.ReadOnlyFlat = v < 1044
	noteCreate(r.Context(), &req)
	l := limitsOf(r.Context(), s)
	if err := cmp.Or(l.name(out.Name), l.create(&req)); err != nil {
		return out, err
	}
	out.Config, out.HostConfig, out.NetworkingConfig = req.Config, req.HostConfig, req.NetworkingConfig
	out.Secrets = body.Wherry.Secrets
	return out, nil
}

func (c *containerRoutes) list(w http.ResponseWriter, r *http.Request) error {
	q := queryOf(r)
	filters, err := q.filters()
	if err != nil {
		return err
	}
	for _, name := range []string{"since", "before"} { // parameters of their own until filters came
		if id := q.Get(name); id != "" {
			filters[name] = map[string]bool{id: true}
		}
	}
	limit, err := q.number("limit", 0)
	if err != nil {
		return err
	}
	list, err := c.s.List(r.Context(), containers.ListOptions{
		All: q.yes("all"), Limit: max(limit, 0), Filters: filters,
	})
	if err != nil {
		return err
	}
	if q.yes("size") {
		_ = containers.Each(list, func(row *container.Summary) error {
			if m, err := containers.MeasuredOf(c.s, row.ID); err == nil {
				if rw, root, err := c.files.Size(r.Context(), m); err == nil {
					row.SizeRw, row.SizeRootFs = rw, root
				}
			}
			return nil // one that is being removed has none
		})
	}
	return writeList(w, shapeContainers(clientVersion(r.Context()), list, containers.Moved(r.Context(), c.s, list), containers.HealthOutputs(c.s, list)))
}

func (c *containerRoutes) inspect(w http.ResponseWriter, r *http.Request) error {
	size := queryOf(r).yes("size")
	id := r.PathValue("id")
	if alias := r.PathValue("alias"); alias != "" { // by a link's name
		id += "/" + alias
	}
	out, err := c.s.Inspect(r.Context(), id)
	if err != nil {
		return err
	}
	if size {
		if m, err := containers.MeasuredOf(c.s, out.ID); err == nil {
			if rw, root, err := c.files.Size(r.Context(), m); err == nil {
				out.SizeRw, out.SizeRootFs = &rw, &root
			}
		}
	}
	return writeJSON(w, http.StatusOK, shapeContainer(clientVersion(r.Context()), out))
}

func (c *containerRoutes) start(w http.ResponseWriter, r *http.Request) error {
	// A host configuration here was taken until 1.22; clients still send {} or null.
	if r.ContentLength > 7 || r.ContentLength == -1 && r.Body != http.NoBody {
		return invalid("starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24")
	}
	if queryOf(r).Get("checkpoint") != "" {
		return c.startFrom(w, r)
	}
	if err := c.s.Start(r.Context(), r.PathValue("id")); err != nil {
		return err
	}
	return noContent(w)
}

func stopOptions(r *http.Request) (containers.StopOptions, error) {
	q := queryOf(r)
	o := containers.StopOptions{Signal: q.Get("signal")}
	if clientVersion(r.Context()) < 1042 {
		o.Signal = ""
	}
	if q.Get("t") != "" {
		t, err := q.number("t", 0)
		if err != nil {
			return o, err
		}
		o.Timeout = &t
	}
	return o, nil
}

func (c *containerRoutes) stop(w http.ResponseWriter, r *http.Request) error {
	o, err := stopOptions(r)
	if err != nil {
		return err
	}
	if err := c.s.Stop(r.Context(), r.PathValue("id"), o); err != nil {
		return err
	}
	return noContent(w)
}

func (c *containerRoutes) restart(w http.ResponseWriter, r *http.Request) error {
	o, err := stopOptions(r)
	if err != nil {
		return err
	}
	if err := c.s.Restart(r.Context(), r.PathValue("id"), o); err != nil {
		return err
	}
	return noContent(w)
}

func (c *containerRoutes) kill(w http.ResponseWriter, r *http.Request) error {
	if err := c.s.Kill(r.Context(), r.PathValue("id"), queryOf(r).Get("signal")); err != nil {
		return err
	}
	return noContent(w)
}

func (c *containerRoutes) pause(w http.ResponseWriter, r *http.Request) error {
	if err := c.s.Pause(r.Context(), r.PathValue("id"), containers.PauseOptions{}); err != nil {
		return err
	}
	return noContent(w)
}

func (c *containerRoutes) unpause(w http.ResponseWriter, r *http.Request) error {
	if err := c.s.Unpause(r.Context(), r.PathValue("id")); err != nil {
		return err
	}
	return noContent(w)
}

func (c *containerRoutes) rename(w http.ResponseWriter, r *http.Request) error {
	name := strings.TrimPrefix(queryOf(r).Get("name"), "/")
	if name == "" {
		return invalid("rename: a new name is needed")
	}
	if err := checkName(name); err != nil {
		return err
	}
	if err := limitsOf(r.Context(), c.s).name(name); err != nil {
		return err
	}
	if err := c.s.Rename(r.Context(), r.PathValue("id"), name); err != nil {
		return err
	}
	return noContent(w)
}

func (c *containerRoutes) update(w http.ResponseWriter, r *http.Request) error {
	var u container.UpdateConfig
	if err := decodeBody(w, r, &u); err != nil {
		return err
	}
	if err := container.ValidateRestartPolicy(u.RestartPolicy); err != nil {
		return invalid("%v", err)
	}
	noteUpdate(r.Context(), &u)
	olderUpdate(clientVersion(r.Context()), &u)
	if err := limitsOf(r.Context(), c.s).update(&u); err != nil {
		return err
	}
	out, err := c.s.Update(r.Context(), r.PathValue("id"), u)
	if err != nil {
		return err
	}
	out.Warnings = orEmpty(out.Warnings)
	return writeJSON(w, http.StatusOK, out)
}

// wait sends its header at once: `docker run` starts the container when it has come, and misses no exit.
func (c *containerRoutes) wait(w http.ResponseWriter, r *http.Request) error {
	condition := container.WaitCondition(queryOf(r).Get("condition"))
	if clientVersion(r.Context()) < 1030 {
		condition = ""
	}
	switch condition {
	case container.WaitConditionNotRunning, container.WaitConditionNextExit, container.WaitConditionRemoved:
	case "":
		condition = container.WaitConditionNotRunning
	default:
		return invalid("invalid condition: %q", condition)
	}
	answer, err := c.s.Wait(r.Context(), r.PathValue("id"), condition)
	if err != nil {
		return err
	}
	begin(w, "application/json")
	select {
	case a, ok := <-answer:
		if ok {
			return encode(w, a)
		}
	case <-r.Context().Done():
	}
	return nil
}

// unlink answers `rm --link CONTAINER/ALIAS`.
func (c *containerRoutes) unlink(w http.ResponseWriter, r *http.Request) error {
	if !queryOf(r).yes("link") {
		return classed(errdefs.ErrNotFound, "No such container: %s/%s", r.PathValue("id"), r.PathValue("alias"))
	}
	if err := containers.Unlink(r.Context(), c.s, r.PathValue("id"), r.PathValue("alias")); err != nil {
		return err
	}
	return noContent(w)
}

func (c *containerRoutes) remove(w http.ResponseWriter, r *http.Request) error {
	q := queryOf(r)
	if q.yes("link") {
		parent, alias, _ := strings.Cut(strings.TrimPrefix(r.PathValue("id"), "/"), "/") // with %2F
		if err := containers.Unlink(r.Context(), c.s, parent, alias); err != nil {
			return err
		}
		return noContent(w)
	}
	err := c.s.Remove(r.Context(), r.PathValue("id"), containers.RemoveOptions{Force: q.yes("force"), Volumes: q.yes("v")})
	if err != nil {
		return err
	}
	return noContent(w)
}

func (c *containerRoutes) prune(w http.ResponseWriter, r *http.Request) error {
	filters, err := queryOf(r).filters()
	if err != nil {
		return err
	}
	report, err := c.s.Prune(r.Context(), filters)
	if err != nil {
		return err
	}
	report.ContainersDeleted = orEmpty(report.ContainersDeleted)
	return writeJSON(w, http.StatusOK, report)
}

func (c *containerRoutes) resize(w http.ResponseWriter, r *http.Request) error {
	rows, cols, err := size(queryOf(r))
	if err != nil {
		return err
	}
	if err := c.s.Resize(r.Context(), r.PathValue("id"), rows, cols); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

func size(q query) (rows, cols uint16, err error) {
	if rows, err = side(q, "h", "height"); err != nil {
		return 0, 0, err
	}
	cols, err = side(q, "w", "width")
	return rows, cols, err
}

// side is one of a terminal's two numbers, with Docker's words for what is none.
func side(q query, name, word string) (uint16, error) {
	n, err := strconv.ParseUint(q.Get(name), 10, 16)
	var number *strconv.NumError
	if errors.As(err, &number) {
		err = number.Err
		if _, e := strconv.ParseInt(q.Get(name), 10, 64); e == nil {
			err = strconv.ErrRange // also what is below zero
		}
		return 0, invalid("invalid resize %s %q: %v", word, q.Get(name), err)
	}
	return uint16(n), nil
}

func (c *containerRoutes) top(w http.ResponseWriter, r *http.Request) error {
	args := queryOf(r).Get("ps_args")
	if v := visitOf(r.Context()); v != nil && v.may == access.ReadOnly && monitor.Reveals(args) {
		return v.no("ps %s may show environments, which may hold secrets; -ef and -eo COLUMNS do not", args)
	}
	out, err := c.monitor.Top(r.Context(), r.PathValue("id"), args)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, out)
}

func (c *containerRoutes) stats(w http.ResponseWriter, r *http.Request) error {
	q := queryOf(r)
	stream := q.yesUnless("stream")
	oneShot := q.yes("one-shot") && clientVersion(r.Context()) >= 1041
	if oneShot && stream {
		return invalid("cannot have stream=true and one-shot=true")
	}
	began := false
	return c.monitor.Stats(r.Context(), r.PathValue("id"), stream, oneShot, func(s container.StatsResponse) error {
		if !began {
			began = true
			begin(w, "application/json")
		}
		return encode(flusher{w}, s)
	})
}

// checkName wants [a-zA-Z0-9][a-zA-Z0-9_.-]+ or nothing.
func checkName(name string) error {
	if name == "" {
		return nil
	}
	ok := len(name) >= 2 && len(name) <= 255
	for i, c := range []byte(name) {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		ok = ok && (letter || i > 0 && (c == '_' || c == '.' || c == '-'))
	}
	if !ok {
		if len(name) == 1 {
			return invalid("Invalid container name (%s): a name has two characters or more", name)
		}
		return invalid("Invalid container name (%s), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed", name)
	}
	return nil
}
