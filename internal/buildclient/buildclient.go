// Package buildclient has an engine build images: it is the half of BuildKit's protocol that stands on the user's side.
//
// Everything goes over one connection to the engine, which speaks gRPC there. The engine asks back, over that same connection, for what only
// this side has: files of contexts, secrets, agents, logins. A Client belongs to one goroutine; Close ends what it holds.
package buildclient

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"github.com/moby/buildkit/client"

	"wherry.dev/wherry/internal/login"
)

// Client of an engine that builds.
type Client struct {
	In       io.Reader
	Out, Err *os.File
	Login    *login.Config // whose logins are lent to the engine, each for its own registry

	kit *client.Client
}

// New makes a client that reaches the engine by dial. Nothing is dialled yet.
func New(ctx context.Context, dial func(context.Context) (net.Conn, error)) (*Client, error) {
	kit, err := client.New(ctx, "passthrough:///wherry", client.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return dial(ctx) }))
	if err != nil {
		return nil, fmt.Errorf("make a client of the engine: %w", err)
	}
	return &Client{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Login: &login.Config{}, kit: kit}, nil
}

// Close ends the connection.
func (c *Client) Close() error { return c.kit.Close() }

// ExitError ends the program with a status of its own. Without a cause everything was said.
type ExitError struct {
	Code  int
	Cause error
}

func (e *ExitError) Error() string {
	if e.Cause == nil {
		return fmt.Sprintf("exit status %d", e.Code)
	}
	return e.Cause.Error()
}

func (e *ExitError) Unwrap() error { return e.Cause }

// ExitCode of an error, 1 where it has none of its own.
func ExitCode(err error) int {
	var e *ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &e):
		return e.Code
	}
	return 1
}
