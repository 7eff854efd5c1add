package cli

import (
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/image"
	"github.com/spf13/cobra"

	"wherry.dev/wherry/internal/login"
)

// imageRow is a line of `images`: an image has one for each of its tags.
type imageRow struct {
	Containers   string
	CreatedAt    string
	CreatedSince string `head:"CREATED"`
	Digest       string
	ID           string `head:"IMAGE ID"`
	Repository   string
	SharedSize   string
	Size         string
	Tag          string
	UniqueSize   string
	VirtualSize  string `head:"SIZE"`
}

func imageLayout(digests bool) layout {
	l := layout{
		table: `{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}`,
		raw:   `repository: {{.Repository}}\ntag: {{.Tag}}\nimage_id: {{.ID}}\ncreated_at: {{.CreatedAt}}\nvirtual_size: {{.Size}}\n`,
	}
	if digests {
		l.table = `{{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}`
		l.raw = strings.Replace(l.raw, `image_id`, `digest: {{.Digest}}\nimage_id`, 1)
	}
	return l
}

// imageNames parts what an image is called: repository, tag and digest of each line that it gets.
func imageNames(i image.Summary, digests bool) [][3]string {
	tags, sums := map[string][]string{}, map[string][]string{}
	var repos []string
	collect := func(into map[string][]string, repo, value string) {
		if repo = familiarName(repo); repo == "<none>" {
			return
		}
		if !slices.Contains(repos, repo) {
			repos = append(repos, repo)
		}
		into[repo] = append(into[repo], value)
	}
	for _, name := range i.RepoTags {
		if at := strings.LastIndexByte(name, ':'); at > 0 {
			collect(tags, name[:at], name[at+1:])
		}
	}
	for _, name := range i.RepoDigests {
		if repo, sum, ok := strings.Cut(name, "@"); ok {
			collect(sums, repo, sum)
		}
	}
	const none = "<none>"
	var lines [][3]string
	for _, repo := range repos {
		here := sums[repo]
		if !digests {
			here = nil
		}
		switch {
		case len(tags[repo]) == 0 && len(here) == 0:
			lines = append(lines, [3]string{repo, none, ""})
		case len(here) == 0:
			for _, tag := range tags[repo] {
				lines = append(lines, [3]string{repo, tag, none})
			}
		case len(tags[repo]) == 0:
			for _, sum := range here {
				lines = append(lines, [3]string{repo, none, sum})
			}
		default:
			for _, tag := range tags[repo] {
				for _, sum := range here {
					lines = append(lines, [3]string{repo, tag, sum})
				}
			}
		}
	}
	if len(lines) == 0 {
		lines = append(lines, [3]string{none, none, none})
	}
	return lines
}

// imageRowOptions of newImageRows.
type imageRowOptions struct {
	whole   bool // do not cut ids
	digests bool
	now     time.Time
}

func newImageRows(list []image.Summary, o imageRowOptions) []imageRow {
	var rows []imageRow
	for _, i := range list {
		for _, name := range imageNames(i, o.digests) {
			row := newImageRow(i, o)
			row.Repository, row.Tag, row.Digest = name[0], name[1], name[2]
			rows = append(rows, row)
		}
	}
	return rows
}

func newImageRow(i image.Summary, o imageRowOptions) imageRow {
	created := time.Unix(i.Created, 0)
	row := imageRow{
		Containers: "N/A", CreatedAt: created.String(), CreatedSince: sinceUnix(o.now, i.Created), ID: i.ID,
		SharedSize: "N/A", Size: humanSize(i.Size), UniqueSize: "N/A", VirtualSize: humanTotal(i.Size),
	}
	if !o.whole {
		row.ID = shortID(i.ID)
	}
	if i.Containers >= 0 {
		row.Containers = strconv.FormatInt(i.Containers, 10)
	}
	if i.SharedSize >= 0 {
		row.SharedSize = humanTotal(i.SharedSize)
		if i.Size >= 0 {
			row.UniqueSize = humanTotal(i.Size - i.SharedSize)
		}
	}
	return row
}

func imagesCommand(app *App) *cobra.Command {
	var all, digests, quiet, whole, tree bool
	var format, order string
	var f filters
	c := &cobra.Command{Use: "images [OPTIONS] [REPOSITORY[:TAG]]", Args: between(0, 1), RunE: func(cmd *cobra.Command, args []string) error {
		if format == "" && !quiet {
			format = configText(app, "imagesFormat")
		}
		rows, err := imageLayout(digests).parseRows(format, quiet)
		if err != nil {
			return err
		}
		by, err := orderNamed(imageOrders(), order)
		if err != nil {
			return err
		}
		if len(args) == 1 {
			f.add("reference", args[0])
		}
		q := url.Values{}
		if all {
			q.Set("all", "1")
		}
		if tree {
			q.Set("manifests", "1")
		}
		f.into(q)
		var list []image.Summary
		cl, err := app.Client()
		if err != nil {
			return err
		}
		if err := cl.Get(cmd.Context(), "/images/json", q, &list); err != nil {
			return err
		}
		slices.SortStableFunc(list, by)
		if tree {
			return printImageTree(app.Out, list, whole)
		}
		digests = digests || strings.Contains(rows.text, ".Digest")
		return writeRows(app.Out, rows, newImageRows(list, imageRowOptions{whole: whole, digests: digests, now: time.Now()}))
	}}
	c.Flags().BoolVarP(&all, "all", "a", false, "Show images without a name that others rest on, too")
	c.Flags().StringVar(&order, "sort", "", "Order by "+orders(imageOrders())+" (default: the newest first)")
	c.Flags().BoolVar(&digests, "digests", false, "Show digests")
	c.Flags().BoolVarP(&quiet, "quiet", "q", false, "Print ids only")
	c.Flags().BoolVar(&whole, "no-trunc", false, "Do not shorten ids")
	c.Flags().BoolVar(&tree, "tree", false, "Show the platforms of each image below it")
	f = filterFlag(c, "f", "dangling=true, label=k=v, before=IMAGE or reference=PATTERN")
	formatFlag(c, &format, "")
	return c
}

// configText is a field of config.json, "" where it or the file is not to be read.
func configText(app *App, field string) string {
	c, err := login.Read(app.Config)
	if err != nil {
		return ""
	}
	var s string
	if c.Field(field, &s) != nil {
		return ""
	}
	return s
}
