package docker

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"runtime"
	"sync"

	"github.com/moby/moby/api/types/jsonstream"
	"golang.org/x/sync/errgroup"
)

// handle is a route's function; the error it returns becomes the answer where none has begun.
type handle func(w http.ResponseWriter, r *http.Request) error

func (h handle) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := h(w, r); err != nil {
		writeError(w, err)
	}
}

// bodies are used again: a list of a thousand containers is a megabyte, and growing to that leaves two more to be collected.
var bodies = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// largestKept is how large a body may be that is kept for the next answer.
const largestKept = 4 << 20

func giveBack(b *bytes.Buffer) {
	if b.Cap() <= largestKept {
		b.Reset()
		bodies.Put(b)
	}
}

func writeJSON(w http.ResponseWriter, code int, v any) error {
	body := bodies.Get().(*bytes.Buffer)
	defer giveBack(body)
	if err := encode(body, v); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, err := w.Write(body.Bytes())
	return err
}

// shortList is what one processor encodes in less time than it takes to give a part to another.
const shortList = 64

// writeList answers with a list. A long one is encoded by all processors: that is what most of the time goes into.
func writeList[T any](w http.ResponseWriter, list []T) error {
	workers := min(runtime.GOMAXPROCS(0), len(list)/shortList)
	if workers < 2 {
		return writeJSON(w, http.StatusOK, list)
	}
	parts := make([]*bytes.Buffer, workers)
	var g errgroup.Group
	for i := range parts {
		parts[i] = bodies.Get().(*bytes.Buffer)
		defer giveBack(parts[i])
		g.Go(func() error { return encode(parts[i], list[i*len(list)/workers:(i+1)*len(list)/workers]) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	for i := range parts { // each is a list of its own
		part := bytes.TrimSuffix(parts[i].Bytes(), []byte("]\n"))
		if part[0] = ','; i == 0 {
			part[0] = '['
		}
		if _, err := w.Write(part); err != nil {
			return err
		}
	}
	_, err := io.WriteString(w, "]\n")
	return err
}

// encode writes one document of a stream or of an answer whose header is out.
func encode(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false) // people see it: docker inspect prints what came
	return e.Encode(v)
}

func noContent(w http.ResponseWriter) error {
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// flusher passes every write on at once.
type flusher struct{ w http.ResponseWriter }

func (f flusher) Write(p []byte) (int, error) {
	n, err := f.w.Write(p)
	if fl, ok := f.w.(http.Flusher); ok {
		fl.Flush()
	}
	return n, err
}

// begin sends the header now.
func begin(w http.ResponseWriter, contentType string) {
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(http.StatusOK)
	if fl, ok := w.(http.Flusher); ok {
		fl.Flush()
	}
}

// streamMessage is a line of a progress stream: Docker's Message with the field that clients before 1.52 read errors from.
type streamMessage struct {
	jsonstream.Message
	ErrorText string `json:"error,omitempty"`
}

// messages writes a progress stream from several goroutines. The header goes out with the first line, so that an error before it still
// gets a status code.
type messages struct {
	mu    sync.Mutex
	w     http.ResponseWriter
	began bool
}

func (m *messages) write(msg streamMessage) {
	line, err := json.Marshal(msg)
	if err != nil {
		return
	}
	m.begin()
	m.mu.Lock()
	defer m.mu.Unlock()
	_, _ = flusher{m.w}.Write(append(line, '\r', '\n'))
}

func (m *messages) begin() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.began {
		m.began = true
		begin(m.w, "application/json")
	}
}

// end turns what an operation returned into the last line, or returns it when nothing was written yet.
func (m *messages) end(err error) error {
	m.mu.Lock()
	began := m.began
	m.mu.Unlock()
	switch {
	case err == nil && !began:
		begin(m.w, "application/json")
	case err == nil:
	case !began:
		return err
	default:
		said := &jsonstream.Error{Message: message(err)}
		if failed := interface{ ExitCode() int }(nil); errors.As(err, &failed) { // of a program: the client ends with it
			said.Code = failed.ExitCode()
		}
		failLate(m.w, err)
		m.write(streamMessage{Message: jsonstream.Message{Error: said}, ErrorText: said.Message})
	}
	return nil
}

// frames writes one stream of Docker's multiplexed ones: an 8-byte header {stream, 0, 0, 0, length of 4 bytes, big endian} before each piece.
type frames struct {
	c  *framed
	id byte // 1 stdout, 2 stderr, 3 an error of the engine's
}

// framed is a connection that streams share.
type framed struct {
	lines bool // a frame each, as who reads a log frame by frame expects it; else what came together is one frame

	mu  sync.Mutex // one write at a time
	w   io.Writer
	buf []byte
}

func stdFrames(w io.Writer) (stdout, stderr io.Writer) {
	c := &framed{w: w}
	return frames{c, 1}, frames{c, 2}
}

func (f frames) Write(p []byte) (int, error) {
	const most = 1 << 20
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	written := 0
	for len(p) > 0 {
		together := p[:min(len(p), most)]
		p = p[len(together):]
		f.c.buf = f.c.buf[:0]
		for rest := together; len(rest) > 0; {
			piece := rest
			if i := bytes.IndexByte(rest, '\n'); f.c.lines && i >= 0 {
				piece = rest[:i+1]
			}
			rest = rest[len(piece):]
			f.c.buf = binary.BigEndian.AppendUint32(append(f.c.buf, f.id, 0, 0, 0), uint32(len(piece)))
			f.c.buf = append(f.c.buf, piece...)
		}
		if _, err := f.c.w.Write(f.c.buf); err != nil {
			return written, err
		}
		written += len(together)
	}
	return written, nil
}
