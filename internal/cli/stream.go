package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/signal"
	"strconv"
	"sync"

	"github.com/moby/moby/api/types"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"wherry.dev/wherry/internal/client"
)

// session is a process of a container whose streams are joined to this one's.
type session struct {
	app    *App
	tty    bool
	in     io.Reader // nil: no input is sent
	keys   []byte    // that detach
	resize string    // path of the API to tell the terminal's size; "" for none
	redraw bool      // let a program that runs already draw its screen again

	note func([]byte) error // hears what the engine tells between the output of a conversation

	forwarded bool // signals go to the container, and do not end this process

	typed    *typing // from the first attach on
	out, err output
}

// attach copies both ways until the output ends. It gives errDetached when the user typed the detach keys.
func (s *session) attach(ctx context.Context, h *client.Hijacked) error {
	defer h.Close()
	if fd, ok := terminal(s.app.In); ok && s.tty && s.in != nil {
		if !s.forwarded {
			defer restoreAfterSignals(fd)()
		}
		state, err := term.MakeRaw(fd)
		if err != nil {
			return fmt.Errorf("set the terminal to raw mode: %w", err)
		}
		defer func() { _ = term.Restore(fd, state) }()
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if s.tty && s.resize != "" {
		stop := s.followSize(ctx)
		defer stop()
	}
	if s.in == nil { // on this thread: another one to wake costs more than all else here
		_ = h.CloseWrite()
		return s.receive(h)
	}
	if s.typed == nil {
		s.typed = startTyping(s)
	}
	over, sent, received := make(chan struct{}), make(chan error, 1), make(chan error, 1)
	var sending sync.WaitGroup
	sending.Go(func() { sent <- s.send(h, over) })
	defer func() {
		h.Close()
		close(over)
		sending.Wait()
	}()
	go func() { received <- s.receive(h) }()
	for {
		select {
		case err := <-received:
			return err
		case err := <-sent:
			if errors.Is(err, errDetached) {
				return err
			}
		}
	}
}

// send passes on what is typed until the end of input, or until over is closed; what is typed then waits for the next connection.
func (s *session) send(h *client.Hijacked, over <-chan struct{}) error {
	for {
		if s.typed.left == nil {
			select {
			case chunk, ok := <-s.typed.chunks:
				if !ok {
					if errors.Is(s.typed.err, errDetached) {
						return errDetached
					}
					return errors.Join(s.typed.err, h.CloseWrite())
				}
				s.typed.left = chunk
			case <-over:
				return nil
			}
		}
		if _, err := h.Conn.Write(s.typed.left); err != nil {
			return err
		}
		s.typed.left = nil
	}
}

// typing is what comes from standard input. Somebody who waits in read(2) cannot be called back, so it outlasts a connection.
type typing struct {
	chunks chan []byte // closed at the end
	err    error       // why, before that
	left   []byte      // taken from chunks and not sent
}

func startTyping(s *session) *typing {
	t := &typing{chunks: make(chan []byte)}
	in := s.in
	if s.tty {
		in = &detachReader{in: s.in, keys: s.keys}
	}
	go func() { // ends with the input, or with this process
		defer close(t.chunks)
		for {
			buf := make([]byte, 32<<10)
			n, err := in.Read(buf)
			if n > 0 {
				t.chunks <- buf[:n]
			}
			if err != nil {
				if !errors.Is(err, io.EOF) {
					t.err = err
				}
				return
			}
		}
	}()
	return t
}

func (s *session) receive(h *client.Hijacked) (err error) {
	s.out.to, s.err.to = s.app.Out, s.app.Err
	if h.Header.Get("Content-Type") == runStreamType {
		err = demultiplexNotes(&s.out, &s.err, s.note, h.Reader)
	} else if h.Header.Get("Content-Type") == types.MediaTypeMultiplexedStream || h.Header.Get("Content-Type") == "" && !s.tty {
		err = demultiplex(&s.out, &s.err, h.Reader)
	} else {
		_, err = io.Copy(&s.out, h.Reader)
	}
	if failed := errors.Join(s.out.failed, s.err.failed); failed != nil {
		return &outputError{failed}
	}
	return err
}

// output counts what was printed, so that it is not printed again when an engine that comes back begins anew.
type output struct {
	to      io.Writer
	printed int64
	skip    int64 // of what comes, so much was printed before
	failed  error
}

func (o *output) Write(p []byte) (int, error) {
	known := min(o.skip, int64(len(p)))
	o.skip -= known
	if known == int64(len(p)) {
		return len(p), nil
	}
	n, err := o.to.Write(p[known:])
	o.printed += int64(n)
	o.failed = err
	return n + int(known), err
}

// outputError is that of whoever reads what this process prints; other errors of a stream are the connection's.
type outputError struct{ err error }

func (e *outputError) Error() string { return e.err.Error() }
func (e *outputError) Unwrap() error { return e.err }

// followSize tells the engine the terminal's size, now and whenever it changes.
func (s *session) followSize(ctx context.Context) (stop func()) {
	fd, ok := terminal(s.app.Out)
	if !ok {
		return func() {}
	}
	changed := make(chan os.Signal, 1)
	signal.Notify(changed, unix.SIGWINCH)
	done := make(chan struct{})
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		defer close(done)
		if s.redraw {
			s.tellSize(ctx, fd, 1) // programs draw when the size changes
		}
		for {
			s.tellSize(ctx, fd, 0)
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() {
		signal.Stop(changed)
		cancel()
		<-done
	}
}

func (s *session) tellSize(ctx context.Context, fd, taller int) {
	width, height, err := term.GetSize(fd)
	if err != nil || width == 0 || height == 0 {
		return
	}
	c, err := s.app.Client()
	if err != nil {
		return
	}
	// It is a courtesy: a process that has just ended needs no size.
	_ = c.Post(ctx, s.resize, url.Values{"h": {strconv.Itoa(height + taller)}, "w": {strconv.Itoa(width)}}, nil, nil)
}

// terminalSize is what the API calls a console size: height, then width. Zeros where output is no terminal.
func terminalSize(app *App) [2]uint {
	if fd, ok := terminal(app.Out); ok {
		if width, height, err := term.GetSize(fd); err == nil {
			return [2]uint{uint(height), uint(width)}
		}
	}
	return [2]uint{}
}

// checkInput refuses to join a container's terminal to an input that is none.
func checkInput(app *App, attached, tty bool) error {
	if _, ok := terminal(app.In); attached && tty && !ok {
		return errors.New("the input is no terminal, which -t with -i needs: leave -t out to send a file or a pipe")
	}
	return nil
}
