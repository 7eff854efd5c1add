package docker

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"wherry.dev/wherry/internal/access"
	containers "wherry.dev/wherry/internal/container"
	"wherry.dev/wherry/internal/version"
)

// apiVersion is major*1000+minor, so that versions compare as numbers.
type apiVersion int

func parseAPIVersion(s string) (apiVersion, bool) {
	major, minor, ok := strings.Cut(s, ".")
	if !ok {
		return 0, false
	}
	a, err1 := strconv.ParseUint(major, 10, 8)
	b, err2 := strconv.ParseUint(minor, 10, 8)
	return apiVersion(a*1000 + b), err1 == nil && err2 == nil
}

// unversioned is of a path without a version: what is new since any version is there, and so is what newer versions took away.
const unversioned apiVersion = 1 << 20

func (v apiVersion) String() string {
	if v == unversioned {
		return version.API
	}
	return fmt.Sprintf("%d.%d", v/1000, v%1000)
}

// without says whether clients of this version know an answer without the fields that a version took away.
func (v apiVersion) without(since apiVersion) bool { return v >= since && v != unversioned }

// clientVersion is the API version that the request was made for.
func clientVersion(ctx context.Context) apiVersion {
	if v := visitOf(ctx); v != nil {
		return v.version
	}
	return 0
}

// saidByLibraries is the version that skopeo, Podman and Buildah of before 2024 name whatever they speak to (containers/image, docker-daemon:).
// Of the few things that they ask for it is the same as the oldest that there is.
const saidByLibraries apiVersion = 1022

// cutVersion takes /v1.xx off a path and checks it.
func cutVersion(path string) (rest string, v apiVersion, err error) {
	newest, _ := parseAPIVersion(version.API)
	oldest, _ := parseAPIVersion(version.MinAPI)
	if len(path) < 3 || path[1] != 'v' || path[2] < '0' || path[2] > '9' {
		return path, unversioned, nil
	}
	word, rest, _ := strings.Cut(path[2:], "/")
	v, ok := parseAPIVersion(word)
	switch {
	case !ok:
		return "", 0, fmt.Errorf("API version %q in the path is no version: %w", word, errdefs.ErrInvalidArgument)
	case v > newest:
		return "", 0, classed(errdefs.ErrInvalidArgument, "client version %s is too new. Maximum supported API version is %s", word, version.API)
	case v >= saidByLibraries && v < oldest:
		v = oldest
	case v < oldest:
		return "", 0, classed(errdefs.ErrInvalidArgument,
			"client version %s is too old. Minimum supported API version is %s, please upgrade your client to a newer version", word, version.MinAPI)
	}
	return "/" + rest, v, nil
}

// middleware does what every request needs: who asks, which version, headers, a net below panics, a line in the log.
func (s *Server) middleware(next http.Handler) http.Handler {
	server := "Wherry/" + version.Version + " (" + runtime.GOOS + ")"
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w := &response{ResponseWriter: rw, patience: s.patience}
		h := w.Header()
		h.Set("Api-Version", version.API)
		h.Set("Docker-Experimental", "true")
		h.Set("Ostype", "linux")
		h.Set("Server", server)
		began := time.Now()
		var v *visit
		var err error
		defer func() { s.recordEnd(r, v, w) }()
		defer func() {
			if p := recover(); p != nil && p != http.ErrAbortHandler {
				s.log.Error("request panicked", "method", r.Method, "path", r.URL.Path, "panic", p, "stack", string(debug.Stack()))
				writeError(w, classed(errdefs.ErrInternal, "%s %s: the engine met an error of its own (%v); its log has more", r.Method, r.URL.Path, p))
			}
			if s.log.Enabled(r.Context(), slog.LevelDebug) {
				s.log.Debug("request", "method", r.Method, "path", r.URL.Path, "status", w.status, "took", time.Since(began))
			}
		}()
		if v, err = s.visit(r); err == nil && foreign(r) {
			err = classed(errdefs.ErrPermissionDenied, "a page of another site asks by way of a browser: the certificate in the browser is not for it")
		}
		w.before = func() {
			s.count(r, v, w, time.Since(began))
			s.record(r, v, w)
		}
		if err != nil {
			writeError(w, err)
			return
		}
		rest, version, err := cutVersion(r.URL.Path)
		if err != nil {
			writeError(w, err)
			return
		}
		v.version, v.path = version, rest
		r, endSpan := s.traced(r, v, w)
		defer endSpan()
		ctx := containers.AskedBy(r.Context(), clientOf(v.caller))
		ctx = access.With(ctx, access.Scope{Owner: v.caller.ID(), Limited: v.may == access.Own})
		r = r.WithContext(context.WithValue(ctx, visitKey{}, v))
		if rest != r.URL.Path {
			u := *r.URL
			if _, raw, ok := strings.Cut(strings.TrimPrefix(u.RawPath, "/"), "/"); ok {
				u.RawPath = "/" + raw
			}
			u.Path = rest
			r.URL = &u
		}
		next.ServeHTTP(w, r)
	})
}

// foreign says that a browser asks for a page that is not this engine's (https://www.w3.org/TR/fetch-metadata, RFC 6454): it shows its user's certificate to
// whatever address a page names, and asks the user nothing.
func foreign(r *http.Request) bool {
	if r.TLS == nil {
		return false // no page reaches a unix socket
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "same-origin", "none":
		return false
	case "":
		origin, err := url.Parse(r.Header.Get("Origin"))
		return err != nil || origin.String() != "" && !strings.EqualFold(origin.Host, r.Host)
	}
	return true
}

// count notes an answer for Prometheus.
func (s *Server) count(r *http.Request, v *visit, w *response, took time.Duration) {
	if s.metrics == nil {
		return
	}
	route := "other"
	switch {
	case v != nil && v.route != "":
		route = v.route
	case isBuildKit(r):
		route = "buildkit"
	}
	s.metrics.Request(r.Method, route, w.status, took)
}

// response remembers whether an answer has begun, so that a late error does not write a second one.
type response struct {
	http.ResponseWriter
	status int    // 0 until the header is written
	before func() // is called before it is; nil: nothing

	patience time.Duration // with a body of JSON; 0: as long as it takes

	failure string // the error that the answer is
	late    string // an error after the answer had begun
	seq     uint64 // in the audit log
}

func (w *response) begin(code int) {
	if w.status != 0 {
		return
	}
	w.status = code
	if w.before != nil {
		w.before()
	}
}

func (w *response) WriteHeader(code int) {
	w.begin(code)
	w.ResponseWriter.WriteHeader(code)
}

func (w *response) Write(p []byte) (int, error) {
	w.begin(http.StatusOK)
	return w.ResponseWriter.Write(p)
}

func (w *response) Flush() {
	w.begin(http.StatusOK)
	if f, ok := w.ResponseWriter.(http.Flusher); ok {
		f.Flush()
	}
}

func (w *response) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	h, ok := w.ResponseWriter.(http.Hijacker)
	if !ok {
		return nil, nil, classed(errdefs.ErrNotImplemented, "this connection cannot be taken over for a stream")
	}
	w.begin(http.StatusSwitchingProtocols)
	return h.Hijack()
}
