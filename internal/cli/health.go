package cli

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"

	"wherry.dev/wherry/internal/client"
)

// onUnhealthy is the annotation that says what is done about an unhealthy container.
const onUnhealthy = "wherry.on-unhealthy"

// checkUnhealthy wants one of the words.
func checkUnhealthy(value string) error {
	if value == "" {
		return nil
	}
	if _, err := oneOf("none", "restart", "stop", "kill")(value); err != nil {
		return fmt.Errorf("--on-unhealthy %s: %w", value, err)
	}
	return nil
}

// ownChanges are those of update that Docker's request has no field for.
type ownChanges struct {
	portChange
	onUnhealthy string
}

func (o ownChanges) post(ctx context.Context, c *client.Client, name string) error {
	if err := o.portChange.post(ctx, c, name); err != nil || o.onUnhealthy == "" {
		return err
	}
	return newer(c.Post(ctx, "/wherry"+containerPath(name, "/on-unhealthy"), url.Values{"do": {o.onUnhealthy}}, nil, nil))
}

// newer explains an engine that does not know a route.
func newer(err error) error {
	if client.IsNotFound(err) && err.Error() == "page not found" {
		return errors.New("the engine is older than this client, or another's: restart wherryd, or use the client that came with it")
	}
	return err
}

// healthCommands are those under Podman's word for it.
func healthCommands() []command {
	return []command{{name: "healthcheck run", group: groupOther, short: "Run a container's health check now", build: healthcheckCommand}}
}

func healthcheckCommand(app *App) *cobra.Command {
	return &cobra.Command{Use: "run CONTAINER", Args: exactly(1), Long: `Runs the container's health check now and prints what it prints. The result counts as those do that its interval brings.
The exit status is 0 where it is well, 1 where the check failed, 125 where none could be run.`, RunE: func(cmd *cobra.Command, args []string) error {
		c, err := app.Client()
		if err != nil {
			return &exitError{125, err}
		}
		var result container.HealthcheckResult
		if err := newer(c.Post(cmd.Context(), "/wherry"+containerPath(args[0], "/probe"), nil, nil, &result)); err != nil {
			return &exitError{125, err}
		}
		if out := strings.TrimRight(result.Output, "\n"); out != "" {
			fmt.Fprintln(app.Out, printable(out))
		}
		if result.ExitCode != 0 {
			return &exitError{1, fmt.Errorf("the health check of container %s failed with exit code %d", args[0], result.ExitCode)}
		}
		return nil
	}}
}

// awaitHealthy returns when a container is healthy, or says why it is not to be.
func awaitHealthy(ctx context.Context, app *App, name string) error {
	c, err := app.Client()
	if err != nil {
		return err
	}
	return newer(c.Get(ctx, "/wherry"+containerPath(name, "/healthy"), nil, nil))
}

// widePs is from how many columns on a table has room for what a probe printed.
const widePs = 140

// healthText puts what the last probe printed behind the state, as far as the terminal has room for it.
func healthText(columns int, status, output string) string {
	if output == "" || columns < widePs {
		return status
	}
	if room := columns - widePs + 30; len([]rune(output)) > room {
		output = ellipsis(output, room)
	}
	for _, word := range []string{"unhealthy", "healthy", "health: starting"} {
		if text, ok := strings.CutSuffix(status, "("+word+")"); ok {
			return text + "(" + word + ": " + printable(output) + ")"
		}
	}
	return status
}
