package cli

import (
	"net/url"
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
	c.ValidArgsFunction = func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		for _, word := range words {
			if list := names(app, cmd, word); list != nil {
				return list, cobra.ShellCompDirectiveNoFileComp
			}
		}
		return nil, cobra.ShellCompDirectiveDefault
	}
}

// names asks an engine that runs; completion starts none and says nothing about errors.
func names(app *App, cmd *cobra.Command, word string) (all []string) {
	c, err := app.Client()
	if err != nil {
		return nil
	}
	c.DoNotStart()
	ctx := cmd.Context()
	switch word {
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
