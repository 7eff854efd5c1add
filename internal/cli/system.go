package cli

import (
	"github.com/spf13/cobra"
)

// systemCommands are about the engine as a whole.
func systemCommands() []command {
	line := func(name, group, short string, build func(*App) *cobra.Command, also ...string) command {
		return command{name: name, also: also, group: group, short: short, build: build}
	}
	return []command{
		line("version", groupCommon, "Print the versions of client and engine", versionCommand),
		line("info", groupCommon, "Print what the engine has and can", infoCommand, "system info"),
		line("events", groupOther, "Print what happens, as it happens", eventsCommand, "system events"),
		line("system df", groupOther, "Show what takes disk space", diskUsageCommand),
		line("system prune", groupOther, "Remove everything that is not used", systemPruneCommand),
		line("system clean-up", groupOther, "Remove the images that were not used for longest until the disk has room", cleanUpCommand),
		line("container prune", groupOther, "Remove all stopped containers", containerPruneCommand),
		line("context ls", groupOther, "List the engine that commands speak to", contextListCommand, "context list"),
		line("context show", groupOther, "Print the name of the current context", contextShowCommand),
	}
}

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
		cl, err := app.Client()
		if err != nil {
			return err
		}
		row := contextRow{Current: true, Description: "The one that --host, WHERRY_HOST or DOCKER_HOST names", DockerEndpoint: cl.Host(), Name: "default"}
		return writeRows(app.Out, f, []contextRow{row})
	}}
	c.Flags().BoolVarP(&quiet, "quiet", "q", false, "Print names only")
	formatFlag(c, &format, "")
	return c
}

func contextShowCommand(app *App) *cobra.Command {
	return &cobra.Command{Use: "show", RunE: func(*cobra.Command, []string) error {
		_, err := app.Out.Write([]byte("default\n"))
		return err
	}}
}
