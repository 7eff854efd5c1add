package cli

import (
	"context"
	"fmt"
	"net/url"

	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/volume"
	"github.com/spf13/cobra"

	"wherry.dev/wherry/internal/client"
)

// kind is a sort of objects that inspect finds by name.
type kind struct {
	name  string
	path  func(name string) string
	typed func() any // what templates see
}

// kinds stand in the order in which a name is looked up.
func kinds() []kind {
	return []kind{
		{"container", func(n string) string { return containerPath(n, "/json") }, func() any { return new(inspectedContainer) }},
		{"image", func(n string) string { return imagePath(n, "/json") }, func() any { return new(image.InspectResponse) }},
		{"network", func(n string) string { return "/networks/" + url.PathEscape(n) }, func() any { return new(inspectedNetwork) }},
		{"volume", func(n string) string { return "/volumes/" + url.PathEscape(n) }, func() any { return new(volume.Volume) }},
	}
}

func inspectCommand(app *App) *cobra.Command { return inspectKinds(app, kinds(), "OBJECT...") }

func inspectContainers(app *App) *cobra.Command {
	return inspectKinds(app, kinds()[:1], "CONTAINER...")
}

func inspectKinds(app *App, all []kind, what string) *cobra.Command {
	cmd := &cobra.Command{Use: "inspect [OPTIONS] " + what, Args: atLeast(1)}
	var format, only string
	var size bool
	formatFlag(cmd, &format, "f")
	cmd.Flags().BoolVarP(&size, "size", "s", false, "Print sizes of containers too")
	if len(all) > 1 {
		cmd.Flags().StringVar(&only, "type", "", "Look at one kind only: container, image, network or volume")
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if only != "" {
			var err error
			if all, err = kindNamed(all, only); err != nil {
				return err
			}
		}
		c, err := app.Client()
		if err != nil {
			return err
		}
		out, err := newInspection(app.Out, format)
		if err != nil {
			return err
		}
		q := url.Values{}
		if size {
			q.Set("size", "1")
		}
		var failed []error
		for _, name := range args {
			if err := inspectOne(cmd.Context(), c, lookup{name, all, q}, out); err != nil {
				failed = append(failed, err)
			}
		}
		if err := out.flush(); err != nil {
			return err
		}
		return each(cmd.Context(), app, make([]string, len(failed)), func(string) error {
			err := failed[0]
			failed = failed[1:]
			return err
		})
	}
	return cmd
}

func kindNamed(all []kind, name string) ([]kind, error) {
	var names []string
	for _, k := range all {
		if k.name == name {
			return []kind{k}, nil
		}
		names = append(names, k.name)
	}
	return nil, fmt.Errorf("--type %s: it can be container, image, network or volume%s", name, didYouMean(name, names, ""))
}

type lookup struct {
	name  string
	kinds []kind
	query url.Values
}

func inspectOne(ctx context.Context, c *client.Client, l lookup, out *inspection) error {
	if l.name == "" {
		return fmt.Errorf("inspect: a name cannot be empty")
	}
	for _, k := range l.kinds {
		var query url.Values
		if k.name == "container" {
			query = l.query
		}
		raw, err := getRaw(ctx, c, k.path(l.name), query)
		if client.IsNotFound(err) && len(l.kinds) > 1 {
			continue
		}
		if err != nil {
			return err
		}
		return out.add(raw, k.typed())
	}
	return fmt.Errorf("no such object: %s", l.name)
}
