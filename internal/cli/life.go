package cli

import (
	"fmt"
	"net/url"

	"github.com/spf13/cobra"
)

// lifeCommands change what containers do.
func lifeCommands() []command {
	return []command{
		{name: "pause", also: []string{"container pause"}, group: groupOther, short: "Freeze all processes of containers", build: func(app *App) *cobra.Command {
			return postEach(app, "pause")
		}},
		{name: "unpause", also: []string{"container unpause"}, group: groupOther, short: "Let frozen containers go on", build: func(app *App) *cobra.Command {
			return postEach(app, "unpause")
		}},
	}
}

// postEach is a command that posts a verb to each container and prints its name.
func postEach(app *App, verb string) *cobra.Command {
	return &cobra.Command{Use: verb + " CONTAINER...", Args: atLeast(1), RunE: func(cmd *cobra.Command, args []string) error {
		c, err := app.Client()
		if err != nil {
			return err
		}
		return each(app, args, func(name string) error {
			if err := c.Post(cmd.Context(), "/containers/"+url.PathEscape(name)+"/"+verb, nil, nil, nil); err != nil {
				return err
			}
			_, err := fmt.Fprintln(app.Out, name)
			return err
		})
	}}
}
