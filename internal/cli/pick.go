package cli

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"
)

// pick is which containers a command is about: those that are named, or those of --all, --filter and --latest.
type pick struct {
	all, latest bool
	filters     filters
	states      []container.ContainerState // that --all and --filter look for; none: every one
}

// pickFlags gives a command --all, --filter and --latest, the first and the last with the letters a and l where letters has them, and has it
// take no names beside them.
func pickFlags(cmd *cobra.Command, letters string, states ...container.ContainerState) *pick {
	p := &pick{states: states}
	letter := func(c string) string { return c[:btoi(strings.Contains(letters, c))] }
	about := "All containers"
	if len(states) > 0 {
		words := make([]string, len(states))
		for i, s := range states {
			words[i] = string(s)
		}
		about += " that are " + strings.Join(words, " or ")
	}
	fs := cmd.Flags()
	fs.BoolVarP(&p.all, "all", letter("a"), false, about)
	fs.BoolVarP(&p.latest, "latest", letter("l"), false, "The one that was made last")
	p.filters = filterFlag(cmd, "", "label=k=v")
	cmd.Args = func(c *cobra.Command, args []string) error {
		ways := btoi(p.all || len(p.filters) > 0) + btoi(p.latest)
		switch {
		case ways == 0:
			return atLeast(1)(c, args)
		case ways > 1:
			return errors.New("--latest is one container: leave out --all and --filter")
		case len(args) > 0:
			return fmt.Errorf("%s is named and others are asked for by a flag: keep the names, or --all, --filter and --latest", args[0])
		}
		return nil
	}
	return p
}

// names are those of the containers; none is no error but of --latest.
func (p *pick) names(ctx context.Context, app *App, args []string) ([]string, error) {
	if !p.all && !p.latest && len(p.filters) == 0 {
		return args, nil
	}
	q := url.Values{"all": {"1"}}
	if p.latest {
		q.Set("limit", "1")
	}
	f := filters{}
	for name, values := range p.filters {
		f[name] = values
	}
	if f["status"] == nil && !p.latest {
		for _, s := range p.states {
			f.add("status", string(s))
		}
	}
	f.into(q)
	c, err := app.Client()
	if err != nil {
		return nil, err
	}
	var list []container.Summary
	if err := c.Get(ctx, "/containers/json", q, &list); err != nil {
		return nil, err
	}
	if p.latest && len(list) == 0 {
		return nil, errors.New("--latest: there is no container")
	}
	names := make([]string, len(list))
	for i, s := range list {
		names[i] = ownName(s)
	}
	return names, nil
}

// ownName is a container's name, not one of those that links give it.
func ownName(s container.Summary) string {
	at := slices.IndexFunc(s.Names, func(n string) bool { return strings.LastIndexByte(n, '/') == 0 })
	if at < 0 {
		return s.ID
	}
	return s.Names[at][1:]
}
