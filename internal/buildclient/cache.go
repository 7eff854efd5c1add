package buildclient

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/buildkit/client"
	"golang.org/x/sync/errgroup"

	"wherry.dev/wherry/internal/buildopt"
)

// Usage prints what builds have left for the next ones.
func (c *Client) Usage(ctx context.Context, u buildopt.Usage) error {
	list, err := c.kit.DiskUsage(ctx, client.WithFilter(u.EngineFilters()))
	if err != nil {
		return plain(err)
	}
	slices.SortFunc(list, func(a, b *client.UsageInfo) int { return cmp.Or(cmp.Compare(b.Size, a.Size), cmp.Compare(a.ID, b.ID)) })
	if u.Format == "json" {
		enc := json.NewEncoder(c.Out)
		for _, r := range list {
			if err := enc.Encode(r); err != nil {
				return err
			}
		}
		return nil
	}
	if err := printUsage(c.Out, list, u.Verbose); err != nil {
		return err
	}
	var sums usageSums
	for _, r := range list {
		sums.add(r)
	}
	_, err = fmt.Fprintf(c.Out, "Shared:\t\t%s\nPrivate:\t%s\nReclaimable:\t%s\nTotal:\t\t%s\n", size(sums.shared), size(sums.total-sums.shared),
		size(sums.free), size(sums.total))
	return err
}

type usageSums struct{ total, shared, free int64 }

func (s *usageSums) add(r *client.UsageInfo) {
	s.total += r.Size
	if r.Shared {
		s.shared += r.Size
	}
	if !r.InUse {
		s.free += r.Size
	}
}

func size(bytes int64) string { return units.HumanSizeWithPrecision(float64(bytes), 4) }

func printUsage(w io.Writer, list []*client.UsageInfo, verbose bool) error {
	if verbose {
		return printEntries(w, list)
	}
	tw := tabwriter.NewWriter(w, 10, 1, 3, ' ', 0)
	fmt.Fprintln(tw, "ID\tRECLAIMABLE\tSIZE\tLAST ACCESSED\tDESCRIPTION")
	for _, r := range list {
		last := ""
		if r.LastUsedAt != nil {
			last = units.HumanDuration(time.Since(*r.LastUsedAt)) + " ago"
		}
		id := r.ID
		if r.Mutable {
			id += "*"
		}
		fmt.Fprintf(tw, "%s\t%v\t%s\t%s\t%s\n", id, !r.InUse, size(r.Size), last, oneLine(r.Description))
	}
	return tw.Flush()
}

func printEntries(w io.Writer, list []*client.UsageInfo) error {
	tw := tabwriter.NewWriter(w, 10, 1, 3, ' ', 0)
	for _, r := range list {
		fmt.Fprintf(tw, "ID:\t%s\nType:\t%s\nDescription:\t%s\nSize:\t%s\nReclaimable:\t%v\nMutable:\t%v\nShared:\t%v\nCreated at:\t%s\nUsage count:\t%d\n",
			r.ID, r.RecordType, oneLine(r.Description), size(r.Size), !r.InUse, r.Mutable, r.Shared, r.CreatedAt.UTC().Format(time.RFC3339), r.UsageCount)
		if r.LastUsedAt != nil {
			fmt.Fprintf(tw, "Last used:\t%s\n", r.LastUsedAt.UTC().Format(time.RFC3339))
		}
		if len(r.Parents) > 0 {
			fmt.Fprintf(tw, "Parents:\t%s\n", strings.Join(r.Parents, ", "))
		}
		fmt.Fprintln(tw)
	}
	return tw.Flush()
}

// oneLine is the beginning of a text, without what moves a terminal's cursor.
func oneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
	if r := []rune(s); len(r) > 60 {
		s = string(r[:59]) + "…"
	}
	return s
}

// Prune removes what builds have left, and says what that gave.
func (c *Client) Prune(ctx context.Context, p buildopt.Prune) error {
	limits, err := p.Limits()
	if err != nil {
		return err
	}
	opts := []client.PruneOption{client.WithFilter(limits.Filters), client.WithKeepOpt(limits.Unused, limits.Reserved, limits.MostUsed, limits.Free)}
	if p.All {
		opts = append(opts, client.PruneAll)
	}
	var removed []*client.UsageInfo
	found := make(chan client.UsageInfo)
	var g errgroup.Group
	g.Go(func() error {
		defer close(found)
		return c.kit.Prune(ctx, found, opts...)
	})
	var total int64
	for r := range found {
		removed = append(removed, &r)
		total += r.Size
	}
	if err := g.Wait(); err != nil {
		return plain(err)
	}
	if len(removed) > 0 {
		if err := printUsage(c.Out, removed, p.Verbose); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintf(c.Out, "Total reclaimed space: %s\n", size(total))
	return err
}
