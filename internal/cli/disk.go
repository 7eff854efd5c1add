package cli

import (
	"cmp"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/api/types/volume"
	"github.com/spf13/cobra"
)

// diskUsage is the engine's answer: lists, and in newer engines sums beside them.
type diskUsage struct {
	LayersSize int64
	Images     []image.Summary
	Containers []container.Summary
	Volumes    []volume.Volume
	BuildCache []build.CacheRecord
	system.DiskUsage
	Other *otherUsage // of Wherry's engine only
}

// otherUsage is what Docker's usage leaves out.
type otherUsage struct {
	TotalSize, UniqueSize, SharedSize, UnusedSize, EntireSize, RootCapacity, RootFree int64
	Items                                                                             []otherRow
}

// otherRow is a line of what is neither image nor container nor volume.
type otherRow struct {
	Name string
	Size int64
}

// usageRow is a line of `system df`.
type usageRow struct {
	Active      string
	Reclaimable string
	Size        string
	TotalCount  string `head:"TOTAL"`
	Type        string
}

// usage counts one kind of object.
type usage struct{ total, active, size, free int64 }

func (u usage) row(kind string) usageRow {
	row := usageRow{
		Active: strconv.FormatInt(u.active, 10), Reclaimable: humanTotal(u.free), Size: humanTotal(u.size),
		TotalCount: strconv.FormatInt(u.total, 10), Type: kind,
	}
	if u.size > 0 && kind != "Build Cache" {
		row.Reclaimable += fmt.Sprintf(" (%d%%)", u.free*100/u.size)
	}
	return row
}

func (d *diskUsage) images() usage {
	u := usage{total: int64(len(d.Images)), size: d.LayersSize, free: d.LayersSize}
	for _, i := range d.Images {
		if i.Containers > 0 {
			u.active++
			u.free -= i.Size - max(i.SharedSize, 0)
		}
	}
	if d.ImageUsage != nil { // the engine knows what layers are shared by whom
		u.size, u.free = d.ImageUsage.TotalSize, d.ImageUsage.Reclaimable
	}
	u.free = max(u.free, 0)
	return u
}

func (d *diskUsage) containers() usage {
	u := usage{total: int64(len(d.Containers))}
	for _, c := range d.Containers {
		u.size += c.SizeRw
		switch c.State {
		case container.StateRunning, container.StatePaused, container.StateRestarting:
			u.active++
		default:
			u.free += c.SizeRw
		}
	}
	return u
}

func (d *diskUsage) volumes() usage {
	u := usage{total: int64(len(d.Volumes))}
	for _, v := range d.Volumes {
		if v.UsageData == nil {
			continue
		}
		size := max(v.UsageData.Size, 0)
		u.size += size
		if v.UsageData.RefCount > 0 {
			u.active++
		} else {
			u.free += size
		}
	}
	return u
}

func (d *diskUsage) cache() usage {
	u := usage{total: int64(len(d.BuildCache))}
	for _, r := range d.BuildCache {
		if r.InUse {
			u.active++
		}
		if !r.Shared {
			u.size += r.Size
			if !r.InUse {
				u.free += r.Size
			}
		}
	}
	return u
}

func (d *diskUsage) rows() []usageRow {
	rows := []usageRow{d.images().row("Images"), d.containers().row("Containers"), d.volumes().row("Local Volumes"), d.cache().row("Build Cache")}
	if o := d.Other; o != nil {
		rows = append(rows, usageRow{Type: "Other", TotalCount: "-", Active: "-", Size: humanTotal(o.TotalSize), Reclaimable: humanTotal(0)})
	}
	return rows
}

func diskUsageCommand(app *App) *cobra.Command {
	var verbose bool
	var format string
	c := &cobra.Command{Use: "df [OPTIONS]", RunE: func(cmd *cobra.Command, _ []string) error {
		l := layout{
			table: `{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}`,
			raw:   `type: {{.Type}}\ntotal: {{.TotalCount}}\nactive: {{.Active}}\nsize: {{.Size}}\nreclaimable: {{.Reclaimable}}\n`,
		}
		f, err := l.parseRows(format, false)
		if err != nil {
			return err
		}
		cl, err := app.Client()
		if err != nil {
			return err
		}
		var d diskUsage
		if err := cl.Get(cmd.Context(), "/system/df", nil, &d); err != nil {
			return err
		}
		if !verbose {
			return writeRows(app.Out, f, d.rows())
		}
		v := newDiskView(d, format == "" || format == "table")
		if format == "table" {
			format = ""
		}
		return printObject(app.Out, format, v, func(w io.Writer) error { return v.print(w, d.cache().size) })
	}}
	c.Flags().BoolVarP(&verbose, "verbose", "v", false, "List what there is, not only sums")
	formatFlag(c, &format, "")
	return c
}

// diskView is all that takes space, for `system df -v`.
type diskView struct {
	Images     []imageRow
	Containers []containerRow
	Volumes    []volumeRow
	BuildCache []cacheRow
	Other      *otherUsage `json:",omitempty"`
}

// cacheRow is a piece of the build cache.
type cacheRow struct {
	CacheType     string
	CreatedAt     string
	CreatedSince  string `head:"CREATED"`
	Description   string
	ID            string `head:"CACHE ID"`
	InUse         string
	LastUsedAt    string
	LastUsedSince string `head:"LAST USED"`
	Parent        string
	Shared        string
	Size          string
	UsageCount    string `head:"USAGE"`
}

func newDiskView(d diskUsage, short bool) diskView {
	now := time.Now()
	v := diskView{Other: d.Other}
	for _, i := range d.Images {
		row := newImageRow(i, imageRowOptions{whole: !short, now: now})
		name := imageNames(i, false)[0]
		row.Repository, row.Tag = name[0], name[1]
		v.Images = append(v.Images, row)
	}
	for _, c := range d.Containers {
		c.SizeRootFs = 0
		v.Containers = append(v.Containers, newContainerRow(c, short, now))
	}
	for _, one := range d.Volumes {
		v.Volumes = append(v.Volumes, newVolumeRow(one))
	}
	for _, r := range d.BuildCache {
		row := cacheRow{
			CacheType: r.Type, CreatedAt: r.CreatedAt.String(), CreatedSince: ago(now, r.CreatedAt), Description: r.Description, ID: r.ID,
			InUse: strconv.FormatBool(r.InUse), Shared: strconv.FormatBool(r.Shared), Size: humanSize(r.Size), UsageCount: strconv.Itoa(r.UsageCount),
		}
		if short {
			row.ID = shortID(r.ID)
		}
		if r.LastUsedAt != nil {
			row.LastUsedAt, row.LastUsedSince = r.LastUsedAt.String(), ago(now, *r.LastUsedAt)
		}
		v.BuildCache = append(v.BuildCache, row)
	}
	return v
}

func (v diskView) print(w io.Writer, cache int64) error {
	images := "Images space usage:\n\n"
	if o := v.Other; o != nil {
		images = fmt.Sprintf("Images space usage: %s, of which %s belong to several images, %s to one, %s to none\n\n",
			humanTotal(o.SharedSize+o.UniqueSize+o.UnusedSize), humanTotal(o.SharedSize), humanTotal(o.UniqueSize), humanTotal(o.UnusedSize))
	}
	return cmp.Or(
		section(w, images, v.Images,
			`{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}\t{{.SharedSize}}\t{{.UniqueSize}}\t{{.Containers}}`),
		section(w, "\nContainers space usage:\n\n", v.Containers,
			`{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.LocalVolumes}}\t{{.Size}}\t{{.RunningFor}}\t{{.Status}}\t{{.Names}}`),
		section(w, "\nLocal Volumes space usage:\n\n", v.Volumes, `{{.Name}}\t{{.Links}}\t{{.Size}}`),
		section(w, fmt.Sprintf("\nBuild cache usage: %s\n\n", humanTotal(cache)), v.BuildCache,
			`{{.ID}}\t{{.CacheType}}\t{{.Size}}\t{{.CreatedSince}}\t{{.LastUsedSince}}\t{{.UsageCount}}\t{{.Shared}}`),
		v.printOther(w),
	)
}

// printOther shows the rest, and that all together is what du finds.
func (v diskView) printOther(w io.Writer) error {
	o := v.Other
	if o == nil {
		return nil
	}
	type row struct{ Name, Size string }
	rows := make([]row, 0, len(o.Items))
	for _, i := range o.Items {
		rows = append(rows, row{i.Name, humanTotal(i.Size)})
	}
	if err := section(w, fmt.Sprintf("\nOther space usage: %s\n\n", humanTotal(o.TotalSize)), rows, `{{.Name}}\t{{.Size}}`); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\nAll together: %s of a disk of %s, where %s are free\n", humanTotal(o.EntireSize), humanTotal(o.RootCapacity), humanTotal(o.RootFree))
	return err
}

func section[T any](w io.Writer, title string, rows []T, table string) error {
	f, err := layout{table: table}.parseRows("", false)
	if err != nil {
		return err
	}
	if _, err := io.WriteString(w, title); err != nil {
		return err
	}
	return writeRows(w, f, rows)
}
