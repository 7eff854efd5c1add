package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"

	"wherry.dev/wherry/internal/client"
)

// replaceCommands put containers in the place of others.
func replaceCommands() []command {
	return []command{
		{name: "replace", also: []string{"container replace"}, group: groupOther, short: "Put a container of another image in the place of one, without a pause", build: replaceCommand},
	}
}

func replaceCommand(app *App) *cobra.Command {
	cmd := &cobra.Command{Use: "replace [OPTIONS] CONTAINER IMAGE", Args: exactly(2), Long: `Makes a container of IMAGE with the configuration of CONTAINER, and starts it beside it. When it is healthy, or where nothing checks
that when it has run for a while and listens at the same ports, published ports and names go over to it at once: no connection is
refused. Connections to the old one get time to end; then it is stopped and removed. Where the new one does not get healthy it is
removed, and the old one goes on as it was. Values that CONTAINER has from its image are the new image's; all others stay.`}
	var health, settle, drain time.Duration
	var keep bool
	f := runFlags{}
	fs := cmd.Flags()
	query := stopFlags(cmd)
	fs.DurationVar(&health, "health-timeout", 0, "How long the new one may take to be healthy (default 2m)")
	fs.DurationVar(&settle, "settle", 0, "How long it has to run where nothing checks its health (default 3s)")
	fs.DurationVar(&drain, "drain", 0, "How long connections to the old one may go on, 0 for not at all (default 10s)")
	fs.BoolVar(&keep, "keep", false, "Keep the old one, stopped, as CONTAINER.old")
	fs.StringVar(&f.pull, "pull", "missing", "Pull the image first: always, missing or never")
	fs.BoolVarP(&f.quiet, "quiet", "q", false, "Print the new ID only")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		switch f.pull {
		case "always", "missing", "never":
		default:
			return fmt.Errorf("--pull can be always, missing or never, not %q", f.pull)
		}
		q := query()
		for name, d := range map[string]time.Duration{"health-timeout": health, "settle": settle, "drain": drain} {
			if fs.Changed(name) {
				if d < 0 {
					return fmt.Errorf("--%s %s: it cannot be negative", name, d)
				}
				q.Set(name, d.String())
			}
		}
		if keep {
			q.Set("keep", "1")
		}
		return replace(cmd.Context(), app, &f, args, q)
	}
	return cmd
}

func replace(ctx context.Context, app *App, f *runFlags, args []string, q url.Values) error {
	c, err := app.Client()
	if err != nil {
		return err
	}
	req := container.CreateRequest{Config: &container.Config{Image: args[1]}}
	var answer *http.Response
	err = withImage(ctx, app, f, &req, func() (err error) {
		q.Set("image", req.Image)
		answer, err = c.Stream(ctx, client.Request{Method: http.MethodPost, Path: "/wherry" + containerPath(args[0], "/replace"), Query: q})
		return err
	})
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	for d := json.NewDecoder(answer.Body); ; {
		var line struct {
			Status, Error string
			ID            string `json:"Id"`
		}
		if err := d.Decode(&line); err != nil {
			return fmt.Errorf("the engine's answer broke off (%w): it finishes the replacement or takes it back when it is there again, see wherry ps -a", err)
		}
		switch {
		case line.Error != "":
			return errors.New(line.Error)
		case line.ID != "":
			return say(app.Out, line.ID)
		case !f.quiet:
			fmt.Fprintln(app.Err, printable(line.Status))
		}
	}
}
