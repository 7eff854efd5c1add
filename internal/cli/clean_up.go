package cli

import (
	"cmp"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

func pinCommand(app *App, pin bool) *cobra.Command {
	use, least := "pin [IMAGE...]", 0
	if !pin {
		use, least = "unpin IMAGE...", 1
	}
	return &cobra.Command{Use: use, Args: atLeast(least), RunE: func(cmd *cobra.Command, args []string) error {
		cl, err := app.Client()
		if err != nil {
			return err
		}
		if len(args) == 0 {
			var list []string
			if err := cl.Get(cmd.Context(), "/wherry/pins", nil, &list); err != nil || len(list) == 0 {
				return err
			}
			return say(app.Out, strings.Join(list, "\n"))
		}
		return each(cmd.Context(), app, args, func(name string) error {
			q := url.Values{"name": {name}}
			if pin {
				return cl.Post(cmd.Context(), "/wherry/pins", q, nil, nil)
			}
			return cl.Delete(cmd.Context(), "/wherry/pins", q, nil)
		})
	}}
}

// cleanUp is the engine's report.
type cleanUp struct {
	Enabled                          bool
	Measure                          string
	Capacity, Used, High, Low, Freed int64
	Removed                          []struct {
		ID       string
		Names    []string
		LastUsed time.Time
		Frees    int64
	}
	Failed []string
	Kept   map[string]int
}

func cleanUpCommand(app *App) *cobra.Command {
	var dry bool
	var to string
	c := &cobra.Command{Use: "clean-up [OPTIONS]", RunE: func(cmd *cobra.Command, _ []string) error {
		q := url.Values{}
		if dry {
			q.Set("dry-run", "1")
		}
		if to != "" {
			q.Set("to", to)
		}
		cl, err := app.Client()
		if err != nil {
			return err
		}
		var r cleanUp
		if err := cl.Post(cmd.Context(), "/wherry/clean-up", q, nil, &r); err != nil {
			return err
		}
		if _, err := app.Out.Write(alignColumns([]byte(r.text(dry, time.Now())))); err != nil || len(r.Failed) == 0 {
			return err
		}
		return fmt.Errorf("some images could not be removed: %s", strings.Join(r.Failed, "; "))
	}}
	c.Flags().BoolVar(&dry, "dry-run", false, "Only say what would be removed")
	c.Flags().StringVar(&to, "to", "", "Remove until no more than this is used, such as 50% or 20GB (default: what the engine's settings say)")
	return c
}

func (r *cleanUp) text(dry bool, now time.Time) string {
	var b strings.Builder
	of := "the disk has " + humanTotal(r.Used) + " of " + humanTotal(r.Capacity) + " in use"
	if r.Measure == "store" {
		of = "images take " + humanTotal(r.Used)
	}
	if r.Used <= r.High {
		fmt.Fprintf(&b, "Nothing to do: %s, and cleaning begins above %s\n", of, humanTotal(r.High))
		return b.String()
	}
	if len(r.Removed) > 0 {
		b.WriteString("IMAGE\tID\tLAST USED\tFREES\n")
	}
	for _, i := range r.Removed {
		fmt.Fprintf(&b, "%s\t%s\t%s\t%s\n", cmp.Or(strings.Join(i.Names, ", "), "<none>"), shortID(i.ID), ago(now, i.LastUsed), humanTotal(i.Frees))
	}
	word := "Freed"
	if dry {
		word = "Would free"
	}
	fmt.Fprintf(&b, "%s %s: %s, and the aim is %s\n", word, humanTotal(r.Freed), of, humanTotal(r.Low))
	if r.Used-r.Freed > r.Low {
		for _, why := range slices.Sorted(maps.Keys(r.Kept)) {
			fmt.Fprintf(&b, "Kept: %d %s\n", r.Kept[why], why)
		}
	}
	return b.String()
}
