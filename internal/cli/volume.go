package cli

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/volume"
	"github.com/spf13/cobra"
)

func volumeCommands() []command {
	line := func(name, short string, build func(*App) *cobra.Command, also ...string) command {
		return command{name: name, also: also, group: groupOther, short: short, build: build}
	}
	return []command{
		line("volume create", "Make a volume", volumeCreateCommand),
		line("volume ls", "List volumes", volumeListCommand, "volume list"),
		line("volume inspect", "Print all about volumes", func(app *App) *cobra.Command {
			return oneInspect[volume.Volume](app, "VOLUME", func(name string) (string, url.Values, error) {
				return "/volumes/" + url.PathEscape(name), nil, nil
			})
		}),
		line("volume rm", "Remove volumes", volumeRemoveCommand, "volume remove"),
		line("volume prune", "Remove volumes that no container uses", volumePruneCommand),
	}
}

// volumeRow is a line of `volume ls`.
type volumeRow struct {
	Availability string
	Driver       string
	Group        string
	Labels       string
	Links        string
	Mountpoint   string
	Name         string `head:"VOLUME NAME"`
	Scope        string
	Size         string
	Status       string
	labels       map[string]string
}

// Label is the value of one label.
func (r volumeRow) Label(name string) string { return r.labels[name] }

func newVolumeRow(v volume.Volume) volumeRow {
	row := volumeRow{
		Availability: "N/A", Driver: v.Driver, Group: "N/A", Labels: labelText(v.Labels), Links: "N/A", Mountpoint: v.Mountpoint,
		Name: v.Name, Scope: v.Scope, Size: "N/A", Status: "N/A", labels: v.Labels,
	}
	if u := v.UsageData; u != nil {
		row.Links, row.Size = strconv.FormatInt(u.RefCount, 10), humanTotal(u.Size)
	}
	return row
}

func volumeListCommand(app *App) *cobra.Command {
	var quiet, cluster bool
	var format string
	var f filters
	c := &cobra.Command{Use: "ls [OPTIONS]", RunE: func(cmd *cobra.Command, _ []string) error {
		if cluster {
			return fmt.Errorf("volume ls: there is no cluster: leave --cluster out")
		}
		if format == "" && !quiet {
			format = configText(app, "volumesFormat")
		}
		l := layout{table: `{{.Driver}}\t{{.Name}}`, raw: `name: {{.Name}}\ndriver: {{.Driver}}\n`, quiet: "{{.Name}}"}
		rows, err := l.parseRows(format, quiet)
		if err != nil {
			return err
		}
		list, err := filtered[volume.ListResponse](cmd.Context(), app, "/volumes", f)
		if err != nil {
			return err
		}
		slices.SortFunc(list.Volumes, func(a, b volume.Volume) int { return compareNatural(a.Name, b.Name) })
		var out []volumeRow
		for _, v := range list.Volumes {
			out = append(out, newVolumeRow(v))
		}
		return writeRows(app.Out, rows, out)
	}}
	c.Flags().BoolVarP(&quiet, "quiet", "q", false, "Print names only")
	c.Flags().BoolVar(&cluster, "cluster", false, "Not used: there is no cluster")
	f = filterFlag(c, "f", "dangling=true, driver=local, label=k=v or name=PART")
	formatFlag(c, &format, "")
	return c
}

// compareNatural orders names as people do: web2 before web10.
func compareNatural(a, b string) int {
	for a != "" && b != "" {
		na, nb := digits(a), digits(b)
		if na > 0 && nb > 0 {
			x, y := strings.TrimLeft(a[:na], "0"), strings.TrimLeft(b[:nb], "0")
			if len(x) != len(y) {
				return len(x) - len(y)
			}
			if c := strings.Compare(x, y); c != 0 {
				return c
			}
			if na != nb {
				return na - nb
			}
			a, b = a[na:], b[nb:]
			continue
		}
		if a[0] != b[0] {
			return int(a[0]) - int(b[0])
		}
		a, b = a[1:], b[1:]
	}
	return len(a) - len(b)
}

// digits counts those that a text begins with.
func digits(s string) int {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return i
		}
	}
	return len(s)
}

func volumeCreateCommand(app *App) *cobra.Command {
	var r volume.CreateRequest
	var labels, options []string
	var name string
	c := &cobra.Command{Use: "create [OPTIONS] [VOLUME]", Args: between(0, 1), RunE: func(cmd *cobra.Command, args []string) error {
		r.Name = name
		if len(args) == 1 {
			if name != "" {
				return fmt.Errorf("volume create: two names (%s and %s): give one", name, args[0])
			}
			r.Name = args[0]
		}
		r.Labels, r.DriverOpts = pairs(labels), pairs(options)
		cl, err := app.Client()
		if err != nil {
			return err
		}
		var v volume.Volume
		if err := cl.Post(cmd.Context(), "/volumes/create", nil, r, &v); err != nil {
			return err
		}
		return say(app.Out, v.Name)
	}}
	c.Flags().StringVarP(&r.Driver, "driver", "d", "local", "Driver")
	c.Flags().StringVar(&name, "name", "", "Name")
	c.Flags().StringArrayVar(&labels, "label", nil, "Label k=v; may be given often")
	c.Flags().StringArrayVarP(&options, "opt", "o", nil, "Option of the driver, such as type=tmpfs, device=… and o=… of mount(8); may be given often")
	_ = c.Flags().MarkHidden("name")
	return c
}

func volumeRemoveCommand(app *App) *cobra.Command {
	var force bool
	c := &cobra.Command{Use: "rm [OPTIONS] VOLUME...", Args: atLeast(1), RunE: func(cmd *cobra.Command, args []string) error {
		q := url.Values{}
		if force {
			q.Set("force", "1")
		}
		cl, err := app.Client()
		if err != nil {
			return err
		}
		return each(cmd.Context(), app, args, func(name string) error {
			if err := cl.Delete(cmd.Context(), "/volumes/"+url.PathEscape(name), q, nil); err != nil {
				return err
			}
			_, err := fmt.Fprintln(app.Out, name)
			return err
		})
	}}
	c.Flags().BoolVarP(&force, "force", "f", false, "Say nothing when there is no such volume")
	return c
}
