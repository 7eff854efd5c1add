package client

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"syscall"
)

// dial connects to the engine, starting the usual one when nobody listens.
func (c *Client) dial(ctx context.Context) (net.Conn, error) {
	if c.secure != nil {
		return c.secure.dial(ctx)
	}
	if c.remote != nil {
		return c.remote.dial(ctx)
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", c.path)
	if err == nil || !c.autoStart || !nobodyListens(err) {
		return conn, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.started {
		return d.DialContext(ctx, "unix", c.path)
	}
	conn, err = startEngine(ctx, c.path)
	c.started = err == nil
	return conn, err
}

// Dial connects to the engine for other protocols than this client's. Errors say what to do.
func (c *Client) Dial(ctx context.Context) (net.Conn, error) {
	conn, err := c.dial(ctx)
	if err != nil {
		return nil, c.explain(err)
	}
	return conn, nil
}

func nobodyListens(err error) bool {
	return errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ECONNREFUSED)
}

// explain makes of a failed connection a line that says what to do.
func (c *Client) explain(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err // without the made-up address of the request
	}
	if c.secure != nil {
		if said := c.secure.explainTLS(err); said != nil {
			return said
		}
	}
	var op *net.OpError
	if !errors.As(err, &op) || op.Op != "dial" {
		if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
			return err
		}
		var start *startError
		if errors.As(err, &start) {
			return err
		}
		var file *fs.PathError
		if errors.As(err, &file) && file.Op == "read" { // what is sent could not be read, which is nothing of the engine's
			return file
		}
		return fmt.Errorf("speak to the engine at %s: %w", c.Host(), err)
	}
	switch {
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		if os.Geteuid() != 0 {
			return fmt.Errorf("user %d may not use the engine at %s: only root, the engine's own user and members of its group (engine.group) may; try sudo", os.Geteuid(), c.Host())
		}
		return fmt.Errorf("the engine at %s may not be reached, although this is root: %w", c.Host(), err)
	case errors.Is(err, syscall.ENOENT):
		return fmt.Errorf("no engine at %s: there is no such socket; start one with wherryd --host %s", c.Host(), c.Host())
	case errors.Is(err, syscall.ECONNREFUSED) && c.secure != nil:
		return fmt.Errorf("no engine at %s: nobody listens there; start one with wherryd --host %s --tlscacert … --tlscert … --tlskey …", c.Host(), c.Host())
	case errors.Is(err, syscall.ECONNREFUSED) && !isSocket(c.path):
		return fmt.Errorf("no engine at %s: that is no socket; an engine's is usually %s", c.Host(), DefaultHost)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("no engine at %s: nobody listens on that socket any more; start one with wherryd --host %s", c.Host(), c.Host())
	}
	return fmt.Errorf("connect to the engine at %s: %w", c.Host(), err)
}

func isSocket(path string) bool {
	fi, err := os.Stat(path)
	return err != nil || fi.Mode().Type() == os.ModeSocket
}
