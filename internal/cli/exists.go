package cli

import (
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"wherry.dev/wherry/internal/client"
)

// existsCommands answer by their exit status alone.
func existsCommands() []command {
	var list []command
	for _, k := range kinds() {
		list = append(list, command{name: k.name + " exists", group: groupOther, short: "Tell by the exit status whether there is one: 0 yes, 1 no",
			build: func(app *App) *cobra.Command { return existsCommand(app, k) }})
	}
	return list
}

func existsCommand(app *App, k kind) *cobra.Command {
	cmd := &cobra.Command{Use: "exists " + strings.ToUpper(k.name), Args: exactly(1), Long: `Prints nothing and ends with 0 where it is there, with 1 where it is not, with 125 where the engine could not be asked.`}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := app.Client()
		if err != nil {
			return &exitError{125, err}
		}
		err = c.Do(cmd.Context(), client.Request{Method: http.MethodGet, Path: k.path(args[0])}, nil)
		switch {
		case client.IsNotFound(err):
			return &exitError{code: 1}
		case err != nil:
			return &exitError{125, err}
		}
		return nil
	}
	return cmd
}
