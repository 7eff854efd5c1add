// Package client speaks the Engine API over a unix socket, TLS or ssh, and starts the engine when nobody listens on the usual one.
//
// A Client may be used from several goroutines. It owns its idle connections; Close gives them back.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"wherry.dev/wherry/internal/terse"
)

// The engine's directories and socket when nothing else is said.
const (
	DefaultState = "/run/wherry"
	DefaultHost  = "unix://" + DefaultState + "/wherry.sock"
)

// Client of one engine.
type Client struct {
	path      string // of the socket
	secure    *secure
	remote    *remote
	autoStart bool
	http      *http.Client

	// Trace is told about each request, where it is not nil. It is to be set before the first one.
	Trace func(method, path string, status int, took time.Duration)

	mu      sync.Mutex // one dial at a time tries to start the engine
	started bool
}

// New makes a client of the engine at host, unix:///path, tcp://host:port or ssh://[user@]host[:port][/path]. Without a host it is the one in WHERRY_HOST, then in DOCKER_HOST,
// then the usual one, which is started when nobody listens. Nothing is dialled yet.
func New(host string) (*Client, error) { return NewTLS(host, TLS{}) }

// NewTLS is New with files for tcp://.
func NewTLS(host string, files TLS) (*Client, error) {
	host, source := namedHost(host)
	c := &Client{autoStart: host == ""}
	if host == "" {
		host = DefaultHost
	}
	var err error
	if address, ok := tcpAddress(host); ok {
		if source == "DOCKER_HOST" && os.Getenv("DOCKER_TLS_VERIFY") == "" { // docker's client would speak without TLS
			return nil, fmt.Errorf("%s names the engine at %s, and engines are spoken to over TLS only: set DOCKER_TLS_VERIFY=1 and DOCKER_CERT_PATH, or name another one with --host or WHERRY_HOST", source, host)
		}
		c.secure = &secure{address: address, files: files.complete()}
	} else if strings.HasPrefix(host, "ssh://") {
		c.remote, err = sshAddress(host)
	} else {
		c.path, err = socketPath(host)
	}
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", source, host, err)
	}
	c.http = &http.Client{Transport: &http.Transport{
		DialContext:        func(ctx context.Context, _, _ string) (net.Conn, error) { return c.dial(ctx) },
		DisableCompression: true,
		MaxIdleConns:       8, MaxIdleConnsPerHost: 8,
	}}
	return c, nil
}

// namedHost is the engine's address where a flag or the environment names it, and what does.
func namedHost(host string) (address, source string) {
	if host != "" {
		return host, "--host"
	}
	if host = os.Getenv("WHERRY_HOST"); host != "" {
		return host, "WHERRY_HOST"
	}
	if host = os.Getenv("DOCKER_HOST"); host != "" {
		return host, "DOCKER_HOST"
	}
	return "", ""
}

func socketPath(host string) (string, error) {
	scheme, path, ok := strings.Cut(host, "://")
	switch {
	case ok && scheme == "unix" && filepath.IsAbs(path):
		return filepath.Clean(path), nil
	case !ok && filepath.IsAbs(host):
		return filepath.Clean(host), nil
	case ok && (scheme == "http" || scheme == "https"):
		return "", errors.New("give an engine's address as tcp://host:port, or its socket as unix:///path")
	}
	return "", errors.New("give the engine's socket as unix:///absolute/path, or ssh://user@host or tcp://host:port for another machine's")
}

// Host is the address that the client speaks to, as unix:///path, tcp://host:port or ssh://host.
func (c *Client) Host() string {
	if c.remote != nil {
		return c.remote.host
	}
	if c.secure != nil {
		return "tcp://" + c.secure.address
	}
	return "unix://" + c.path
}

// DoNotStart makes requests fail when no engine runs, also at the usual address. It is for the time before the first request.
func (c *Client) DoNotStart() { c.autoStart = false }

// Close ends the idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Request of Stream and Hijack.
type Request struct {
	Method string // "" is GET
	Path   string // with its leading slash, names in it escaped by url.PathEscape
	Query  url.Values
	Header http.Header
	Body   io.Reader
}

// Error is what the engine answered instead of what was asked for.
type Error struct {
	Status  int
	Message string
}

func (e *Error) Error() string { return e.Message }

// Status is the HTTP status of an engine's error, 0 when err is none.
func Status(err error) int {
	var e *Error
	if errors.As(err, &e) {
		return e.Status
	}
	return 0
}

// IsNotFound tells an engine's "there is no such thing" from other errors.
func IsNotFound(err error) bool { return Status(err) == http.StatusNotFound }

// Do does a request and decodes the answer into out.
func (c *Client) Do(ctx context.Context, r Request, out any) error { return c.call(ctx, r, out) }

// Get decodes the answer into out.
func (c *Client) Get(ctx context.Context, path string, query url.Values, out any) error {
	return c.call(ctx, Request{Path: path, Query: query}, out)
}

// Post sends body as JSON (nil sends nothing) and decodes the answer into out, if there is one and out is not nil.
func (c *Client) Post(ctx context.Context, path string, query url.Values, body, out any) error {
	return c.send(ctx, Request{Method: http.MethodPost, Path: path, Query: query}, body, out)
}

// Put is Post with another method; a body that is an io.Reader is sent as it is.
func (c *Client) Put(ctx context.Context, path string, query url.Values, body, out any) error {
	return c.send(ctx, Request{Method: http.MethodPut, Path: path, Query: query}, body, out)
}

// Delete decodes the answer into out, if there is one and out is not nil.
func (c *Client) Delete(ctx context.Context, path string, query url.Values, out any) error {
	return c.call(ctx, Request{Method: http.MethodDelete, Path: path, Query: query}, out)
}

// Head gives the answer's header.
func (c *Client) Head(ctx context.Context, path string, query url.Values) (http.Header, error) {
	res, err := c.Stream(ctx, Request{Method: http.MethodHead, Path: path, Query: query})
	if err != nil {
		return nil, err
	}
	res.Body.Close()
	return res.Header, nil
}

func (c *Client) send(ctx context.Context, r Request, body, out any) error {
	switch b := body.(type) {
	case nil:
	case io.Reader:
		r.Body = b
	default:
		data, err := terse.Marshal(body)
		if err != nil {
			return fmt.Errorf("encode the request %s %s: %w", r.Method, r.Path, err)
		}
		r.Body = bytes.NewReader(data)
		r.Header = http.Header{"Content-Type": {"application/json"}}
	}
	return c.call(ctx, r, out)
}

func (c *Client) call(ctx context.Context, r Request, out any) error {
	res, err := c.Stream(ctx, r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if out == nil || res.StatusCode == http.StatusNoContent || res.StatusCode == http.StatusNotModified {
		_, _ = io.Copy(io.Discard, res.Body) // to the end, so that the connection is used again
		return nil
	}
	if err := json.NewDecoder(res.Body).Decode(out); err != nil {
		return fmt.Errorf("read the engine's answer to %s %s: %w", method(r), r.Path, err)
	}
	_, _ = io.Copy(io.Discard, res.Body)
	return nil
}

// Stream does a request and hands out its answer as it comes; the caller closes the body. Status codes of 400 and more become an Error.
func (c *Client) Stream(ctx context.Context, r Request) (*http.Response, error) {
	req, err := newRequest(ctx, r)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	res, err := c.http.Do(req)
	c.trace(r, res, began)
	if err != nil {
		return nil, c.explain(err)
	}
	if res.StatusCode >= 400 {
		defer res.Body.Close()
		return nil, readError(res)
	}
	return res, nil
}

func (c *Client) trace(r Request, res *http.Response, began time.Time) {
	if c.Trace == nil {
		return
	}
	status := 0
	if res != nil {
		status = res.StatusCode
	}
	target := r.Path
	if len(r.Query) > 0 {
		target += "?" + r.Query.Encode()
	}
	c.Trace(method(r), target, status, time.Since(began))
}

func method(r Request) string {
	if r.Method == "" {
		return http.MethodGet
	}
	return r.Method
}

func newRequest(ctx context.Context, r Request) (*http.Request, error) {
	target := "http://wherry" + r.Path
	if len(r.Query) > 0 {
		target += "?" + r.Query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method(r), target, r.Body)
	if err != nil {
		return nil, fmt.Errorf("request %s %s: %w", method(r), r.Path, err)
	}
	for name, values := range r.Header {
		req.Header[name] = values
	}
	return req, nil
}

// readError makes an Error of an answer; its body is small JSON, or text from somebody between.
func readError(res *http.Response) error {
	data, _ := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	var body struct {
		Message string `json:"message"`
	}
	if json.Unmarshal(data, &body) != nil || body.Message == "" {
		body.Message = strings.TrimSpace(string(data))
	}
	if body.Message == "" {
		body.Message = "the engine answered " + res.Status
	}
	return &Error{Status: res.StatusCode, Message: body.Message}
}
