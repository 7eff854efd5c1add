package docker

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/moby/moby/api/types"
	"golang.org/x/sys/unix"
)

// stream is a connection that an attach or exec takes over.
//
//	client                                   engine
//	POST /containers/X/attach?stream=1…  →
//	Upgrade: tcp
//	                                     ←   HTTP/1.1 101 UPGRADED
//	                                         Content-Type: application/vnd.docker.{raw,multiplexed}-stream
//	stdin, raw …                         →
//	                                     ←   output: raw with a terminal, else frames
//	shutdown(SHUT_WR): end of stdin      →
//	                                     ←   close: the end
//
// It is taken over by open, not before: errors until then are answers with a status code. Reads and writes before open wait for it.
type stream struct {
	server      *Server
	w           http.ResponseWriter
	r           *http.Request
	terminal    bool
	contentType string
	greeting    []byte // comes before all output

	first sync.Once // before the first output
	once  sync.Once
	up    chan struct{} // closed when open has run
	err   error         // of open
	conn  net.Conn
	in    io.Reader
}

// newStream is for a request whose body, if it has one that it knows the length of, is no input: dockerode sends its options twice.
func (s *Server) newStream(w http.ResponseWriter, r *http.Request, terminal bool) *stream {
	if r.ContentLength > 0 {
		_, _ = io.Copy(io.Discard, r.Body)
	}
	return &stream{server: s, w: w, r: r, terminal: terminal, contentType: multiplexedOrRaw(clientVersion(r.Context()), terminal), up: make(chan struct{})}
}

// open takes the connection over and says so to the client.
func (s *stream) open() {
	s.once.Do(func() {
		defer close(s.up)
		s.err = s.takeOver()
	})
}

func (s *stream) takeOver() error {
	hj, ok := s.w.(http.Hijacker)
	if !ok {
		return errors.New("connection cannot be taken over")
	}
	conn, rw, err := hj.Hijack()
	if err != nil {
		return err
	}
	s.server.adopt(conn)
	_ = conn.SetDeadline(time.Time{})
	head := "HTTP/1.1 200 OK\r\nContent-Type: " + types.MediaTypeRawStream + "\r\n\r\n"
	if s.r.Header.Get("Upgrade") != "" {
		head = "HTTP/1.1 101 UPGRADED\r\nContent-Type: " + s.contentType + "\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
		for _, name := range []string{"Api-Version", "Docker-Experimental", "Ostype", "Server"} {
			head += name + ": " + s.w.Header().Get(name) + "\r\n"
		}
		head += "\r\n"
	}
	// What has been read ahead comes first, then the connection itself: the server's own reader would end the request at end of input.
	ahead, err := rw.Reader.Peek(rw.Reader.Buffered())
	if err != nil {
		return err
	}
	s.conn, s.in = conn, io.MultiReader(bytes.NewReader(slices.Clone(ahead)), conn)
	_, err = conn.Write(append([]byte(head), s.greeting...))
	return err
}

func (s *stream) opened() bool {
	select {
	case <-s.up:
		return s.err == nil
	default:
		return false
	}
}

// Read gives the client's input; io.EOF when it has closed its side.
func (s *stream) Read(p []byte) (int, error) {
	<-s.up
	if s.err != nil {
		return 0, s.err
	}
	return s.in.Read(p)
}

func (s *stream) Write(p []byte) (int, error) {
	<-s.up
	if s.err != nil {
		return 0, s.err
	}
	s.first.Do(func() { untilRead(s.conn) })
	return s.conn.Write(p)
}

// outputs are the writers for the process's streams.
func (s *stream) outputs() (stdout, stderr io.Writer) {
	if s.terminal {
		return s, s
	}
	return stdFrames(s)
}

// lingering is how long a client may take to close its side after the end.
const lingering = 500 * time.Millisecond

// drain waits, a moment at most, until the client has read all. An event loop may come to another connection first, though what is there was
// sent later: dockerode takes the answer to wait for the end of the output.
func (s *stream) drain() {
	<-s.up
	if s.err == nil {
		untilRead(s.conn)
	}
}

// fail tells the client of an error after the takeover, where dockerd tells it too: as output.
func (s *stream) fail(err error) {
	if !s.opened() {
		return
	}
	failLate(s.w, err)
	_, stderr := s.outputs()
	_, _ = io.WriteString(stderr, strings.TrimRight(message(err), "\n")+"\r\n")
}

// close ends the connection, and wakes readers that wait for an open that never came.
func (s *stream) close() {
	s.once.Do(func() {
		s.err = net.ErrClosed
		close(s.up)
	})
	if s.conn != nil {
		if c, ok := s.conn.(interface{ CloseWrite() error }); ok {
			_ = c.CloseWrite()
		}
		// Input that nobody has read would make the kernel tell the client of a broken connection instead of an end.
		_ = s.conn.SetReadDeadline(time.Now().Add(lingering))
		_, _ = io.Copy(io.Discard, s.conn)
		s.server.drop(s.conn)
	}
}

// watch returns a context that ends when the client has closed both directions, or the server closes. A client that only closes its
// writing side (docker does so when it has no input) still reads; net/http takes that for the end of the request when it comes before the
// takeover, so its word is not heard. The kernel tells by POLLHUP, which a look every second finds.
func (s *stream) watch(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	go func() {
		defer cancel()
		select {
		case <-s.up:
		case <-ctx.Done():
			return
		}
		for s.err == nil && !hungUp(s.conn) {
			select {
			case <-time.After(time.Second):
			case <-s.server.closing:
				return
			case <-ctx.Done():
				return
			}
		}
	}()
	return ctx, cancel
}

// untilRead waits, a second at most, until the client has read what was sent. Before the first output that is the answer's head: docker-py
// reads the head through a buffer and the output past it, and so loses what comes along with the head.
func untilRead(c net.Conn) {
	uc, ok := c.(*net.UnixConn)
	if !ok {
		return
	}
	raw, err := uc.SyscallConn()
	if err != nil {
		return
	}
	for end := time.Now().Add(time.Second); time.Now().Before(end); time.Sleep(50 * time.Microsecond) {
		unread := 0
		if err := raw.Control(func(fd uintptr) { unread, _ = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) }); err != nil || unread == 0 {
			return
		}
	}
}

// hungUp says that the client has closed both directions. Over TLS the end of input is a message of TLS's; that the connection ends is the
// end of all.
func hungUp(c net.Conn) bool {
	var wanted int16
	if t, ok := c.(*tls.Conn); ok {
		c, wanted = t.NetConn(), unix.POLLRDHUP
	}
	sc, ok := c.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return true
	}
	gone := false
	err = raw.Control(func(fd uintptr) {
		p := []unix.PollFd{{Fd: int32(fd), Events: wanted}}
		n, err := unix.Poll(p, 0)
		gone = err == nil && n > 0 && p[0].Revents&(unix.POLLHUP|unix.POLLERR|unix.POLLNVAL|wanted) != 0
	})
	return err != nil || gone
}
