package cli

import (
	"cmp"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"

	"github.com/moby/moby/api/types/image"
	"github.com/spf13/cobra"

	"wherry.dev/wherry/internal/client"
)

func tagCommand(app *App) *cobra.Command {
	return &cobra.Command{Use: "tag IMAGE[:TAG] NEW[:TAG]", Args: exactly(2), RunE: func(cmd *cobra.Command, args []string) error {
		c, err := app.Client()
		if err != nil {
			return err
		}
		if err := oneTag(args[1]); err != nil {
			return err
		}
		n := splitName(args[1])
		if n.digest != "" {
			return fmt.Errorf("tag %s: the new name may not have a digest: leave the @… out", args[1])
		}
		q := url.Values{"repo": {repository(args[1])}, "tag": {cmp.Or(n.tag, "latest")}}
		return c.Post(cmd.Context(), imagePath(args[0], "/tag"), q, nil, nil)
	}}
}

func rmiCommand(app *App) *cobra.Command {
	var force, noPrune bool
	var platforms []string
	c := &cobra.Command{Use: "rmi [OPTIONS] IMAGE...", Args: atLeast(1), RunE: func(cmd *cobra.Command, args []string) error {
		q := url.Values{}
		if force {
			q.Set("force", "1")
		}
		if noPrune {
			q.Set("noprune", "1")
		}
		if err := addPlatforms(q, "platforms", platforms); err != nil {
			return err
		}
		cl, err := app.Client()
		if err != nil {
			return err
		}
		return each(cmd.Context(), app, args, func(name string) error {
			var done []image.DeleteResponse
			err := cl.Delete(cmd.Context(), imagePath(name, ""), q, &done)
			if force && client.IsNotFound(err) {
				printError(app.Err, err) // what is to be gone is gone
				return nil
			}
			if err != nil {
				return err
			}
			_, err = io.WriteString(app.Out, printable(deletedText(done, "Deleted:", "Untagged:")))
			return err
		})
	}}
	c.Flags().BoolVarP(&force, "force", "f", false, "Remove names of an image that containers use, too")
	c.Flags().BoolVar(&noPrune, "no-prune", false, "Keep nameless images that it rests on")
	c.Flags().StringSliceVar(&platforms, "platform", nil, "Remove only one platform of it, such as linux/arm64")
	return c
}

func deletedText(list []image.DeleteResponse, deleted, untagged string) string {
	var b strings.Builder
	for _, d := range list {
		if d.Deleted != "" {
			fmt.Fprintln(&b, deleted, d.Deleted)
		} else {
			fmt.Fprintln(&b, untagged, d.Untagged)
		}
	}
	return b.String()
}

// historyRow is a line of `history`.
type historyRow struct {
	Comment      string
	CreatedAt    string
	CreatedBy    string
	CreatedSince string `head:"CREATED"`
	ID           string `head:"IMAGE"`
	Size         string
}

// historyOptions of newHistoryRow.
type historyOptions struct {
	whole bool // do not cut
	exact bool // bytes and dates instead of words
	now   time.Time
}

func newHistoryRow(h image.HistoryResponseItem, o historyOptions) historyRow {
	created := time.Unix(h.Created, 0)
	row := historyRow{
		Comment: h.Comment, CreatedAt: created.Format(time.RFC3339), CreatedBy: strings.ReplaceAll(h.CreatedBy, "\t", " "),
		ID: h.ID, Size: humanSize(h.Size), CreatedSince: sinceUnix(o.now, h.Created),
	}
	if o.exact {
		row.Size, row.CreatedSince = fmt.Sprint(h.Size), row.CreatedAt
	}
	if !o.whole {
		row.ID, row.CreatedBy = shortID(row.ID), ellipsis(row.CreatedBy, 45)
	}
	return row
}

func historyCommand(app *App) *cobra.Command {
	var format, platform string
	var human, quiet, whole bool
	c := &cobra.Command{Use: "history [OPTIONS] IMAGE", Args: exactly(1), RunE: func(cmd *cobra.Command, args []string) error {
		l := layout{table: `{{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}`}
		if !human {
			l.table = strings.Replace(l.table, "CreatedSince", "CreatedAt", 1)
		}
		f, err := l.parseRows(format, quiet)
		if err != nil {
			return err
		}
		q := url.Values{}
		if platform != "" {
			p, err := platformJSON(platform)
			if err != nil {
				return err
			}
			q.Set("platform", p)
		}
		cl, err := app.Client()
		if err != nil {
			return err
		}
		var list []image.HistoryResponseItem
		if err := cl.Get(cmd.Context(), imagePath(args[0], "/history"), q, &list); err != nil {
			return err
		}
		var rows []historyRow
		for _, h := range list {
			rows = append(rows, newHistoryRow(h, historyOptions{whole: whole, exact: !human, now: time.Now()}))
		}
		return writeRows(app.Out, f, rows)
	}}
	c.Flags().BoolVarP(&human, "human", "H", true, "Print sizes and dates for people")
	c.Flags().BoolVarP(&quiet, "quiet", "q", false, "Print ids only")
	c.Flags().BoolVar(&whole, "no-trunc", false, "Do not shorten anything")
	c.Flags().StringVar(&platform, "platform", "", "Of one platform, such as linux/arm64")
	formatFlag(c, &format, "")
	return c
}

// oneInspect is a command that inspects objects of one kind; path gives an object's route.
func oneInspect[T any](app *App, use string, path func(name string) (string, url.Values, error)) *cobra.Command {
	var format string
	c := &cobra.Command{Use: "inspect [OPTIONS] " + use + "...", Args: atLeast(1), RunE: func(cmd *cobra.Command, args []string) error {
		cl, err := app.Client()
		if err != nil {
			return err
		}
		return inspectAll[T](app, format, args, func(name string) ([]byte, error) {
			p, q, err := path(name)
			if err != nil {
				return nil, err
			}
			return getRaw(cmd.Context(), cl, p, q)
		})
	}}
	formatFlag(c, &format, "f")
	return c
}

func imageInspectCommand(app *App) *cobra.Command {
	var platform string
	c := oneInspect[image.InspectResponse](app, "IMAGE", func(name string) (string, url.Values, error) {
		q := url.Values{}
		if platform != "" {
			p, err := platformJSON(platform)
			if err != nil {
				return "", nil, err
			}
			q.Set("platform", p)
		}
		return imagePath(name, "/json"), q, nil
	})
	c.Flags().StringVar(&platform, "platform", "", "Of one platform, such as linux/arm64")
	return c
}
