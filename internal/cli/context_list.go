package cli

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"wherry.dev/wherry/internal/client"
	"wherry.dev/wherry/internal/contexts"
	"wherry.dev/wherry/internal/login"
)

// contextRow is a line of `context ls`.
type contextRow struct {
	Current        bool `head:""`
	Description    string
	DockerEndpoint string `head:"DOCKER ENDPOINT"`
	Error          string
	Name           string
}

func contextListCommand(app *App) *cobra.Command {
	var quiet bool
	var format string
	c := &cobra.Command{Use: "ls [OPTIONS]", RunE: func(*cobra.Command, []string) error {
		l := layout{table: `{{.Name}}{{if .Current}} *{{end}}\t{{.Description}}\t{{.DockerEndpoint}}\t{{.Error}}`, quiet: "{{.Name}}"}
		f, err := l.parseRows(format, quiet)
		if err != nil {
			return err
		}
		rows, err := contextRows(app.Choice)
		if err != nil {
			return err
		}
		return writeRows(app.Out, f, rows)
	}}
	c.Flags().BoolVarP(&quiet, "quiet", "q", false, "Print names only")
	formatFlag(c, &format, "")
	return c
}

// contextRows are the default one and those of docker's configuration.
func contextRows(choice client.Choice) ([]contextRow, error) {
	current := client.CurrentContext(choice)
	first := contextRow{Name: contexts.Default, Description: "From --host, WHERRY_HOST or DOCKER_HOST"}
	cl, err := client.NewTLS(choice.Host, choice.TLS)
	if err != nil {
		first.Error = err.Error()
	} else {
		first.DockerEndpoint = cl.Host()
	}
	rows := []contextRow{first}
	list, err := client.Contexts(choice.Config)
	if err != nil {
		return nil, err
	}
	for _, c := range list {
		rows = append(rows, contextRow{Name: c.Name, Description: c.Description, DockerEndpoint: c.Host})
	}
	slices.SortFunc(rows, func(a, b contextRow) int { return strings.Compare(a.Name, b.Name) })
	found := false
	for i := range rows {
		rows[i].Current = rows[i].Name == current
		found = found || rows[i].Current
	}
	if !found {
		rows = append(rows, contextRow{Current: true, Name: current, Error: "there is no such context"})
	}
	return rows, nil
}

func contextShowCommand(app *App) *cobra.Command {
	return &cobra.Command{Use: "show", RunE: func(*cobra.Command, []string) error {
		_, err := fmt.Fprintln(app.Out, client.CurrentContext(app.Choice))
		return err
	}}
}

func contextUseCommand(app *App) *cobra.Command {
	return &cobra.Command{Use: "use CONTEXT", Args: exactly(1), RunE: func(_ *cobra.Command, args []string) error {
		if err := chooseContext(app, args[0]); err != nil {
			return err
		}
		if now := client.CurrentContext(app.Choice); now != args[0] {
			fmt.Fprintf(app.Err, "Note: commands use %q as long as --host, --context, WHERRY_HOST, DOCKER_HOST or DOCKER_CONTEXT says so\n", now)
		}
		_, err := fmt.Fprintln(app.Out, args[0])
		return err
	}}
}

// chooseContext notes it where docker's client looks too.
func chooseContext(app *App, name string) error {
	var value json.RawMessage
	if name != contexts.Default {
		if _, err := client.ReadContext(app.Config, name); err != nil {
			return err
		}
		var err error
		if value, err = json.Marshal(name); err != nil {
			return err
		}
	}
	config, err := login.Read(app.Config)
	if err != nil {
		return err
	}
	return config.SetField("currentContext", value)
}
