package cli

import (
	"net/url"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/registry"
	"github.com/spf13/cobra"

	"wherry.dev/wherry/internal/client"
)

// searchRow is a line of `search`.
type searchRow struct {
	Description string
	IsAutomated string `head:"AUTOMATED"`
	IsOfficial  string `head:"OFFICIAL"`
	Name        string
	StarCount   string `head:"STARS"`
}

func newSearchRow(r registry.SearchResult, whole bool) searchRow {
	description := strings.Join(strings.Fields(r.Description), " ")
	if !whole {
		description = ellipsis(description, 45)
	}
	row := searchRow{Description: description, Name: r.Name, StarCount: strconv.Itoa(r.StarCount)}
	if r.IsOfficial {
		row.IsOfficial = "[OK]"
	}
	return row
}

func searchCommand(app *App) *cobra.Command {
	var format string
	var whole bool
	var limit int
	var f filters
	c := &cobra.Command{Use: "search [OPTIONS] TERM", Args: exactly(1), RunE: func(cmd *cobra.Command, args []string) error {
		l := layout{table: `{{.Name}}\t{{.Description}}\t{{.StarCount}}\t{{.IsOfficial}}`}
		t, err := l.parseRows(format, false)
		if err != nil {
			return err
		}
		q := url.Values{"term": {args[0]}}
		if limit != 0 {
			q.Set("limit", strconv.Itoa(limit))
		}
		f.into(q)
		cl, err := app.Client()
		if err != nil {
			return err
		}
		var found []registry.SearchResult
		r := client.Request{Path: "/images/search", Query: q, Header: authHeader(app, splitName(args[0]).registry)}
		if err := cl.Do(cmd.Context(), r, &found); err != nil {
			return err
		}
		rows := make([]searchRow, len(found))
		for i, one := range found {
			rows[i] = newSearchRow(one, whole)
		}
		return writeRows(app.Out, t, rows)
	}}
	formatFlag(c, &format, "")
	f = filterFlag(c, "f", "stars=3 or is-official=true")
	c.Flags().IntVar(&limit, "limit", 0, "At most this many, up to 100 (default 25)")
	c.Flags().BoolVar(&whole, "no-trunc", false, "Print descriptions whole")
	return c
}
