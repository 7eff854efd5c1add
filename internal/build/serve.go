package build

import (
	"context"
	"errors"
	"io"
	"log"
	"net/http"
	"strings"
	"time"

	"golang.org/x/net/http2"
)

// ServeHTTP speaks BuildKit's protocol: on /grpc and /session by taking a connection over, else on HTTP/2 as it comes.
func (b *Builder) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e, err := b.start(r.Context())
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	switch {
	case r.ProtoMajor == 2:
		e.grpc.ServeHTTP(w, r)
	case strings.HasSuffix(r.URL.Path, "/session"):
		ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
		defer cancel()
		if err := e.sessions.HandleHTTPRequest(ctx, w, r); err != nil && !errors.Is(err, context.Canceled) {
			b.o.Log(err)
		}
	default:
		e.upgrade(w, r)
	}
}

// upgrade answers a request for h2c, and speaks HTTP/2 on its connection from there on.
func (e *engine) upgrade(w http.ResponseWriter, r *http.Request) {
	if proto := r.Header.Get("Upgrade"); proto != "h2c" {
		http.Error(w, "this address takes a connection over for gRPC: ask for the upgrade to h2c", http.StatusBadRequest)
		return
	}
	hijacker, ok := w.(http.Hijacker)
	if !ok {
		http.Error(w, "this connection cannot be taken over", http.StatusNotImplemented)
		return
	}
	conn, _, err := hijacker.Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")); err != nil {
		return
	}
	(&http2.Server{}).ServeConn(conn, &http2.ServeConnOpts{Context: context.WithoutCancel(r.Context()), Handler: e.grpc,
		BaseConfig: &http.Server{ErrorLog: log.New(io.Discard, "", 0), ReadHeaderTimeout: time.Minute}}) // clients that go away are no news
}
