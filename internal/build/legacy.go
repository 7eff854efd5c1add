package build

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"strings"
	"sync"

	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"github.com/moby/buildkit/identity"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/solver/pb"
	"golang.org/x/sync/errgroup"

	"wherry.dev/wherry/internal/api/docker"
)

// Build carries out a build as Docker's API asks for it (POST /build), and returns the image's ID. say is told of the progress.
func (b *Builder) Build(ctx context.Context, q docker.BuildRequest, say func(docker.BuildMessage)) (string, error) {
	e, err := b.start(ctx)
	if err != nil {
		return "", err
	}
	ctx, done, err := b.cancels.enter(ctx, q.ID)
	if err != nil {
		return "", err
	}
	defer done()
	if err := checkRemote(q.Remote); err != nil {
		return "", err
	}
	attrs, err := b.frontendAttrs(ctx, q)
	if err != nil {
		return "", err
	}
	var inputs map[string]*pb.Definition
	if q.Remote == "" {
		address, drop, err := b.contexts.add(b.root(), q.Context)
		if err != nil {
			return "", err
		}
		defer drop()
		without, err := b.contexts.ignored(address, q.Dockerfile)
		if err != nil {
			return "", err
		}
		if len(without) == 0 {
			attrs["context"] = address
		} else if inputs, err = splitInputs(ctx, address, without); err != nil {
			return "", err
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	sessionID := q.Session
	if sessionID == "" {
		s, run, err := e.ownSession(ctx, q)
		if err != nil {
			return "", err
		}
		defer s.Close()
		g.Go(run)
		sessionID = s.ID()
	}
	req := &controlapi.SolveRequest{Ref: identity.NewID(), Frontend: "dockerfile.v0", FrontendAttrs: attrs, FrontendInputs: inputs, Session: sessionID, Exporters: exporters(q), Cache: &controlapi.CacheOptions{}}
	for _, from := range q.CacheFrom {
		req.Cache.Imports = append(req.Cache.Imports, &controlapi.CacheOptionsEntry{Type: "registry", Attrs: map[string]string{"ref": from}})
	}
	if q.Network == "host" {
		req.Entitlements = []string{"network.host"}
	}
	return e.solve(ctx, req, q, say)
}

// solve runs a build and its progress beside each other.
func (e *engine) solve(ctx context.Context, req *controlapi.SolveRequest, q docker.BuildRequest, say func(docker.BuildMessage)) (id string, err error) {
	end, err := e.building()
	if err != nil {
		return "", err
	}
	defer end()
	p := &legacyProgress{say: say, quiet: q.Quiet, traces: q.Traces}
	following, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var followed sync.WaitGroup
	followed.Go(func() {
		_ = e.control.Status(&controlapi.StatusRequest{Ref: req.Ref}, &statusStream{ctx: func() context.Context { return following }, send: p.update})
	})
	resp, err := e.control.Solve(ctx, req)
	if err == nil {
		followed.Wait() // it ends with the build
	} else {
		p.settle(&followed, stop)
	}
	if err != nil {
		return "", explainRemote(p.explain(explainRights(err, e.settings)), q.Remote)
	}
	id = resp.ExporterResponse[exptypes.ExporterImageDigestKey]
	p.end(id, q)
	return id, nil
}

func exporters(q docker.BuildRequest) []*controlapi.Exporter {
	if len(q.Outputs) == 0 {
		return []*controlapi.Exporter{{Type: mobyExporter, Attrs: map[string]string{"name": strings.Join(q.Tags, ",")}}}
	}
	var out []*controlapi.Exporter
	for _, o := range q.Outputs {
		attrs := maps.Clone(o.Attrs)
		if attrs == nil {
			attrs = map[string]string{}
		}
		if o.Type == mobyExporter || o.Type == "image" {
			attrs["name"] = strings.Join(q.Tags, ",")
		}
		out = append(out, &controlapi.Exporter{Type: o.Type, Attrs: attrs})
	}
	return out
}

// ownSession stands in for a client that has none: it knows the logins that came with the request.
func (e *engine) ownSession(ctx context.Context, q docker.BuildRequest) (*session.Session, func() error, error) {
	s, err := session.NewSession(ctx, "")
	if err != nil {
		return nil, nil, err
	}
	s.Allow(&logins{byRegistry: q.Logins})
	dial := func(ctx context.Context, _ string, meta map[string][]string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		go func() { _ = e.sessions.HandleConn(context.WithoutCancel(ctx), theirs, meta) }() // ends with the session, which closes the pipe
		return ours, nil
	}
	return s, func() error { return s.Run(context.WithoutCancel(ctx), dial) }, nil
}

// cancels are the builds that POST /build/cancel ends, by the id that their clients gave them.
type cancels struct {
	mu sync.Mutex // guards what follows
	by map[string]context.CancelCauseFunc
}

var errCancelled = errors.New("the build was cancelled")

func (c *cancels) enter(ctx context.Context, id string) (context.Context, func(), error) {
	ctx, cancel := context.WithCancelCause(ctx)
	if id == "" {
		return ctx, func() { cancel(nil) }, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.by == nil {
		c.by = map[string]context.CancelCauseFunc{}
	}
	if _, taken := c.by[id]; taken {
		cancel(nil)
		return nil, nil, fmt.Errorf("a build with the id %q is under way: %w", id, errConflict)
	}
	c.by[id] = cancel
	return ctx, func() {
		cancel(nil)
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.by, id)
	}, nil
}

// Cancel ends a build.
func (b *Builder) Cancel(id string) {
	b.cancels.mu.Lock()
	cancel := b.cancels.by[id]
	b.cancels.mu.Unlock()
	if cancel != nil {
		cancel(errCancelled)
	}
}
