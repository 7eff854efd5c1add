package cli

import (
	"context"
	"net/url"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/volume"
	"github.com/spf13/cobra"
)

// completeNames makes shells complete the names that a command's usage asks for: CONTAINER, IMAGE, NETWORK or VOLUME.
func completeNames(app *App, c *cobra.Command) {
	if c.ValidArgsFunction != nil {
		return
	}
	words := strings.FieldsFunc(c.Use, func(r rune) bool { return r < 'A' || r > 'Z' })
	words = slices.DeleteFunc(words, func(w string) bool { return w == "OPTIONS" })
	c.ValidArgsFunction = func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		if len(words) == 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		list := names(cmd.Context(), app, words[min(len(args), len(words)-1)])
		if list == nil {
			return nil, cobra.ShellCompDirectiveDefault
		}
		return slices.DeleteFunc(list, func(n string) bool { return slices.Contains(args, n) }), cobra.ShellCompDirectiveNoFileComp
	}
}

// names asks an engine that runs; completion starts none and says nothing about errors.
func names(ctx context.Context, app *App, word string) (all []string) {
	c, err := app.Client()
	if err != nil {
		return nil
	}
	c.DoNotStart()
	switch word {
	case "OBJECT":
		for _, kind := range []string{"CONTAINER", "IMAGE", "NETWORK", "VOLUME"} {
			all = append(all, names(ctx, app, kind)...)
		}
	case "CONTAINER":
		var list []container.Summary
		if c.Get(ctx, "/containers/json", url.Values{"all": {"1"}}, &list) != nil {
			return nil
		}
		for _, x := range list {
			for _, name := range x.Names {
				all = append(all, strings.TrimPrefix(name, "/"))
			}
		}
	case "IMAGE":
		var list []image.Summary
		if c.Get(ctx, "/images/json", nil, &list) != nil {
			return nil
		}
		for _, x := range list {
			all = append(all, x.RepoTags...)
		}
	case "NETWORK":
		var list []network.Summary
		if c.Get(ctx, "/networks", nil, &list) != nil {
			return nil
		}
		for _, x := range list {
			all = append(all, x.Name)
		}
	case "VOLUME":
		var list volume.ListResponse
		if c.Get(ctx, "/volumes", nil, &list) != nil {
			return nil
		}
		for _, x := range list.Volumes {
			all = append(all, x.Name)
		}
	}
	return all
}
