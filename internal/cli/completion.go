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
	"github.com/spf13/pflag"
)

const completionHelp = `Usage: wherry completion bash|zsh|fish

Print a script that lets the shell complete commands, flags and names of what there is. (bash needs the package bash-completion.)

Examples:
  source <(wherry completion bash)                                   # for this shell
  wherry completion bash > /etc/bash_completion.d/wherry             # for all from now on
  wherry completion zsh > "${fpath[1]}/_wherry"                      # the same for zsh
  wherry completion fish > ~/.config/fish/completions/wherry.fish    # and for fish
`

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

// completeFlags makes shells complete what flags take: names, or one of a few words.
func completeFlags(app *App, c *cobra.Command) {
	kinds := map[string]string{"network": "NETWORK", "volumes-from": "CONTAINER", "link": "CONTAINER"}
	words := map[string][]string{
		"pull": {"always", "missing", "newer", "never"}, "restart": {"no", "always", "unless-stopped", "on-failure"},
		"condition": {"not-running", "next-exit", "removed", "healthy"}, "on-unhealthy": {"none", "restart", "stop", "kill"},
		"log-driver": {"json-file", "local", "none", "fluentd", "gelf", "journald", "syslog"}, "format": {"json", "table"}, "type": {"container", "image", "network", "volume"},
		"signal": {"HUP", "INT", "QUIT", "KILL", "TERM", "USR1", "USR2"}, "stop-signal": {"HUP", "INT", "QUIT", "KILL", "TERM", "USR1", "USR2"},
		"progress": {"auto", "plain", "tty", "quiet", "rawjson"}, "sort": sortWords(c),
	}
	c.Flags().VisitAll(func(f *pflag.Flag) {
		kind, list := kinds[f.Name], words[f.Name]
		if f.Value.Type() == "bool" || kind == "" && list == nil {
			return
		}
		_ = c.RegisterFlagCompletionFunc(f.Name, func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
			if kind != "" {
				list = names(cmd.Context(), app, kind)
			}
			return list, cobra.ShellCompDirectiveNoFileComp
		})
	})
}

// sortWords are those that the command's --sort takes.
func sortWords(c *cobra.Command) []string {
	if strings.HasPrefix(c.Use, "images") {
		return strings.Split(orders(imageOrders()), ", ")
	}
	return strings.Split(orders(containerOrders()), ", ")
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
