package contract

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Recorder stands between clients and an engine. Bytes go through as they are, in both directions, with the ends of both; what was asked
// and answered is read from a copy.
type Recorder struct {
	spec   *Specification
	engine string // its socket
	listen net.Listener
	work   sync.WaitGroup

	mu       sync.Mutex
	conns    map[net.Conn]struct{}
	closed   bool
	seen     map[string]int // exchanges by operation
	problems map[Problem]int
	err      error
}

// Record listens on a socket and hands what comes on to the engine's.
func Record(spec *Specification, socket, engine string) (*Recorder, error) {
	l, err := net.Listen("unix", socket)
	if err != nil {
		return nil, err
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // as when an engine ends: the name stays, and nobody listens
	r := &Recorder{spec: spec, engine: engine, listen: l, conns: map[net.Conn]struct{}{}, seen: map[string]int{}, problems: map[Problem]int{}}
	r.work.Go(r.serve)
	return r, nil
}

// Close ends all connections, and tells what was seen: how often each operation, and what differed from the specification.
func (r *Recorder) Close() (seen map[string]int, problems map[Problem]int, err error) {
	err = r.listen.Close()
	r.mu.Lock()
	r.closed = true
	for c := range r.conns {
		c.Close()
	}
	r.mu.Unlock()
	r.work.Wait()
	return r.seen, r.problems, errors.Join(err, r.err)
}

func (r *Recorder) serve() {
	for {
		client, err := r.listen.Accept()
		if err != nil {
			return
		}
		engine, err := net.Dial("unix", r.engine)
		if err != nil {
			client.Close()
			continue
		}
		if !r.keep(client, engine) {
			continue
		}
		r.work.Go(func() { r.through(client.(*net.UnixConn), engine.(*net.UnixConn)) })
	}
}

// keep notes connections so that Close can end them; it closes them when that has begun.
func (r *Recorder) keep(conns ...net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range conns {
		if r.closed {
			c.Close()
		} else {
			r.conns[c] = struct{}{}
		}
	}
	return !r.closed
}

func (r *Recorder) drop(conns ...net.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range conns {
		delete(r.conns, c)
		c.Close()
	}
}

// through is one connection.
func (r *Recorder) through(client, engine *net.UnixConn) {
	defer r.drop(client, engine)
	ended := make(chan struct{}) // the engine's half
	asked, askedCopy := io.Pipe()
	said, saidCopy := io.Pipe()
	var both sync.WaitGroup
	both.Go(func() { r.read(bufio.NewReader(asked), bufio.NewReader(said)); drain(asked, said) })
	both.Go(func() {
		_, _ = io.Copy(io.MultiWriter(engine, askedCopy), client)
		_ = engine.CloseWrite()
		askedCopy.Close()
		_, _ = io.Copy(io.Discard, client) // an engine that hears no more may still be read by its client
		whenGone(client, ended, func() { engine.Close() })
	})
	_, _ = io.Copy(io.MultiWriter(client, saidCopy), engine)
	close(ended)
	_ = client.CloseWrite()
	saidCopy.Close()
	_ = client.SetReadDeadline(time.Now().Add(lingering)) // a client that does not see the end would keep it open for ever
	both.Wait()
}

// whenGone tells of a client that has closed both halves, which only poll knows of one that has ended its input.
func whenGone(client *net.UnixConn, ended <-chan struct{}, tell func()) {
	raw, err := client.SyscallConn()
	if err != nil {
		return
	}
	for gone := false; !gone; {
		err := raw.Control(func(fd uintptr) {
			p := []unix.PollFd{{Fd: int32(fd)}}
			n, err := unix.Poll(p, 0)
			gone = err == nil && n > 0 && p[0].Revents&(unix.POLLHUP|unix.POLLERR|unix.POLLNVAL) != 0
		})
		if err != nil {
			break
		}
		select {
		case <-ended:
			return
		case <-time.After(20 * time.Millisecond):
		}
	}
	tell()
}

// lingering is how long a client may go on speaking after the engine's end.
const lingering = 2 * time.Second

// drain keeps the copies flowing when nobody reads them any more.
func drain(pipes ...*io.PipeReader) {
	var all sync.WaitGroup
	for _, p := range pipes {
		all.Go(func() { _, _ = io.Copy(io.Discard, p) })
	}
	all.Wait()
}

// read takes the copies apart, until the connection is no HTTP any more.
func (r *Recorder) read(asked, said *bufio.Reader) {
	for {
		if first, err := asked.Peek(4); err != nil || string(first) == "PRI " { // HTTP/2: BuildKit's
			return
		}
		req, err := http.ReadRequest(asked)
		if err != nil {
			return
		}
		e := Exchange{Method: req.Method, URL: req.URL, Header: req.Header}
		// The answer may come before the body's end, and may not come before its beginning.
		body := make(chan capture, 1)
		go func() { body <- captured(req.Body) }()
		resp, err := answer(said, req)
		if err != nil {
			return
		}
		e.Status, e.Answer = resp.StatusCode, resp.Header
		taken := resp.StatusCode == http.StatusSwitchingProtocols || strings.HasPrefix(resp.Header.Get("Content-Type"), "application/vnd.docker.")
		if taken {
			r.note(e)
			return
		}
		in := captured(resp.Body)
		out := <-body
		e.Body, e.Said, e.Whole = out.bytes, in.bytes, out.whole && in.whole
		r.note(e)
	}
}

func answer(said *bufio.Reader, req *http.Request) (*http.Response, error) {
	for {
		resp, err := http.ReadResponse(said, req)
		if err != nil || resp.StatusCode != http.StatusContinue {
			return resp, err
		}
	}
}

type capture struct {
	bytes []byte
	whole bool
}

// captured reads a body to its end and keeps it when it is not large.
func captured(body io.Reader) capture {
	const most = 8 << 20
	var b bytes.Buffer
	n, err := io.CopyN(&b, body, most)
	if err == nil {
		more, _ := io.Copy(io.Discard, body)
		return capture{b.Bytes(), n+more <= most}
	}
	return capture{b.Bytes(), errors.Is(err, io.EOF)}
}

func (r *Recorder) note(e Exchange) {
	operation, problems, err := r.spec.Check(e)
	r.mu.Lock()
	defer r.mu.Unlock()
	if operation != "" {
		r.seen[operation]++
	}
	for _, p := range problems {
		r.problems[p]++
	}
	r.err = errors.Join(r.err, err)
}

// Report closes a recorder and prints what differed; it says whether nothing did.
func Report(w io.Writer, recorders ...*Recorder) bool {
	var lines []string
	for _, r := range recorders {
		_, problems, err := r.Close()
		if err != nil {
			lines = append(lines, err.Error())
		}
		for p, n := range problems {
			lines = append(lines, fmt.Sprintf("%s (%d times)", p, n))
		}
	}
	slices.Sort(lines)
	for _, l := range lines {
		fmt.Fprintln(w, "contract:", l)
	}
	return len(lines) == 0
}
