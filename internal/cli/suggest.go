package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// suggest adds to the engine's word that there is nothing of a name what there is of nearly that name.
func suggest(ctx context.Context, app *App, err error) error {
	if err == nil {
		return nil
	}
	var exit *exitError
	if errors.As(err, &exit) {
		return &exitError{exit.code, suggest(ctx, app, exit.err)}
	}
	text := err.Error()
	for _, refusal := range []struct{ before, after, kind string }{
		{"No such container: ", "", "CONTAINER"}, {"No such image: ", "", "IMAGE"}, {"get ", ": no such volume", "VOLUME"}, {"network ", " not found", "NETWORK"},
		{"no such object: ", "", "OBJECT"},
	} {
		_, rest, ok := strings.Cut(text, refusal.before)
		name, all := strings.CutSuffix(rest, refusal.after)
		if !ok || !all || name == "" || strings.ContainsAny(name, " \n") {
			continue
		}
		if near := nearest(name, names(ctx, app, refusal.kind)); near != "" && near != name {
			return fmt.Errorf("%w: did you mean %s?", err, near)
		}
	}
	return err
}
