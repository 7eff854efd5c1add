package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"strings"
	"unicode"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"

	"wherry.dev/wherry/internal/version"
)

// request is one question to an endpoint.
type request struct {
	method string
	url    *url.URL
	header http.Header
	scope  string                                  // for a token, such as repository:team/app:pull; "": none
	body   func(ctx context.Context) io.ReadCloser // nil: none; may be called again
	size   int64                                   // of the body
}

// at is a request for something below the repository.
func (e *endpoint) at(method string, parts ...string) request {
	u := e.base
	// The path holds names that are checked already (ref, digest), none of which has to be escaped.
	u.Path = path.Join(append([]string{u.Path, e.name}, parts...)...)
	if e.ns != "" {
		u.RawQuery = url.Values{"ns": {e.ns}}.Encode()
	}
	return request{method: method, url: &u, header: http.Header{}, scope: e.scope("pull")}
}

// scope names the repository as a token service does: without the API's path.
// https://distribution.github.io/distribution/spec/auth/scope/
func (e *endpoint) scope(actions string) string {
	_, below, _ := strings.Cut(e.path+"/", "/v2/")
	return "repository:" + below + e.name + ":" + actions
}

// do asks, logs in where it is told to, and gives whatever answer is not "unauthorized".
func (e *endpoint) do(ctx context.Context, r request) (*http.Response, error) {
	if r.scope != "" {
		for s := range strings.SplitSeq(r.scope, " ") {
			ctx = docker.WithScope(ctx, s)
		}
	}
	var refused []*http.Response
	for {
		req, err := http.NewRequestWithContext(ctx, r.method, r.url.String(), nil)
		if err != nil {
			return nil, fmt.Errorf("address %q: %w: %w", clip(r.url.String()), withoutQuery(err), errdefs.ErrInvalidArgument)
		}
		req.Header = r.header.Clone()
		req.Header.Set("User-Agent", "wherry/"+version.Version)
		if r.body != nil {
			req.GetBody = func() (io.ReadCloser, error) { return r.body(ctx), nil }
			req.Body, req.ContentLength = r.body(ctx), r.size
		}
		if err := e.auth.Authorize(ctx, req); err != nil {
			return nil, err
		}
		resp, err := e.client.Do(req)
		if err != nil {
			if cause := context.Cause(ctx); cause != nil {
				return nil, cause
			}
			return nil, withoutQuery(err)
		}
		if resp.StatusCode != http.StatusUnauthorized {
			return resp, nil
		}
		drain(resp)
		refused = append(refused, resp)
		if err := e.auth.AddResponses(ctx, refused); err != nil {
			return nil, err
		}
	}
}

// ask is do for requests with few good answers; others are errors.
func (e *endpoint) ask(ctx context.Context, r request, good ...int) (*http.Response, error) {
	resp, err := e.do(ctx, r)
	if err != nil {
		return nil, err
	}
	for _, status := range good {
		if resp.StatusCode == status {
			return resp, nil
		}
	}
	defer drain(resp)
	return nil, newStatusError(resp)
}

// drain lets a connection be used again: the rest of a small answer is read.
func drain(resp *http.Response) {
	_, _ = io.CopyN(io.Discard, resp.Body, 4<<10)
	resp.Body.Close()
}

// StatusError is an answer that a request cannot go on with.
type StatusError struct {
	Status int
	Said   string // the registry's own words, printable, in one short line; may be ""
}

func (e *StatusError) Error() string {
	text := fmt.Sprintf("the registry answers %d %s", e.Status, http.StatusText(e.Status))
	if e.Said != "" {
		text += " (" + e.Said + ")"
	}
	return strings.TrimSpace(text)
}

// Unwrap gives the class of the status.
func (e *StatusError) Unwrap() error {
	switch {
	case e.Status == http.StatusNotFound:
		return errdefs.ErrNotFound
	case e.Status == http.StatusForbidden:
		return docker.ErrInvalidAuthorization
	case e.Status >= 500 || e.Status == http.StatusTooManyRequests || e.Status == http.StatusRequestTimeout:
		return errdefs.ErrUnavailable
	}
	return errdefs.ErrFailedPrecondition
}

// newStatusError reads what a registry says of an error.
// https://github.com/opencontainers/distribution-spec/blob/main/spec.md#error-codes
func newStatusError(resp *http.Response) *StatusError {
	var said struct {
		Errors []struct{ Code, Message string }
	}
	e := &StatusError{Status: resp.StatusCode}
	if b, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10)); err == nil && json.Unmarshal(b, &said) == nil && len(said.Errors) > 0 {
		first := said.Errors[0]
		e.Said = clip(strings.TrimPrefix(first.Code+": "+first.Message, ": "))
	}
	return e
}

// clip makes a stranger's words one short printable line.
func clip(s string) string {
	const most = 200
	out := strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, s[:min(len(s), 4*most)])
	if short := []rune(out); len(short) > most {
		out = string(short[:most]) + "…"
	}
	return strings.TrimSpace(out)
}

// first asks endpoints one after the other until one has an answer. Of their errors the registry's own counts; those of mirrors are told
// beside it.
func first[T any](endpoints []*endpoint, ask func(*endpoint) (T, error)) (T, error) {
	var none T
	var own error
	var mirrors []string
	for i, e := range endpoints {
		v, err := ask(e)
		if err == nil || errors.Is(err, context.Canceled) {
			return v, err
		}
		switch {
		case !e.mirror, own == nil && i == len(endpoints)-1:
			own = err
		case !errdefs.IsNotFound(err):
			mirrors = append(mirrors, fmt.Sprintf("mirror %s: %v", e.host, err))
		}
	}
	switch {
	case own == nil:
		return none, errdefs.ErrNotFound
	case len(mirrors) > 0:
		return none, &mirroredError{own, strings.Join(mirrors, "; ")}
	}
	return none, own
}

// mirroredError is the registry's error, with those of its mirrors beside it.
type mirroredError struct {
	error
	mirrors string
}

func (e *mirroredError) Error() string { return e.error.Error() + " (" + e.mirrors + ")" }
func (e *mirroredError) Unwrap() error { return e.error }
