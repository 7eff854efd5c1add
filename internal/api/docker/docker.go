// Package docker serves the Docker Engine API (versions 1.24 to 1.56) over unix sockets, and over TLS to clients with a certificate.
//
// It is an edge: it decodes requests, calls the services, and encodes their answers. It keeps no state but the open connections.
// Routes are a table per noun (containers.go, images.go, …); what depends on a client's API version stands in shapes.go, what turns
// errors into status codes in errors.go. Beside Docker's routes it has Wherry's own under /wherry/ (wherry.go).
//
// A Server is safe for many goroutines.
package docker

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"wherry.dev/wherry/internal/access"
	"wherry.dev/wherry/internal/audit"
	"wherry.dev/wherry/internal/container"
	"wherry.dev/wherry/internal/disk"
	"wherry.dev/wherry/internal/event"
	"wherry.dev/wherry/internal/files"
	"wherry.dev/wherry/internal/image"
	"wherry.dev/wherry/internal/metrics"
	"wherry.dev/wherry/internal/monitor"
	"wherry.dev/wherry/internal/network"
	"wherry.dev/wherry/internal/secret"
	"wherry.dev/wherry/internal/settings"
	"wherry.dev/wherry/internal/tracing"
	"wherry.dev/wherry/internal/volume"
)

// Services are what the API is an adapter of.
type Services struct {
	Containers *container.Service
	Images     *image.Service
	Networks   *network.Service
	Volumes    *volume.Service
	Secrets    *secret.Service
	Configs    *secret.Service // the same, but they may be read again
	Files      *files.Service
	Disk       *disk.Service
	Cleaner    *image.Cleaner
	Monitor    *monitor.Service
	Events     *event.Bus
	Builder    Builder
	Audit      *audit.Log // nil: nothing is written down
	Metrics    *metrics.Collector
	Tracer     *tracing.Tracer // nil: no spans are wanted
}

// About says what engine this is, for version, info and /wherry/state.
type About struct {
	ID           string // of this engine, kept across restarts
	Root, State  string // directories
	Hosts        []string
	CgroupParent string
	Insecure     []string // registries that may be spoken to without TLS
	Started      time.Time
	Access       *access.Rules // who may ask; nil: root, the engine's user and containers
	AuditReads   bool          // also requests that change nothing are written down
	Debug        bool          // the log has details
	Containers   settings.Containers
}

// Server answers HTTP requests. The zero value is not usable: see New.
type Server struct {
	http    http.Server
	log     *slog.Logger
	access  atomic.Pointer[access.Rules]
	audit   *audit.Log
	metrics *metrics.Collector
	tracer  *tracing.Tracer
	closing chan struct{} // closed when Close begins: long answers end

	containers *container.Service // knows whose ids a container's are

	patience time.Duration // with bodies of JSON

	mu       sync.Mutex
	hijacked map[net.Conn]struct{} // connections that net/http no longer knows
	closed   bool

	auditReads bool
}

// New builds a server; Serve starts it.
func New(s Services, about About, log *slog.Logger) *Server {
	srv := &Server{log: log, audit: s.Audit, metrics: s.Metrics, tracer: s.Tracer, containers: s.Containers, auditReads: about.AuditReads, closing: make(chan struct{}),
		patience: time.Minute, hijacked: map[net.Conn]struct{}{}}
	srv.access.Store(about.Access)
	srv.http = http.Server{
		Handler:           srv.middleware(routes(s, about, srv)),
		ReadHeaderTimeout: 30 * time.Second,
		IdleTimeout:       5 * time.Minute,
		MaxHeaderBytes:    256 << 10, // X-Registry-Config carries every registry's credentials
		ConnContext:       srv.withPeer,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	srv.http.Protocols = new(http.Protocols)
	srv.http.Protocols.SetHTTP1(true)
	srv.http.Protocols.SetUnencryptedHTTP2(true) // BuildKit's clients speak it
	return srv
}

// SetAccess has other rules hold from the next request on; those under way go on by the ones that they came under.
func (s *Server) SetAccess(rules *access.Rules) { s.access.Store(rules) }

// Serve answers the listener's connections until Close. Contexts of requests descend from ctx.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	s.http.BaseContext = func(l net.Listener) context.Context {
		if t, ok := l.(truster); ok {
			return context.WithValue(ctx, trusterKey{}, t)
		}
		return ctx
	}
	if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Close stops listening, ends the answers that last (logs -f, events, attach, wait), gives the others until ctx ends to finish, and then
// cuts what is left.
func (s *Server) Close(ctx context.Context) error {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		close(s.closing)
	}
	for c := range s.hijacked {
		c.Close()
	}
	s.mu.Unlock()
	err := s.http.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return s.http.Close()
	}
	return err
}

// lasting makes a route whose answer ends when the server closes.
func (s *Server) lasting(h handle) handle {
	return func(w http.ResponseWriter, r *http.Request) error {
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		go func() {
			select {
			case <-s.closing:
				cancel()
			case <-ctx.Done():
			}
		}()
		return h(w, r.WithContext(ctx))
	}
}

// adopt keeps a hijacked connection so that Close can end it; drop closes it.
func (s *Server) adopt(c net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		c.Close()
		return
	}
	s.hijacked[c] = struct{}{}
}

func (s *Server) drop(c net.Conn) {
	s.mu.Lock()
	delete(s.hijacked, c)
	s.mu.Unlock()
	c.Close()
}
