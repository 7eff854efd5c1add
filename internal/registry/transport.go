package registry

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
)

// maxTransports is how many registries' connections are kept.
const maxTransports = 64

// transport gives the connections to a host. They are kept as long as the host's settings are the same.
func (p *Pool) transport(s *settings) (*http.Transport, error) {
	key := s.fingerprint()
	p.mu.Lock()
	defer p.mu.Unlock()
	if t := p.transports[key]; t != nil {
		return t, nil
	}
	t, err := p.newTransport(s)
	if err != nil {
		return nil, err
	}
	if len(p.transports) >= maxTransports {
		p.dropIdle()
	}
	p.transports[key] = t
	return t, nil
}

// dropIdle is called with mu held. Requests that are under way go on.
func (p *Pool) dropIdle() {
	for _, t := range p.transports {
		t.CloseIdleConnections()
	}
	clear(p.transports)
}

// Close ends the connections that are idle.
func (p *Pool) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dropIdle()
}

func (s *settings) fingerprint() [sha256.Size]byte {
	h := sha256.New()
	fmt.Fprintf(h, "%q %v %v", s.host, s.dialTimeout, s.tls.unchecked)
	for _, a := range s.tls.authorities {
		fmt.Fprintf(h, " ca %q", a)
	}
	for _, c := range s.tls.clients {
		fmt.Fprintf(h, " client %q %q", c[0], c[1])
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// newTransport gives up on a registry that does not answer; a download that moves may take any time.
func (p *Pool) newTransport(s *settings) (*http.Transport, error) {
	config, err := s.tls.config()
	if err != nil {
		return nil, err
	}
	dial := s.dialTimeout
	if dial == 0 {
		dial = 15 * time.Second
	}
	return &http.Transport{
		Proxy:                  p.proxy,
		OnProxyConnectResponse: tunnelled,
		DialContext:            (&net.Dialer{Timeout: dial, KeepAlive: 30 * time.Second, ControlContext: refuseInward}).DialContext,
		TLSClientConfig:        config,
		TLSHandshakeTimeout:    15 * time.Second,
		ExpectContinueTimeout:  time.Second,
		IdleConnTimeout:        30 * time.Second,
		MaxIdleConns:           16,
		MaxIdleConnsPerHost:    8,
		MaxResponseHeaderBytes: 256 << 10,
		DisableCompression:     true, // what comes is what has the digest
		ReadBufferSize:         64 << 10,
		WriteBufferSize:        64 << 10,
	}, nil
}

// tunnelled tells a proxy's refusal from a registry's.
func tunnelled(_ context.Context, _ *url.URL, _ *http.Request, resp *http.Response) error {
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	return &net.OpError{Op: "proxyconnect", Net: "tcp", Err: fmt.Errorf("it answers %s", clip(resp.Status))}
}

func (t *tlsSettings) config() (*tls.Config, error) {
	c := &tls.Config{InsecureSkipVerify: t.unchecked, MinVersion: tls.VersionTLS12}
	if len(t.authorities) > 0 {
		pool, err := x509.SystemCertPool()
		if err != nil {
			return nil, fmt.Errorf("read the machine's certificates: %w", err)
		}
		for _, pem := range t.authorities {
			if !pool.AppendCertsFromPEM(pem) {
				return nil, fmt.Errorf("a file of authorities has no certificate in it: %w", errdefs.ErrInvalidArgument)
			}
		}
		c.RootCAs = pool
	}
	for _, pair := range t.clients {
		certificate, err := tls.X509KeyPair(pair[0], pair[1])
		if err != nil {
			return nil, fmt.Errorf("client certificate: %w: %w", err, errdefs.ErrInvalidArgument)
		}
		c.Certificates = append(c.Certificates, certificate)
	}
	return c, nil
}

// answering gives up on a registry that does not begin to answer, that takes no more of what is sent, or whose answer stands still.
type answering struct {
	next     http.RoundTripper
	limit    time.Duration // to begin an answer, or to take a piece of what is sent
	patience time.Duration // for a trickle of the answer
}

// atTheEnd is how many times longer a registry may take for what it does with all that was sent.
const atTheEnd = 10

func (a answering) RoundTrip(r *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(r.Context())
	limit, empty := a.limit, r.Body == nil || r.Body == http.NoBody
	if empty && r.Method == http.MethodPut { // it ends an upload
		limit *= atTheEnd
	}
	late := fmt.Errorf("%s has not answered for %s: %w", r.URL.Host, limit, errdefs.ErrUnavailable)
	clock := &clock{timer: time.AfterFunc(limit, func() { cancel(late) })}
	r = r.Clone(ctx)
	if !empty {
		r.Body = &sending{r.Body, clock, a.limit}
	}
	resp, err := a.next.RoundTrip(r)
	clock.end()
	if err != nil {
		if context.Cause(ctx) == late {
			err = late
		}
		cancel(nil)
		return nil, err
	}
	resp.Body = &answer{ReadCloser: resp.Body, cancel: cancel, patience: a.patience, cause: func() error { return context.Cause(ctx) }}
	return resp, nil
}

// clock is the time until an answer: a body that is still being sent then does not wind it up again.
type clock struct {
	timer *time.Timer
	over  atomic.Bool
}

func (c *clock) end() {
	c.over.Store(true)
	c.timer.Stop()
}

func (c *clock) give(d time.Duration) {
	if c.timer.Reset(d); c.over.Load() {
		c.timer.Stop()
	}
}

// sending gives time anew with each piece that is taken, and more for what a registry does at the end with all of them. How long it takes
// to read a piece is not the registry's fault.
type sending struct {
	io.ReadCloser
	clock *clock
	limit time.Duration
}

func (s *sending) Read(b []byte) (int, error) {
	s.clock.timer.Stop()
	n, err := s.ReadCloser.Read(b)
	limit := s.limit
	if err != nil {
		limit *= atTheEnd
	}
	s.clock.give(limit)
	return n, err
}

// answer is an answer's body. It breaks off when too little of it has come for too long; the time in which nobody reads does not count. Its
// request's context ends with it.
type answer struct {
	io.ReadCloser
	patience time.Duration
	cancel   context.CancelCauseFunc
	cause    func() error // what has ended the request; nil: nothing

	quota int64         // bytes that have to come yet
	left  time.Duration // until when
}

func (a *answer) Read(b []byte) (int, error) {
	if a.quota <= 0 {
		a.quota, a.left = trickle, a.patience
	}
	stalled := fmt.Errorf("the registry has sent nothing for %s: %w", a.patience, errdefs.ErrUnavailable)
	timer := time.AfterFunc(a.left, func() { a.cancel(stalled) })
	began := time.Now()
	n, err := a.ReadCloser.Read(b)
	timer.Stop()
	if err != nil && !errors.Is(err, io.EOF) {
		if cause := a.cause(); cause != nil {
			err = cause
		}
	}
	a.left -= time.Since(began)
	a.quota -= int64(n)
	return n, err
}

func (a *answer) Close() error {
	err := a.ReadCloser.Close()
	a.cancel(nil)
	return err
}

// patient makes a request again that a registry was too busy for, after the time that it names, or a growing one, and one for reading
// whose connection broke. Requests with a body are made again where the body can be had again.
type patient struct {
	next  http.RoundTripper
	pause time.Duration
	tries int
}

func (p patient) RoundTrip(r *http.Request) (*http.Response, error) {
	wait := p.pause
	for try := 1; ; try++ {
		resp, err := p.next.RoundTrip(r)
		if try >= p.tries || !again(r, resp, err) {
			return resp, err
		}
		after := wait
		if resp != nil {
			if named, ok := retryAfter(resp.Header.Get("Retry-After"), time.Now()); ok {
				after = named
			}
			if after > time.Minute {
				return resp, nil // nobody waits that long without a word
			}
			_, _ = io.CopyN(io.Discard, resp.Body, 4<<10) // the connection is used again when the answer is small
			resp.Body.Close()
		}
		if r, err = anew(r); err != nil {
			return nil, err
		}
		select {
		case <-time.After(after):
			wait *= 2
		case <-r.Context().Done():
			return nil, context.Cause(r.Context())
		}
	}
}

// again says that a request may be made once more.
func again(r *http.Request, resp *http.Response, err error) bool {
	if r.Context().Err() != nil || r.Body != nil && r.Body != http.NoBody && r.GetBody == nil {
		return false
	}
	reads := r.Method == http.MethodGet || r.Method == http.MethodHead
	if err != nil {
		return reads && broken(err)
	}
	switch resp.StatusCode {
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		return true
	case http.StatusBadGateway, http.StatusGatewayTimeout:
		return reads
	}
	return false
}

func anew(r *http.Request) (*http.Request, error) {
	r = r.Clone(r.Context())
	if r.GetBody == nil {
		return r, nil
	}
	body, err := r.GetBody()
	r.Body = body
	return r, err
}

// broken says that a connection that stood has ended before its time.
func broken(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// retryAfter reads seconds, or a date. https://www.rfc-editor.org/rfc/rfc9110#field.retry-after
func retryAfter(s string, now time.Time) (time.Duration, bool) {
	if seconds, err := strconv.Atoi(s); err == nil && seconds >= 0 {
		return time.Duration(min(seconds, 1<<30)) * time.Second, true
	}
	if at, err := http.ParseTime(s); err == nil {
		return max(at.Sub(now), 0), true
	}
	return 0, false
}
