package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/volume"
	"github.com/spf13/cobra"

	"wherry.dev/wherry/internal/client"
)

// pruning removes what is not used, of one kind.
type pruning struct {
	what    string // that it removes, for the question
	filters filters
	run     func(ctx context.Context, c *client.Client, out io.Writer, q url.Values) (freed uint64, err error)
}

func (p pruning) do(ctx context.Context, app *App) (uint64, error) {
	c, err := app.Client()
	if err != nil {
		return 0, err
	}
	q := url.Values{}
	p.filters.into(q)
	return p.run(ctx, c, app.Out, q)
}

// pruneCommand asks, prunes, and says what that gave.
func pruneCommand(app *App, makePruning func(c *cobra.Command) func() pruning) *cobra.Command {
	var force bool
	c := &cobra.Command{Use: "prune [OPTIONS]"}
	get := makePruning(c)
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		p := get()
		if !force {
			if err := confirm(app, "WARNING! This will remove "+p.what+".\nAre you sure you want to continue?"); err != nil {
				return err
			}
		}
		freed, err := p.do(cmd.Context(), app)
		if err != nil || strings.Contains(p.what, "networks") {
			return err
		}
		_, err = fmt.Fprintln(app.Out, "Total reclaimed space:", humanTotal(int64(freed)))
		return err
	}
	c.Flags().BoolVarP(&force, "force", "f", false, "Do not ask")
	return c
}

func prunedContainers(f filters) pruning {
	return pruning{what: "all stopped containers", filters: f, run: func(ctx context.Context, c *client.Client, out io.Writer, q url.Values) (uint64, error) {
		var r container.PruneReport
		err := c.Post(ctx, "/containers/prune", q, nil, &r)
		printPruned(out, "Deleted Containers:", r.ContainersDeleted)
		return r.SpaceReclaimed, err
	}}
}

func prunedNetworks(f filters) pruning {
	return pruning{what: "all custom networks not used by at least one container", filters: f, run: func(ctx context.Context, c *client.Client, out io.Writer, q url.Values) (uint64, error) {
		var r network.PruneReport
		err := c.Post(ctx, "/networks/prune", q, nil, &r)
		printPruned(out, "Deleted Networks:", r.NetworksDeleted)
		return 0, err
	}}
}

func prunedVolumes(f filters, all bool) pruning {
	p := pruning{what: "anonymous local volumes not used by at least one container", filters: f}
	if all {
		p.what = "all local volumes not used by at least one container"
		p.filters = with(f, "all", "true")
	}
	p.run = func(ctx context.Context, c *client.Client, out io.Writer, q url.Values) (uint64, error) {
		var r volume.PruneReport
		err := c.Post(ctx, "/volumes/prune", q, nil, &r)
		printPruned(out, "Deleted Volumes:", r.VolumesDeleted)
		return r.SpaceReclaimed, err
	}
	return p
}

func prunedImages(f filters, all bool) pruning {
	p := pruning{what: "all dangling images", filters: with(f, "dangling", fmt.Sprint(!all))}
	if all {
		p.what = "all images without at least one container associated to them"
	}
	p.run = func(ctx context.Context, c *client.Client, out io.Writer, q url.Values) (uint64, error) {
		var r image.PruneReport
		err := c.Post(ctx, "/images/prune", q, nil, &r)
		if len(r.ImagesDeleted) > 0 {
			_ = say(out, "Deleted Images:\n"+deletedText(r.ImagesDeleted, "deleted:", "untagged:"))
		}
		return r.SpaceReclaimed, err
	}
	return p
}

func prunedBuildCache(f filters, all bool) pruning {
	p := pruning{what: "all of the build cache that nothing uses", filters: f}
	p.run = func(ctx context.Context, c *client.Client, out io.Writer, q url.Values) (uint64, error) {
		var r struct {
			CachesDeleted  []string
			SpaceReclaimed uint64
		}
		if all {
			q.Set("all", "1")
		}
		err := c.Post(ctx, "/build/prune", q, nil, &r)
		printPruned(out, "Deleted build cache objects:", r.CachesDeleted)
		return r.SpaceReclaimed, err
	}
	if all {
		p.what = "all of the build cache"
	}
	return p
}

// with is a copy of filters that has one more, unless there is one of the name.
func with(f filters, name, value string) filters {
	f = maps.Clone(f)
	if f == nil {
		f = filters{}
	}
	if f[name] == nil {
		f.add(name, value)
	}
	return f
}

func printPruned(out io.Writer, title string, list []string) {
	if len(list) > 0 {
		_ = say(out, title+"\n"+strings.Join(list, "\n")+"\n")
	}
}

func containerPruneCommand(app *App) *cobra.Command {
	return pruneCommand(app, func(c *cobra.Command) func() pruning {
		f := filterFlag(c, "", "until=24h or label=k=v")
		return func() pruning { return prunedContainers(f) }
	})
}

func networkPruneCommand(app *App) *cobra.Command {
	return pruneCommand(app, func(c *cobra.Command) func() pruning {
		f := filterFlag(c, "", "until=24h or label=k=v")
		return func() pruning { return prunedNetworks(f) }
	})
}

func volumePruneCommand(app *App) *cobra.Command {
	return pruneCommand(app, func(c *cobra.Command) func() pruning {
		f := filterFlag(c, "", "label=k=v")
		all := c.Flags().BoolP("all", "a", false, "Remove named volumes, too")
		return func() pruning { return prunedVolumes(f, *all) }
	})
}

func imagePruneCommand(app *App) *cobra.Command {
	return pruneCommand(app, func(c *cobra.Command) func() pruning {
		f := filterFlag(c, "", "until=24h or label=k=v")
		all := c.Flags().BoolP("all", "a", false, "Remove all that no container uses, not only those without a name")
		return func() pruning { return prunedImages(f, *all) }
	})
}

func systemPruneCommand(app *App) *cobra.Command {
	var all, volumes, force bool
	var f filters
	c := &cobra.Command{Use: "prune [OPTIONS]", RunE: func(cmd *cobra.Command, _ []string) error {
		steps := []pruning{prunedContainers(f), prunedNetworks(f)}
		if volumes {
			if len(f["until"]) > 0 {
				return errors.New(`system prune: volumes have no filter "until": leave it or --volumes out`)
			}
			steps = append(steps, prunedVolumes(f, false))
		}
		steps = append(steps, prunedImages(f, all))
		if len(f["label"]) == 0 && len(f["label!"]) == 0 { // what is in the cache has none
			steps = append(steps, prunedBuildCache(f, all))
		}
		if !force {
			if err := confirm(app, systemQuestion(steps, f)); err != nil {
				return err
			}
		}
		var freed uint64
		for _, p := range steps {
			n, err := p.do(cmd.Context(), app)
			freed += n
			if err != nil {
				return err
			}
		}
		_, err := fmt.Fprintln(app.Out, "Total reclaimed space:", humanTotal(int64(freed)))
		return err
	}}
	c.Flags().BoolVarP(&all, "all", "a", false, "Remove all images that no container uses, not only those without a name, and all of the build cache")
	c.Flags().BoolVar(&volumes, "volumes", false, "Remove anonymous volumes, too")
	c.Flags().BoolVarP(&force, "force", "f", false, "Do not ask")
	f = filterFlag(c, "", "until=24h or label=k=v")
	return c
}

func systemQuestion(steps []pruning, f filters) string {
	var b strings.Builder
	b.WriteString("WARNING! This will remove:\n")
	for _, p := range steps {
		fmt.Fprintf(&b, "  - %s\n", p.what)
	}
	if len(f) > 0 {
		b.WriteString("\n  of these, what meets:\n")
		for _, name := range sorted(f) {
			for _, value := range slices.Sorted(maps.Keys(f[name])) {
				fmt.Fprintf(&b, "  - %s=%s\n", name, value)
			}
		}
	}
	b.WriteString("\nAre you sure you want to continue?")
	return b.String()
}
