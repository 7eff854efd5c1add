package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/image"
	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"

	"wherry.dev/wherry/internal/client"
)

// driftRow is a line of `image drift`. Digests are whole; tables shorten them.
type driftRow struct {
	Container string
	Here      string // what the reference means in the engine's store
	Image     string
	Now       string `head:"AT ITS REGISTRY"`
	Runs      string // what the container was made of
	State     string
	platform  string // of the container
}

// The states of an image or a container.
const (
	driftSame    = "same"
	driftMoved   = "moved"
	driftGone    = "gone"       // the registry has no such tag any more
	driftPinned  = "pinned"     // by a digest: it cannot move
	driftOwn     = "not pulled" // nor pushed: it is nobody's business but this machine's
	driftUnknown = "not known"  // the registry was not asked, or did not answer
)

// driftOptions of image drift.
type driftOptions struct {
	containers, all, local, json, exitCode, files, whole bool
	format, platform                                     string
}

func driftCommand(app *App) *cobra.Command {
	var o driftOptions
	c := &cobra.Command{Use: "drift [OPTIONS] [IMAGE...]", Args: atLeast(0), Long: driftHelp, RunE: func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 && o.all || o.all && o.containers {
			return &exitError{125, errors.New("-a is all images and all containers: leave IMAGE and --containers out")}
		}
		if o.json {
			if o.format != "" && o.format != "json" {
				return &exitError{125, errors.New("--json and --format contradict each other: keep one")}
			}
			o.format = "json"
		}
		d := &drift{app: app, o: o}
		return d.run(cmd.Context(), args)
	}}
	fs := c.Flags()
	fs.BoolVarP(&o.all, "all", "a", false, "Images and containers")
	fs.BoolVar(&o.containers, "containers", false, "Containers (those of IMAGE), not images")
	fs.BoolVar(&o.local, "local", false, "Ask no registry: hold containers against what their tags mean here")
	fs.BoolVar(&o.files, "files", false, "Print which files differ, for each that has moved")
	fs.BoolVar(&o.exitCode, "exit-code", false, "End with 1 where something has moved or gone, with 2 where a registry could not be asked")
	fs.BoolVar(&o.json, "json", false, "The same as --format json")
	fs.BoolVar(&o.whole, "no-trunc", false, "Do not shorten digests")
	fs.StringVar(&o.platform, "platform", "", "Platform whose files --files compares, such as linux/arm64")
	formatFlag(c, &o.format, "")
	return c
}

const driftHelp = `Say which tags have moved, and what runs old images

The registry is asked what the tags of pulled images mean now (IMAGE: only these). A container has
moved when it was made of another image than its tag means now, at the registry or here. Nothing is
pulled, and no tag is changed; only --files downloads layers, to compare them.`

// drift is one call of image drift.
type drift struct {
	app  *App
	o    driftOptions
	here map[string]found // by reference in full
	now  map[string]found
	rows []driftRow
}

func (d *drift) run(ctx context.Context, args []string) error {
	rows, err := d.layout().parseRows(d.o.format, false)
	if err != nil {
		return err
	}
	names, listed, err := d.subjects(ctx, args)
	if err != nil {
		return err
	}
	d.look(ctx, names, len(args) > 0)
	if !d.o.containers {
		if err := d.images(names, args); err != nil {
			return err
		}
	}
	for _, c := range listed {
		d.container(c)
	}
	d.sayUnreachable()
	if err := writeRows(d.app.Out, rows, d.shown(rows)); err != nil {
		return err
	}
	if d.o.files {
		if err := d.files(ctx); err != nil {
			return err
		}
	}
	return d.status()
}

func (d *drift) layout() layout {
	if d.o.containers || d.o.all {
		return layout{table: `{{.Container}}\t{{.Image}}\t{{.State}}\t{{.Runs}}\t{{.Here}}\t{{.Now}}`}
	}
	return layout{table: `{{.Image}}\t{{.State}}\t{{.Here}}\t{{.Now}}`}
}

// shown are the rows with digests as short as the table has room for.
func (d *drift) shown(f rowFormat) []driftRow {
	rows := slices.Clone(d.rows)
	for i := range rows {
		r := &rows[i]
		if f.table {
			r.Container, r.Runs = cmp.Or(r.Container, "-"), cmp.Or(r.Runs, "-")
			r.Here, r.Now = cmp.Or(r.Here, "-"), cmp.Or(r.Now, "-")
		}
		if f.table && !d.o.whole {
			for _, s := range []*string{&r.Runs, &r.Here, &r.Now} {
				*s = shortDigest(digest.Digest(*s))
			}
		}
	}
	return rows
}

// origin is what a container was made of, as inspect has it.
type origin struct {
	name      string
	reference string // as it was written
	full      string // with its tag; "" where the image was named by its id
	digest    digest.Digest
	platform  string
}

// subjects are the references and the containers to look at.
func (d *drift) subjects(ctx context.Context, args []string) (names []string, listed []origin, err error) {
	c, err := d.app.Client()
	if err != nil {
		return nil, nil, err
	}
	wanted := map[string]bool{}
	for _, arg := range args {
		wanted[taggedName(arg)] = true
	}
	if len(args) == 0 && !d.o.containers {
		var list []image.Summary
		if err := c.Get(ctx, "/images/json", nil, &list); err != nil {
			return nil, nil, err
		}
		for _, img := range list {
			for _, tag := range img.RepoTags {
				wanted[taggedName(tag)] = true
			}
		}
	}
	if !d.o.containers && !d.o.all {
		return sorted(wanted), nil, nil
	}
	var list []container.Summary
	if err := c.Get(ctx, "/containers/json", map[string][]string{"all": {"1"}}, &list); err != nil {
		return nil, nil, err
	}
	names = sorted(wanted)
	for _, sum := range list {
		o, err := originOf(ctx, c, sum.ID)
		if client.IsNotFound(err) {
			continue // it has gone since
		}
		if err != nil {
			return nil, nil, err
		}
		if len(args) > 0 && !wanted[o.full] {
			continue
		}
		listed = append(listed, o)
		if o.full != "" && !slices.Contains(names, o.full) {
			names = append(names, o.full)
		}
	}
	slices.SortFunc(listed, func(a, b origin) int { return strings.Compare(a.name, b.name) })
	return names, listed, nil
}

func originOf(ctx context.Context, c *client.Client, id string) (origin, error) {
	var about struct {
		Name   string
		Wherry struct {
			Image struct {
				Reference, Name, Platform string
				Digest                    digest.Digest
			}
		}
	}
	if err := c.Get(ctx, containerPath(id, "/json"), nil, &about); err != nil {
		return origin{}, err
	}
	img := about.Wherry.Image
	o := origin{name: strings.TrimPrefix(about.Name, "/"), reference: img.Reference, digest: img.Digest, platform: img.Platform}
	if img.Name != "" {
		o.full = taggedName(img.Name)
	}
	return o, nil
}

// look asks what names mean: here, and at the registries of those that came from there, or of all that were named.
func (d *drift) look(ctx context.Context, names []string, named bool) {
	d.here = meansAll(ctx, d.app, names, place{})
	d.now = map[string]found{}
	if d.o.local {
		return
	}
	pulled := slices.DeleteFunc(slices.Clone(names), func(name string) bool {
		f := d.here[name]
		return !named && f.err == nil && f.Pulled == nil && f.Pushed == nil
	})
	d.now = meansAll(ctx, d.app, pulled, place{registry: true})
}

// images makes a row for each tag.
func (d *drift) images(names, args []string) error {
	for _, name := range names {
		here, asked := d.here[name], len(args) > 0
		if here.err != nil && asked {
			return here.err
		}
		if here.err != nil {
			continue // a container's tag that is not here any more
		}
		row := driftRow{Image: familiarName(name), Here: here.Digest.String()}
		now, ok := d.now[name]
		row.Now, row.State = now.Digest.String(), d.state(now, ok, here.Digest)
		if !ok && !d.o.local {
			row.State = driftOwn
		}
		d.rows = append(d.rows, row)
	}
	return nil
}

// state holds what somebody has against what a registry says.
func (d *drift) state(now found, asked bool, has digest.Digest) string {
	switch {
	case !asked:
		return driftUnknown
	case client.IsNotFound(now.err):
		return driftGone
	case now.err != nil:
		return driftUnknown
	case now.Digest != has:
		return driftMoved
	}
	return driftSame
}

func (d *drift) container(o origin) {
	row := driftRow{Container: o.name, Image: familiarName(o.reference), Runs: o.digest.String(), platform: o.platform}
	here, now := d.here[o.full], found{}
	asked := false
	if o.full != "" {
		now, asked = d.now[o.full]
		row.Here, row.Now = here.Digest.String(), now.Digest.String()
	}
	name, sum, pinned := strings.Cut(row.Image, "@")
	switch {
	case o.full == "" || pinned && sum == o.digest.String():
		row.State = driftPinned
		if pinned {
			row.Image = name
		}
	case here.err == nil && here.Digest != o.digest:
		row.State = driftMoved
	default:
		row.State = d.state(now, asked, o.digest)
		if !asked && here.err == nil {
			row.State = driftSame // as far as this machine knows
		}
	}
	d.rows = append(d.rows, row)
}

// sayUnreachable names each registry that did not answer, once.
func (d *drift) sayUnreachable() {
	why := map[string]error{}
	count := map[string]int{}
	for _, name := range sorted(d.now) {
		err := d.now[name].err
		if err == nil || client.IsNotFound(err) {
			continue
		}
		host := splitName(name).registry
		count[host]++
		why[host] = err
	}
	for _, host := range slices.Sorted(maps.Keys(why)) {
		fmt.Fprintf(d.app.Err, "%s cannot say what %s now: %s\n", host, plural(count[host], "image means", "images mean"),
			printable(strings.TrimSpace(why[host].Error())))
	}
}

// status is the exit status for scripts, where they want one.
func (d *drift) status() error {
	if !d.o.exitCode {
		return nil
	}
	unknown := false
	for _, f := range d.now {
		unknown = unknown || f.err != nil && !client.IsNotFound(f.err)
	}
	for _, r := range d.rows {
		if r.State == driftMoved || r.State == driftGone {
			return &exitError{code: 1}
		}
	}
	if unknown {
		return &exitError{code: 2}
	}
	return nil
}
