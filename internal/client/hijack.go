package client

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"time"
)

// Hijacked is a connection that attach and exec took over: what is written is input, what is read is output.
type Hijacked struct {
	Conn   net.Conn
	Reader *bufio.Reader // reads from Conn, beginning with what came with the header
	Header http.Header   // of the answer
}

// CloseWrite says that no more input comes.
func (h *Hijacked) CloseWrite() error {
	if c, ok := h.Conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return nil
}

// Close ends the connection.
func (h *Hijacked) Close() error { return h.Conn.Close() }

// Hijack does a request whose connection becomes a stream. It ends with the context until it is established, not after.
func (c *Client) Hijack(ctx context.Context, r Request) (*Hijacked, error) {
	if r.Method == "" {
		r.Method = http.MethodPost
	}
	req, err := newRequest(ctx, r)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", "tcp")
	began := time.Now()
	conn, err := c.dial(ctx)
	if err != nil {
		return nil, c.explain(err)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if err := req.Write(conn); err != nil {
		conn.Close()
		return nil, fmt.Errorf("send %s %s: %w", r.Method, r.Path, err)
	}
	reader := bufio.NewReaderSize(conn, 64<<10)
	res, err := http.ReadResponse(reader, req)
	c.trace(r, res, began)
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("read the engine's answer to %s %s: %w", r.Method, r.Path, err)
	}
	if res.StatusCode >= 400 {
		defer conn.Close()
		return nil, readError(res)
	}
	return &Hijacked{Conn: conn, Reader: reader, Header: res.Header}, nil
}
