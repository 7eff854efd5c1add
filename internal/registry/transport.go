package registry

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"

	"wherry.dev/wherry/internal/version"
)

// limitTransport gives up on a registry that does not answer; a download that moves may take any time.
func (p *Pool) limitTransport(c *http.Client) error {
	t, ok := c.Transport.(*http.Transport)
	if !ok {
		return nil
	}
	t.DialContext = (&net.Dialer{Timeout: 15 * time.Second, KeepAlive: 30 * time.Second}).DialContext
	t.ResponseHeaderTimeout = 60 * time.Second
	t.TLSHandshakeTimeout = 15 * time.Second
	t.MaxIdleConnsPerHost = 8
	t.MaxResponseHeaderBytes = 1 << 20
	c.Transport = patient{t, p.o.Pause}
	return nil
}

// patient makes a request again that a registry was too busy for, after the time that it names, or a growing one.
type patient struct {
	next  http.RoundTripper
	pause time.Duration
}

func (p patient) RoundTrip(r *http.Request) (*http.Response, error) {
	wait := p.pause
	for try := 1; ; try++ {
		resp, err := p.next.RoundTrip(r)
		if err != nil || try == tries || r.Method != http.MethodGet && r.Method != http.MethodHead ||
			resp.StatusCode != http.StatusTooManyRequests && resp.StatusCode != http.StatusServiceUnavailable {
			return resp, err
		}
		after := wait
		if seconds, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && seconds >= 0 {
			after = time.Duration(seconds) * time.Second
		}
		if after > time.Minute {
			return resp, nil // nobody waits that long without a word
		}
		resp.Body.Close()
		select {
		case <-time.After(after):
			wait *= 2
		case <-r.Context().Done():
			return nil, context.Cause(r.Context())
		}
	}
}

// get asks the registry for something small that has no place in a resolver.
func (c *Client) get(ctx context.Context, path string, query url.Values, scope string) (*http.Response, error) {
	hosts, err := c.hosts()
	if err != nil {
		return nil, err
	}
	host := hosts[len(hosts)-1]
	address := url.URL{Scheme: host.Scheme, Host: host.Host, Path: host.Path + path, RawQuery: query.Encode()}
	if scope != "" {
		ctx = docker.WithScope(ctx, scope)
	}
	client := *host.Client
	client.Timeout = 60 * time.Second
	var responses []*http.Response
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, address.String(), nil)
		if err != nil {
			return nil, err
		}
		req.Header.Set("User-Agent", "wherry/"+version.Version)
		if err := c.auth.Authorize(ctx, req); err != nil {
			return nil, err
		}
		resp, err := client.Do(req)
		if err != nil {
			return nil, err
		}
		switch resp.StatusCode {
		case http.StatusOK:
			return resp, nil
		case http.StatusUnauthorized:
			resp.Body.Close()
			responses = append(responses, resp)
			if err := c.auth.AddResponses(ctx, responses); err != nil {
				return nil, err
			}
		case http.StatusForbidden:
			resp.Body.Close()
			return nil, fmt.Errorf("the registry answers %s: %w", resp.Status, docker.ErrInvalidAuthorization)
		case http.StatusNotFound:
			resp.Body.Close()
			return nil, errdefs.ErrNotFound
		default:
			resp.Body.Close()
			return nil, fmt.Errorf("the registry answers %s", resp.Status)
		}
	}
}
