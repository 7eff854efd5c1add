package docker

import (
	"errors"
	"io"
	"net/http"

	"github.com/moby/moby/api/types/container"

	containers "wherry.dev/wherry/internal/container"
)

// execRoutes are further processes in running containers.
type execRoutes struct {
	s      *containers.Service
	server *Server
}

func (e *execRoutes) add(add adder) {
	add("POST /containers/{id}/exec", e.create)
	add("POST /exec/{id}/start", e.server.lasting(e.start))
	add("GET /exec/{id}/json", e.inspect)
	add("POST /exec/{id}/resize", e.resize)
}

// execBody takes a command as one string too.
type execBody struct {
	container.ExecCreateRequest
	Cmd words
}

func (e *execRoutes) create(w http.ResponseWriter, r *http.Request) error {
	req, err := readExec(w, r)
	if err != nil {
		return err
	}
	id, err := e.s.ExecCreate(r.Context(), r.PathValue("id"), req)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, container.ExecCreateResponse{ID: id})
}

func readExec(w http.ResponseWriter, r *http.Request) (container.ExecCreateRequest, error) {
	var body execBody
	if err := decodeBody(w, r, &body); err != nil {
		return body.ExecCreateRequest, err
	}
	req := body.ExecCreateRequest
	req.Cmd = body.Cmd
	noteExec(r.Context(), &req)
	if err := limitsOf(r.Context(), nil).exec(&req); err != nil {
		return req, err
	}
	if len(req.Cmd) == 0 {
		return req, invalid("No exec command specified")
	}
	return req, nil
}

func (e *execRoutes) start(w http.ResponseWriter, r *http.Request) error {
	var req container.ExecStartRequest
	if err := checkJSON(r); err != nil {
		return err
	}
	if err := decodeOptional(w, r, &req); err != nil {
		return err
	}
	id := r.PathValue("id")
	if req.Detach {
		if err := e.s.ExecStart(r.Context(), id, containers.ExecStreams{Detach: true, ConsoleSize: req.ConsoleSize}); err != nil {
			return err
		}
		w.WriteHeader(http.StatusOK)
		return nil
	}
	about, err := e.s.ExecInspect(id)
	if err != nil {
		return err
	}
	conn := e.server.newStream(w, r, req.Tty) // as dockerd: frames or none by what the start says, whatever the exec has
	defer conn.close()
	o := containers.ExecStreams{ConsoleSize: req.ConsoleSize, Started: conn.open}
	stdout, stderr := conn.outputs()
	if about.OpenStdin {
		o.Stdin = conn
	}
	if about.OpenStdout || about.ProcessConfig.Tty {
		o.Stdout = stdout
	}
	if about.OpenStderr {
		o.Stderr = stderr
	}
	ctx, cancel := conn.watch(r.Context())
	defer cancel()
	err = e.s.ExecStart(ctx, id, o)
	if !conn.opened() {
		return err
	}
	if err != nil && ctx.Err() == nil && !errors.Is(err, io.EOF) {
		conn.fail(err)
	}
	return nil
}

func (e *execRoutes) inspect(w http.ResponseWriter, r *http.Request) error {
	out, err := e.s.ExecInspect(r.PathValue("id"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, out)
}

func (e *execRoutes) resize(w http.ResponseWriter, r *http.Request) error {
	rows, cols, err := size(queryOf(r))
	if err != nil {
		return err
	}
	if err := e.s.ExecResize(r.Context(), r.PathValue("id"), rows, cols); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}
