package cli

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"

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
