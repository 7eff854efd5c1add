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
}

// attach copies both ways until the output ends. It gives errDetached when the user typed the detach keys.
func (s *session) attach(ctx context.Context, h *client.Hijacked) error {
	defer h.Close()
	if fd, ok := terminal(s.app.In); ok && s.tty && s.in != nil {
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
	input := make(chan error, 1)
	go func() { input <- s.send(h) }() // ends with the connection, or with this process when it waits for somebody to type
	output := make(chan error, 1)
	go func() { output <- s.receive(h) }()
	for {
		select {
		case err := <-output:
			return err
		case err := <-input:
			if errors.Is(err, errDetached) {
				return err
			}
		}
	}
}

func (s *session) send(h *client.Hijacked) error {
	var err error
	if s.in != nil {
		in := s.in
		if s.tty {
			in = &detachReader{in: s.in, keys: s.keys}
		}
		_, err = io.Copy(h.Conn, in)
	}
	if errors.Is(err, errDetached) {
		return err
	}
	return errors.Join(err, h.CloseWrite())
}

func (s *session) receive(h *client.Hijacked) error {
	if h.Header.Get("Content-Type") == types.MediaTypeMultiplexedStream || h.Header.Get("Content-Type") == "" && !s.tty {
		return demultiplex(s.app.Out, s.app.Err, h.Reader)
	}
	_, err := io.Copy(s.app.Out, h.Reader)
	return err
}

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
