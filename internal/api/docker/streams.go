package docker

import (
	"context"
	"errors"
	"io"
	"net/http"

	"golang.org/x/net/websocket"

	containers "wherry.dev/wherry/internal/container"
)

// streamRoutes are what a container prints and reads: attach and logs.
type streamRoutes struct {
	s      *containers.Service
	server *Server
}

func (c *streamRoutes) add(add adder) {
	add("POST /containers/{id}/attach", c.server.lasting(c.attach))
	add("GET /containers/{id}/attach/ws", c.server.lasting(c.attachSocket))
	add("GET /containers/{id}/logs", c.server.lasting(c.logs))
}

func attachOptions(q query) containers.AttachOptions {
	return containers.AttachOptions{Logs: q.yes("logs"), Stream: q.yes("stream"), DetachKeys: q.Get("detachKeys")}
}

func (c *streamRoutes) attach(w http.ResponseWriter, r *http.Request) error {
	q := queryOf(r)
	id := r.PathValue("id")
	terminal, err := c.s.Terminal(id)
	if err != nil {
		return err
	}
	conn := c.server.newStream(w, r, terminal)
	defer conn.close()
	o := attachOptions(q)
	o.Ready, o.Drain = conn.open, conn.drain
	stdout, stderr := conn.outputs()
	if q.yes("stdin") && o.Stream {
		o.Stdin = conn
	}
	if q.yes("stdout") {
		o.Stdout = stdout
	}
	if q.yes("stderr") {
		o.Stderr = stderr
	}
	ctx, cancel := conn.watch(r.Context())
	defer cancel()
	err = c.s.Attach(ctx, id, o)
	if !conn.opened() {
		return err
	}
	if err != nil && ctx.Err() == nil && !errors.Is(err, io.EOF) {
		c.server.log.Debug("attach ended", "container", id, "error", err)
		conn.fail(err)
	}
	return nil
}

func (c *streamRoutes) logs(w http.ResponseWriter, r *http.Request) error {
	q := queryOf(r)
	id := r.PathValue("id")
	o, err := logsOptions(q)
	if err != nil {
		return err
	}
	terminal, err := c.s.Terminal(id)
	if err != nil {
		return err
	}
	out := &lateHeader{w: w, contentType: multiplexedOrRaw(clientVersion(r.Context()), terminal)}
	stdout, stderr := io.Writer(out), io.Writer(out)
	if !terminal {
		c := &framed{w: out, lines: true}
		stdout, stderr = frames{c, 1}, frames{c, 2}
	}
	if o.Follow {
		out.begin() // a follower of a silent container sees at once that it is followed
	}
	err = c.s.Logs(r.Context(), id, o, stdout, stderr)
	if err == nil {
		out.begin()
		return nil
	}
	if out.began && r.Context().Err() == nil {
		_, _ = frames{c: &framed{w: out}, id: 3}.Write([]byte("Error grabbing logs: " + err.Error()))
		return nil
	}
	return err
}

func logsOptions(q query) (o containers.LogsOptions, err error) {
	o = containers.LogsOptions{
		Stdout: q.yes("stdout"), Stderr: q.yes("stderr"), Follow: q.yes("follow"),
		Timestamps: q.yes("timestamps"), Details: q.yes("details"), Tail: -1,
	}
	if !o.Stdout && !o.Stderr {
		return o, invalid("Bad parameters: must specify at least one of 'stdout' or 'stderr'")
	}
	if t := q.Get("tail"); t != "" && t != "all" {
		if o.Tail, err = q.number("tail", -1); err != nil {
			o.Tail = -1 // as Docker: what is no number means all
		}
	}
	if o.Since, err = q.moment("since"); err != nil {
		return o, err
	}
	o.Until, err = q.moment("until")
	return o, err
}

// lateHeader sends the header with the first bytes and passes every write on at once.
type lateHeader struct {
	w           http.ResponseWriter
	contentType string
	began       bool
}

func (l *lateHeader) begin() {
	if !l.began {
		l.began = true
		begin(l.w, l.contentType)
	}
}

func (l *lateHeader) Write(p []byte) (int, error) {
	l.begin()
	return flusher{l.w}.Write(p)
}

// attachSocket is attach over a web socket, for browsers: frames in are input, frames out are output of both streams.
func (c *streamRoutes) attachSocket(w http.ResponseWriter, r *http.Request) error {
	q := queryOf(r)
	id := r.PathValue("id")
	if _, err := c.s.Terminal(id); err != nil {
		return err
	}
	olderStreams(clientVersion(r.Context()), q)
	o := attachOptions(q)
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	websocket.Server{Handler: func(ws *websocket.Conn) {
		defer ws.Close()
		stop := context.AfterFunc(ctx, func() { ws.Close() })
		defer stop()
		ws.PayloadType = webSocketFrames(clientVersion(r.Context()))
		in := endingReader{ws, cancel}
		if q.yes("stdin") && o.Stream {
			o.Stdin = in
		} else {
			go func() { _, _ = io.Copy(io.Discard, in) }()
		}
		if q.yes("stdout") {
			o.Stdout = ws
		}
		if q.yes("stderr") {
			o.Stderr = ws
		}
		if err := c.s.Attach(ctx, id, o); err != nil && ctx.Err() == nil {
			_, _ = io.WriteString(ws, err.Error()+"\r\n")
		}
	}}.ServeHTTP(w, r)
	return nil
}

// endingReader calls ended when nothing more can be read: a web socket has no half-close.
type endingReader struct {
	io.Reader
	ended func()
}

func (e endingReader) Read(p []byte) (int, error) {
	n, err := e.Reader.Read(p)
	if err != nil {
		e.ended()
	}
	return n, err
}
