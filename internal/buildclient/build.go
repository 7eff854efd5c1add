package buildclient

import (
	"context"
	"fmt"

	"github.com/distribution/reference"
	"github.com/moby/buildkit/client"
	bkfrontend "github.com/moby/buildkit/frontend"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
	"golang.org/x/sync/errgroup"

	"wherry.dev/wherry/internal/buildopt"
)

const frontend = "dockerfile.v0"

// job is one build on its way.
type job struct {
	c       *Client
	o       *buildopt.Options
	sources *sources
	opt     client.SolveOpt
	files   []*resultFile // results that are files, which get their names at the end
	dirs    []string      // results that are directories, and were not there
	watch   *watcher
	answer  map[string][]byte // of a question
}

// Build does what the options say. What people see of it goes to Err, results to Out.
func (c *Client) Build(ctx context.Context, o *buildopt.Options) error {
	question, err := o.Question()
	if err != nil {
		return err
	}
	j := &job{c: c, o: o}
	if err := j.prepare(ctx, question); err != nil {
		return err
	}
	defer j.sources.Close()
	defer j.dropFiles()
	var past *history
	if question.Method == "" {
		past = j.remember()
	}
	res, err := j.solve(ctx, question)
	if err != nil {
		j.explained(ctx, past, false)
		return j.failure(ctx, err)
	}
	if question.Method != "" {
		return c.answer(question, j.answer)
	}
	j.explained(ctx, past, true)
	return j.results(res)
}

// prepare reads what stands on this side.
func (j *job) prepare(ctx context.Context, q buildopt.Question) (err error) {
	attrs, err := j.o.FrontendAttrs(j.c.Login.Proxies(""))
	if err != nil {
		return err
	}
	if err := j.c.hostGateway(ctx, attrs); err != nil {
		return err
	}
	if j.sources, err = openSources(j.o, j.c.In); err != nil {
		return err
	}
	for k, v := range j.sources.attrs {
		attrs[k] = v
	}
	j.opt = client.SolveOpt{
		Frontend: frontend, FrontendAttrs: attrs, LocalMounts: j.sources.mounts, OCIStores: j.sources.stores, SharedKey: j.sources.key,
		AllowedEntitlements: j.o.Entitlements(), Session: j.sources.attach,
	}
	attach, err := j.c.lend(j.o)
	if err != nil {
		return err
	}
	j.opt.Session = append(j.opt.Session, attach...)
	if q.Method != "" {
		return nil // a question has no results to export
	}
	if err := j.addExports(); err != nil {
		return err
	}
	return j.addCaches()
}

func (j *job) addCaches() error {
	from, err := j.o.CachesFrom()
	if err != nil {
		return err
	}
	for _, f := range from {
		j.opt.CacheImports = append(j.opt.CacheImports, client.CacheOptionsEntry{Type: f.Type, Attrs: f.Attrs})
	}
	to, err := j.o.CachesTo()
	if err != nil {
		return err
	}
	for _, t := range to {
		j.opt.CacheExports = append(j.opt.CacheExports, client.CacheOptionsEntry{Type: t.Type, Attrs: t.Attrs})
	}
	return nil
}

// solve has the engine do it, with what it tells on the way shown.
func (j *job) solve(ctx context.Context, q buildopt.Question) (*client.SolveResponse, error) {
	w, err := newWatcher(j.c.Err, j.o.ProgressMode(), q.Method != "")
	j.watch = w
	if err != nil {
		return nil, err
	}
	var g errgroup.Group
	status := make(chan *client.SolveStatus)
	g.Go(func() error { return w.follow(context.WithoutCancel(ctx), status) }) // ends when Solve closes the channel
	var res *client.SolveResponse
	switch {
	case q.Method != "":
		res, err = j.c.kit.Build(ctx, j.opt, "", j.ask(q), status)
	case j.o.Shell():
		res, err = j.c.kit.Build(ctx, j.opt, "", j.buildWithShell(), status)
	default:
		res, err = j.c.kit.Solve(ctx, nil, j.opt, status)
	}
	if shown := g.Wait(); err == nil {
		err = shown
	}
	if mode := j.o.ProgressMode(); err == nil && q.Method == "" && mode != "quiet" && mode != "rawjson" {
		w.warnings(j.c.Err)
	}
	return res, err
}

// request of the Dockerfile frontend, for builds that go on after it.
func (j *job) request() gateway.SolveRequest {
	req := gateway.SolveRequest{Frontend: frontend, FrontendOpt: j.opt.FrontendAttrs}
	for _, e := range j.opt.CacheImports {
		req.CacheImports = append(req.CacheImports, bkfrontend.CacheOptionsEntry{Type: e.Type, Attrs: e.Attrs})
	}
	return req
}

// normalize makes an image's name whole.
func normalize(name string) (string, error) {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return "", fmt.Errorf("that is no image name: %w", err)
	}
	if _, ok := named.(reference.Digested); ok {
		return "", fmt.Errorf("an image that is built cannot be given a digest: leave out @sha256:…")
	}
	return reference.TagNameOnly(named).String(), nil
}
