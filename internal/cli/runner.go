package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/client"
	"wherry.dev/wherry/internal/why"
)

// runner starts a container and stays with it until it ends.
type runner struct {
	app    *App
	keys   []byte
	proxy  bool
	remove bool   // the engine removes it when it ends
	idFile string // of --cidfile
	old    bool   // it was there before, so that a start that fails leaves it there
	joined bool   // it runs already
}

func (r *runner) startDetached(ctx context.Context, id string) error {
	c, err := r.app.Client()
	if err != nil {
		return err
	}
	if err := c.Post(ctx, "/containers/"+id+"/start", nil, nil, nil); err != nil {
		return errors.Join(startFailure(err), r.leaveNothing(ctx, c, id))
	}
	return say(r.app.Out, id)
}

// run makes a container, starts it and stays with it, all in one request; it gives the exit status as an error when that is not 0.
func (r *runner) run(ctx context.Context, f *runFlags, req container.CreateRequest) error {
	c, err := r.app.Client()
	if err != nil {
		return err
	}
	file, err := openIDFile(f.cidfile)
	if err != nil {
		return &exitError{125, err}
	}
	talk, cancelled := &conversation{}, make(chan struct{})
	talk.started = func(id string) { hintAtOpenPorts(ctx, r.app, req, id) }
	asking, abandon := context.WithCancel(ctx)
	defer abandon()
	signals := &forwarding{stop: func() {}}
	defer func() { signals.stop() }()
	err = withImage(ctx, r.app, f, &req, func() error {
		signals = r.forward(ctx, func() { close(cancelled); abandon() })
		talk.running = signals.running
		err := talk.begin(asking, c, client.Request{Path: "/wherry/run", Query: f.query()}, f.withOwn(req))
		if err != nil {
			signals.stop() // while an image is pulled, signals are this process's own
		}
		return err
	})
	if err != nil {
		if asking.Err() != nil && ctx.Err() == nil {
			err = errors.New("interrupted before there was a container")
		}
		return &exitError{125, errors.Join(err, file.close(""))}
	}
	close(signals.made)
	if err := file.close(talk.id); err != nil {
		return &exitError{125, errors.Join(err, talk.streams.Close())}
	}
	printWarnings(r.app, talk.warnings)
	began := time.Now()
	j := joined{id: talk.id, config: req.Config, session: r.session(talk.id, req.Config), began: began, streams: talk.streams, wait: talk}
	j.session.note = talk.hear
	result := r.stay(ctx, j, cancelled)
	if talk.failed != nil && f.cidfile != "" {
		os.Remove(f.cidfile)
	}
	return result
}

// start joins a container that is there and starts it.
func (r *runner) start(ctx context.Context, id string, config *container.Config) error {
	c, err := r.app.Client()
	if err != nil {
		return err
	}
	condition := container.WaitConditionNextExit
	if r.remove {
		condition = container.WaitConditionRemoved
	}
	wait, err := armWait(ctx, c, id, condition)
	if err != nil {
		return &exitError{125, err}
	}
	streams, err := attachTo(ctx, c, id, config)
	if err != nil {
		return &exitError{125, errors.Join(err, wait.body.Close())}
	}
	cancelled := make(chan struct{})
	began, signals := time.Now(), r.forward(ctx, func() { close(cancelled) })
	defer signals.stop()
	close(signals.made)
	if err := c.Post(ctx, "/containers/"+id+"/start", nil, nil, nil); err != nil {
		streams.Close()
		if r.remove {
			_, _ = wait.result(5 * time.Second) // so that nothing is left when the prompt is back
		}
		return startFailure(err)
	}
	signals.running <- id
	return r.stay(ctx, joined{id: id, config: config, session: r.session(id, config), began: began, streams: streams, wait: wait}, cancelled)
}

// stay follows a container to its end, over lives of the engine.
func (r *runner) stay(ctx context.Context, j joined, cancelled <-chan struct{}) error {
	result := r.follow(ctx, j, cancelled)
	for errors.Is(result, errEngineGone) && !r.old {
		var err error
		if j, err = r.rejoin(ctx, j); err != nil {
			result = err
			break
		}
		result = r.follow(ctx, j, cancelled)
	}
	return r.ending(ctx, j.id, result)
}

// joined is a container that this process's streams are joined to.
type joined struct {
	id      string
	config  *container.Config
	session *session
	began   time.Time
	streams *client.Hijacked
	wait    ender
}

// ender tells how a container has ended.
type ender interface {
	// exit gives its exit status as an error when that is not 0.
	exit(id string) error
	close()
}

// ending says why a container was ended from outside of its program: the exit status alone looks like anybody's kill.
func (r *runner) ending(ctx context.Context, id string, result error) error {
	var exit *exitError
	if !errors.As(result, &exit) || exit.code <= 128 || exit.err != nil {
		return result
	}
	c, err := r.app.Client()
	if err != nil {
		return result
	}
	var report why.Report
	if err := c.Get(ctx, "/wherry/why/"+id, nil, &report); err != nil || len(report.Deaths) == 0 {
		return result
	}
	last := report.Deaths[0]
	if last.Cause == why.Killed && last.Evidence.Signal != int(unix.SIGKILL) {
		return result // who typed Ctrl-C knows
	}
	if line := outline(last.Verdict); line != "" {
		exit.err = fmt.Errorf("container %s: %s", shortID(id), line)
	}
	return result
}

// outline is a verdict in a line; "" where the program itself, or who runs this command, knows as much.
func outline(v why.Verdict) string {
	switch v.Cause {
	case why.OOM, why.OOMChild, why.HostOOM:
		return v.Summary + ": " + v.Advice
	case why.HostKilled, why.Killed, why.Removed, why.StopTimeout, why.Unhealthy, why.Seccomp, why.Crashed, why.ChildCrashed, why.ChildKilled, why.ProcessLimit,
		why.Limited, why.Lost:
		return v.Summary
	}
	return ""
}

// follow waits for the end of the output and then for the exit status.
func (r *runner) follow(ctx context.Context, j joined, cancelled <-chan struct{}) error {
	ended := make(chan error, 1)
	go func() { ended <- j.session.attach(ctx, j.streams) }()
	select {
	case err := <-ended:
		var mine *outputError
		switch {
		case errors.Is(err, errDetached):
			fmt.Fprintln(r.app.Err) // off the line of the container's prompt
			if r.joined {
				return err // as Docker: attach and exec end with 1, run and start with 0
			}
			return nil
		case errors.As(err, &mine) && errors.Is(err, unix.EPIPE):
			return &exitError{125, fmt.Errorf("nobody reads the output any more; container %s may still run: see wherry ps", shortID(j.id))}
		case err != nil && (mine != nil || !isCut(err)):
			return &exitError{125, fmt.Errorf("output of container %s: %w; it may still run: see wherry ps", shortID(j.id), err)}
		case err != nil:
			return &exitError{125, fmt.Errorf("container %s: %w", shortID(j.id), errEngineGone)}
		}
	case <-cancelled:
		return &exitError{1, fmt.Errorf("asked three times: container %s goes on without this terminal; wherry kill %[1]s ends it", shortID(j.id))}
	}
	return j.wait.exit(j.id)
}

// leaveNothing removes a container that was made for this run and never ran.
func (r *runner) leaveNothing(ctx context.Context, c *client.Client, id string) error {
	if r.remove {
		return nil
	}
	if r.idFile != "" {
		os.Remove(r.idFile)
	}
	err := c.Delete(ctx, "/containers/"+id, url.Values{"v": {"1"}}, nil)
	if client.IsNotFound(err) {
		return nil
	}
	return err
}

func (r *runner) session(id string, config *container.Config) *session {
	s := &session{app: r.app, tty: config.Tty, keys: r.keys, redraw: r.joined, forwarded: r.proxy}
	if config.Tty {
		s.resize = "/containers/" + id + "/resize"
	}
	if config.AttachStdin {
		s.in = r.app.In
	}
	return s
}

// attachTo joins the streams that a container's configuration says.
func attachTo(ctx context.Context, c *client.Client, id string, config *container.Config) (*client.Hijacked, error) {
	q := attachQuery(config)
	q.Set("stream", "1")
	return c.Hijack(ctx, client.Request{Path: "/containers/" + id + "/attach", Query: q})
}

func attachQuery(config *container.Config) url.Values {
	q := url.Values{}
	for name, on := range map[string]bool{"stdin": config.AttachStdin, "stdout": config.AttachStdout, "stderr": config.AttachStderr} {
		if on {
			q.Set(name, "1")
		}
	}
	return q
}

// waiting is an armed wait: the engine's answer comes when the container has ended.
type waiting struct{ body io.ReadCloser }

func (w *waiting) close() { w.body.Close() }

func armWait(ctx context.Context, c *client.Client, id string, condition container.WaitCondition) (*waiting, error) {
	res, err := c.Stream(ctx, client.Request{Method: http.MethodPost, Path: "/containers/" + url.PathEscape(id) + "/wait", Query: url.Values{"condition": {string(condition)}}})
	if err != nil {
		return nil, err
	}
	return &waiting{body: res.Body}, nil
}

// startFailure gives the exit status that shells know: 127 for a command that is not there, 126 for one that may not be run.
func startFailure(err error) error {
	text := err.Error()
	if strings.Contains(text, "chdir to cwd") { // there is no such folder, and the command may be there
		return &exitError{126, err}
	}
	for _, s := range []string{"executable file not found", "no such file or directory", "command not found"} {
		if strings.Contains(text, s) {
			return &exitError{127, err}
		}
	}
	for _, s := range []string{"permission denied", "is a directory", "exec format error"} {
		if strings.Contains(text, s) {
			return &exitError{126, err}
		}
	}
	program := strings.HasPrefix(text, "exec ") || strings.Contains(text, ": exec ")
	if program && strings.Contains(text, "not a directory") { // it is said of mounts, too
		return &exitError{126, err}
	}
	return &exitError{125, err}
}
