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
	"github.com/spf13/cobra"

	"wherry.dev/wherry/internal/client"
)

// runCommands make containers and join in on what runs in them.
func runCommands() []command {
	return []command{
		{name: "run", also: []string{"container run"}, group: groupCommon, short: "Make a container from an image and run it", build: runCommand},
		{name: "exec", also: []string{"container exec"}, group: groupCommon, short: "Run one more command in a running container", build: execCommand},
		{name: "create", also: []string{"container create"}, group: groupOther, short: "Make a container without starting it", build: createCommand},
		{name: "start", also: []string{"container start"}, group: groupOther, short: "Start containers", build: startCommand},
		{name: "attach", also: []string{"container attach"}, group: groupOther, short: "Join a running container's input and output", build: attachCommand},
	}
}

func createCommand(app *App) *cobra.Command {
	cmd := &cobra.Command{Use: "create [OPTIONS] IMAGE [COMMAND [ARG...]]", Args: atLeast(1)}
	f := addRunFlags(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		req, err := f.request(cmd.Flags(), args)
		if err != nil {
			return &exitError{125, err}
		}
		id, err := createContainer(cmd.Context(), app, f, req)
		if err != nil {
			return &exitError{1, err}
		}
		_, err = fmt.Fprintln(app.Out, id)
		return err
	}
	return cmd
}

func runCommand(app *App) *cobra.Command {
	cmd := &cobra.Command{Use: "run [OPTIONS] IMAGE [COMMAND [ARG...]]", Args: atLeast(1)}
	fs := cmd.Flags()
	f := addRunFlags(fs)
	var detach, proxy bool
	var keys string
	fs.BoolVarP(&detach, "detach", "d", false, "Leave it running and print its ID")
	fs.BoolVar(&proxy, "sig-proxy", true, "Pass signals on to the process")
	fs.StringVar(&keys, "detach-keys", "", "Keys that leave it running (default ctrl-p,ctrl-q)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		req, err := f.request(fs, args)
		if err != nil {
			return &exitError{125, err}
		}
		r := runner{app: app, proxy: proxy, remove: f.rm, idFile: f.cidfile}
		if r.keys, err = detachKeys(app, keys); err != nil {
			return &exitError{125, err}
		}
		if detach {
			if len(f.attach.values) > 0 {
				return &exitError{125, errors.New("-d and -a contradict each other: keep one")}
			}
			req.AttachStdin, req.AttachStdout, req.AttachStderr, req.StdinOnce = false, false, false, false
		} else if err := checkInput(app, req.AttachStdin, req.Tty); err != nil {
			return err
		}
		req.HostConfig.ConsoleSize = terminalSize(app)
		id, err := createContainer(cmd.Context(), app, f, req)
		if err != nil {
			return &exitError{125, err}
		}
		if detach {
			return r.startDetached(cmd.Context(), id)
		}
		return r.run(cmd.Context(), id, req.Config)
	}
	return cmd
}

// createContainer makes the container, pulling its image where the policy says so, and writes --cidfile.
func createContainer(ctx context.Context, app *App, f *runFlags, req container.CreateRequest) (id string, err error) {
	c, err := app.Client()
	if err != nil {
		return "", err
	}
	var idFile *os.File
	if f.cidfile != "" {
		if idFile, err = os.OpenFile(f.cidfile, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644); err != nil {
			if errors.Is(err, os.ErrExist) {
				return "", fmt.Errorf("--cidfile %s is there already: another container may have it; remove it or name another", f.cidfile)
			}
			return "", fmt.Errorf("--cidfile: %w", err)
		}
		defer func() {
			err = errors.Join(err, idFile.Close())
			if err != nil {
				os.Remove(f.cidfile)
			}
		}()
	}
	query := url.Values{}
	if f.name != "" {
		query.Set("name", f.name)
	}
	if f.platform != "" {
		query.Set("platform", f.platform)
	}
	pull := func() error {
		return pullImage(ctx, app, app.Err, req.Image, pullOptions{platform: f.platform, quiet: f.quiet})
	}
	if f.pull == "always" {
		if err := pull(); err != nil {
			return "", err
		}
	}
	var made container.CreateResponse
	err = c.Post(ctx, "/containers/create", query, req, &made)
	if imageIsMissing(err) && f.pull == "missing" {
		if !f.quiet {
			fmt.Fprintf(app.Err, "Unable to find image '%s' locally\n", req.Image)
		}
		if err := pull(); err != nil {
			return "", err
		}
		err = c.Post(ctx, "/containers/create", query, req, &made)
	}
	if err != nil {
		return "", err
	}
	for _, w := range made.Warnings {
		fmt.Fprintf(app.Err, "WARNING: %s\n", w)
	}
	if idFile != nil {
		_, err = idFile.WriteString(made.ID)
	}
	return made.ID, err
}

// imageIsMissing tells a missing image from a missing network or volume.
func imageIsMissing(err error) bool {
	return client.IsNotFound(err) && strings.Contains(strings.ToLower(err.Error()), "no such image")
}

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
	_, err = fmt.Fprintln(r.app.Out, id)
	return err
}

// run attaches, arms the wait, starts, and gives the exit status as an error when it is not 0.
func (r *runner) run(ctx context.Context, id string, config *container.Config) error {
	c, err := r.app.Client()
	if err != nil {
		return err
	}
	condition := container.WaitConditionNextExit
	if r.remove {
		condition = container.WaitConditionRemoved
	}
	var streams *client.Hijacked
	attached := make(chan error, 1)
	go func() (err error) {
		defer func() { attached <- err }()
		streams, err = attachTo(ctx, c, id, config)
		return err
	}()
	wait, err := armWait(ctx, c, id, condition)
	if attachErr := <-attached; attachErr != nil || err != nil {
		if streams != nil {
			streams.Close()
		}
		return &exitError{125, errors.Join(attachErr, err)}
	}
	started, cancelled := make(chan struct{}), make(chan struct{})
	if r.proxy {
		stop := forwardSignals(ctx, r.app, id, started, func() { close(cancelled) })
		defer stop()
	}
	if err := c.Post(ctx, "/containers/"+id+"/start", nil, nil, nil); err != nil {
		streams.Close()
		if r.remove {
			_, _ = wait.result(5 * time.Second) // so that nothing is left when the prompt is back
		}
		return errors.Join(startFailure(err), r.leaveNothing(ctx, c, id))
	}
	close(started)
	ended := make(chan error, 1)
	go func() { ended <- r.session(id, config).attach(ctx, streams) }()
	return r.follow(id, wait, ended, cancelled)
}

// follow waits for the end of the output and then for the exit status.
func (r *runner) follow(id string, wait *waiting, ended <-chan error, cancelled <-chan struct{}) error {
	select {
	case err := <-ended:
		if errors.Is(err, errDetached) {
			fmt.Fprintln(r.app.Err) // off the line of the container's prompt
			if r.joined {
				return err // as Docker: attach and exec end with 1, run and start with 0
			}
			return nil
		}
		if err != nil {
			return &exitError{125, fmt.Errorf("output of container %s: %w; it may still run: see wherry ps", shortID(id), err)}
		}
	case <-cancelled:
		return &exitError{1, fmt.Errorf("asked three times: container %s goes on without this terminal; wherry kill %[1]s ends it", shortID(id))}
	}
	return wait.exit(id)
}

// leaveNothing removes a container that was made for this run and never ran.
func (r *runner) leaveNothing(ctx context.Context, c *client.Client, id string) error {
	if r.old || r.remove {
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
	s := &session{app: r.app, tty: config.Tty, keys: r.keys, redraw: r.joined}
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
	q := url.Values{"stream": {"1"}}
	for name, on := range map[string]bool{"stdin": config.AttachStdin, "stdout": config.AttachStdout, "stderr": config.AttachStderr} {
		if on {
			q.Set(name, "1")
		}
	}
	return c.Hijack(ctx, client.Request{Path: "/containers/" + id + "/attach", Query: q})
}

// waiting is an armed wait: the engine's answer comes when the container has ended.
type waiting struct{ body io.ReadCloser }

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
	for _, s := range []string{"executable file not found", "no such file or directory", "command not found"} {
		if strings.Contains(text, s) {
			return &exitError{127, err}
		}
	}
	for _, s := range []string{"permission denied", "is a directory", "not a directory", "exec format error"} {
		if strings.Contains(text, s) {
			return &exitError{126, err}
		}
	}
	return &exitError{125, err}
}

// detachKeys are those of the flag, of config.json, or ctrl-p,ctrl-q.
func detachKeys(app *App, flag string) ([]byte, error) {
	if flag == "" {
		flag = configText(app, "detachKeys")
	}
	return parseDetachKeys(flag)
}
