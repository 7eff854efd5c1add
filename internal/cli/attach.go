package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"

	"wherry.dev/wherry/internal/client"
)

func inspectContainer(ctx context.Context, c *client.Client, name string) (container.InspectResponse, error) {
	var about container.InspectResponse
	err := c.Get(ctx, "/containers/"+url.PathEscape(name)+"/json", nil, &about)
	if err == nil && (about.Config == nil || about.State == nil || about.HostConfig == nil) {
		err = fmt.Errorf("inspect container %s: the engine's answer lacks its configuration", name)
	}
	return about, err
}

func attachCommand(app *App) *cobra.Command {
	cmd := &cobra.Command{Use: "attach [OPTIONS] CONTAINER", Args: exactly(1)}
	var noInput, proxy bool
	var keys string
	cmd.Flags().BoolVar(&noInput, "no-stdin", false, "Send no input")
	cmd.Flags().BoolVar(&proxy, "sig-proxy", true, "Pass signals on to the process")
	cmd.Flags().StringVar(&keys, "detach-keys", "", "Keys that leave it running (default ctrl-p,ctrl-q)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		c, err := app.Client()
		if err != nil {
			return err
		}
		about, err := inspectContainer(ctx, c, args[0])
		if err != nil {
			return err
		}
		switch {
		case !about.State.Running:
			return fmt.Errorf("container %s does not run: wherry start -ai %[1]s starts it and attaches", args[0])
		case about.State.Paused:
			return fmt.Errorf("container %s is paused: wherry unpause %[1]s lets it go on", args[0])
		case about.State.Restarting:
			return fmt.Errorf("container %s is between two runs: try again when it runs", args[0])
		}
		config := about.Config
		config.AttachStdin = config.OpenStdin && !noInput
		config.AttachStdout, config.AttachStderr = true, true
		if err := checkInput(app, config.AttachStdin, config.Tty); err != nil {
			return err
		}
		r := runner{app: app, proxy: proxy && !config.Tty, joined: true}
		if r.keys, err = detachKeys(app, keys); err != nil {
			return err
		}
		return r.join(ctx, about.ID, config)
	}
	return cmd
}

// join attaches to a container that runs already and stays until it ends.
func (r *runner) join(ctx context.Context, id string, config *container.Config) error {
	c, err := r.app.Client()
	if err != nil {
		return err
	}
	wait, err := armWait(ctx, c, id, container.WaitConditionNotRunning)
	if err != nil {
		return err
	}
	streams, err := attachTo(ctx, c, id, config)
	if err != nil {
		return err
	}
	cancelled := make(chan struct{})
	began, signals := time.Now(), r.forward(ctx, func() { close(cancelled) })
	defer signals.stop()
	close(signals.made)
	signals.running <- id
	run := joined{id: id, config: config, session: r.session(id, config), began: began, streams: streams, wait: wait}
	return r.ending(ctx, id, r.follow(ctx, run, cancelled))
}

func startCommand(app *App) *cobra.Command {
	cmd := &cobra.Command{Use: "start [OPTIONS] CONTAINER..."}
	p := pickFlags(cmd, "l", container.StateCreated, container.StateExited)
	var attach, interactive, waits bool
	var keys, checkpoint, dir string
	cmd.Flags().StringVar(&checkpoint, "checkpoint", "", "Go on from this checkpoint instead of beginning anew")
	checkpointDirFlag(cmd, &dir)
	cmd.Flags().BoolVar(&waits, "wait-healthy", false, "Come back when their health checks say that they are well, or why not")
	cmd.Flags().BoolVarP(&attach, "attach", "a", false, "Attach its output and pass signals on")
	cmd.Flags().BoolVarP(&interactive, "interactive", "i", false, "Attach its input")
	cmd.Flags().StringVar(&keys, "detach-keys", "", "Keys that leave it running (default ctrl-p,ctrl-q)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		args, err := p.names(cmd.Context(), app, args)
		if err != nil {
			return err
		}
		query, err := checkpointQuery(checkpoint, dir, len(args), attach || interactive)
		if err != nil {
			return err
		}
		if !attach && !interactive {
			err := startNames(cmd.Context(), app, args, query)
			if err != nil || !waits {
				return err
			}
			return each(cmd.Context(), app, args, func(name string) error { return awaitHealthy(cmd.Context(), app, name) })
		}
		if waits {
			return errors.New("--wait-healthy and -a or -i contradict each other: an attached start comes back when the container ends")
		}
		if len(args) != 1 {
			return errors.New("only one container can be attached: start the others without -a and -i")
		}
		return startAttached(cmd.Context(), app, args[0], keys, interactive)
	}
	return cmd
}

// startNames starts containers; one that goes on from a checkpoint may not find everything as it was.
func startNames(ctx context.Context, app *App, names []string, checkpoint url.Values) error {
	if checkpoint == nil {
		return postNames(ctx, app, names, "start", nil)
	}
	c, err := app.Client()
	if err != nil {
		return err
	}
	return each(ctx, app, names, func(name string) error {
		res, err := c.Stream(ctx, client.Request{Method: http.MethodPost, Path: containerPath(name, "/start"), Query: checkpoint})
		if err != nil {
			return err
		}
		res.Body.Close()
		printWarnings(app, res.Header["Wherry-Warning"])
		_, err = fmt.Fprintln(app.Out, name)
		return err
	})
}

// checkpointQuery says which checkpoint a start goes on from.
func checkpointQuery(name, dir string, containers int, attached bool) (url.Values, error) {
	switch {
	case name == "" && dir == "":
		return nil, nil
	case name == "":
		return nil, errors.New("--checkpoint-dir says where a checkpoint is, and --checkpoint which one: give both")
	case containers > 1:
		return nil, errors.New("a checkpoint is one container's: start the others without --checkpoint")
	case attached:
		return nil, errors.New("--checkpoint and -a or -i contradict each other: attach it when it runs (wherry attach)")
	}
	dir, err := hostDir(dir)
	query := url.Values{"checkpoint": {name}}
	if dir != "" {
		query.Set("checkpoint-dir", dir)
	}
	return query, err
}

func startAttached(ctx context.Context, app *App, name, keys string, input bool) error {
	c, err := app.Client()
	if err != nil {
		return err
	}
	about, err := inspectContainer(ctx, c, name)
	if err != nil {
		return err
	}
	config := about.Config
	config.AttachStdin = input && config.OpenStdin
	config.AttachStdout, config.AttachStderr = true, true
	if err := checkInput(app, config.AttachStdin, config.Tty); err != nil {
		return err
	}
	r := runner{app: app, proxy: !config.Tty, remove: about.HostConfig.AutoRemove, old: true}
	if r.keys, err = detachKeys(app, keys); err != nil {
		return err
	}
	if about.State.Running {
		return r.join(ctx, about.ID, config)
	}
	return r.start(ctx, about.ID, config)
}
