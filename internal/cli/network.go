package cli

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"

	"github.com/moby/moby/api/types/network"
	"github.com/spf13/cobra"

	"wherry.dev/wherry/internal/client"
)

func networkCommands() []command {
	line := func(name, short string, build func(*App) *cobra.Command, also ...string) command {
		return command{name: name, also: also, group: groupOther, short: short, build: build}
	}
	return []command{
		line("network create", "Make a network", networkCreateCommand),
		line("network ls", "List networks", networkListCommand, "network list"),
		line("network inspect", "Print all about networks", networkInspectCommand),
		line("network connect", "Connect a container to a network", networkConnectCommand),
		line("network disconnect", "Take a container off a network", networkDisconnectCommand),
		line("network rm", "Remove networks", networkRemoveCommand, "network remove"),
		line("network prune", "Remove networks that no container uses", networkPruneCommand),
	}
}

func networkPath(name, verb string) string { return "/networks/" + url.PathEscape(name) + verb }

// networkRow is a line of `network ls`.
type networkRow struct {
	CreatedAt string
	Driver    string
	ID        string `head:"NETWORK ID"`
	IPv4      string `head:"IPV4"`
	IPv6      string `head:"IPV6"`
	Internal  string
	Labels    string
	Name      string
	Scope     string
	labels    map[string]string
}

// Label is the value of one label.
func (r networkRow) Label(name string) string { return r.labels[name] }

func newNetworkRow(n network.Network, whole bool) networkRow {
	row := networkRow{
		CreatedAt: n.Created.String(), Driver: n.Driver, ID: n.ID, IPv4: strconv.FormatBool(n.EnableIPv4), IPv6: strconv.FormatBool(n.EnableIPv6),
		Internal: strconv.FormatBool(n.Internal), Labels: labelText(n.Labels), Name: n.Name, Scope: n.Scope, labels: n.Labels,
	}
	if !whole {
		row.ID = shortID(n.ID)
	}
	return row
}

func networkListCommand(app *App) *cobra.Command {
	var quiet, whole bool
	var format string
	var f filters
	c := &cobra.Command{Use: "ls [OPTIONS]", RunE: func(cmd *cobra.Command, _ []string) error {
		if format == "" && !quiet {
			format = configText(app, "networksFormat")
		}
		l := layout{
			table: `{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}`,
			raw:   `network_id: {{.ID}}\nname: {{.Name}}\ndriver: {{.Driver}}\nscope: {{.Scope}}\n`,
		}
		rows, err := l.parseRows(format, quiet)
		if err != nil {
			return err
		}
		list, err := filtered[[]network.Network](cmd.Context(), app, "/networks", f)
		if err != nil {
			return err
		}
		slices.SortStableFunc(list, func(a, b network.Network) int { return compareNatural(a.Name, b.Name) })
		var out []networkRow
		for _, n := range list {
			out = append(out, newNetworkRow(n, whole))
		}
		return writeRows(app.Out, rows, out)
	}}
	c.Flags().BoolVarP(&quiet, "quiet", "q", false, "Print ids only")
	c.Flags().BoolVar(&whole, "no-trunc", false, "Do not shorten ids")
	f = filterFlag(c, "f", "driver=bridge, label=k=v, name=PART, type=custom or dangling=true")
	formatFlag(c, &format, "")
	return c
}

func networkInspectCommand(app *App) *cobra.Command {
	verbose := false
	c := oneInspect[inspectedNetwork](app, "NETWORK", func(name string) (string, url.Values, error) {
		q := url.Values{}
		if verbose {
			q.Set("verbose", "true")
		}
		return networkPath(name, ""), q, nil
	})
	c.Flags().BoolVarP(&verbose, "verbose", "v", false, "Say more, where there is more")
	return c
}

func networkRemoveCommand(app *App) *cobra.Command {
	var force bool
	c := &cobra.Command{Use: "rm [OPTIONS] NETWORK...", Args: atLeast(1), RunE: func(cmd *cobra.Command, args []string) error {
		cl, err := app.Client()
		if err != nil {
			return err
		}
		return each(cmd.Context(), app, args, func(name string) error {
			err := cl.Delete(cmd.Context(), networkPath(name, ""), nil, nil)
			if force && client.IsNotFound(err) {
				return nil
			}
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(app.Out, name)
			return err
		})
	}}
	c.Flags().BoolVarP(&force, "force", "f", false, "Say nothing when there is no such network")
	return c
}

func networkDisconnectCommand(app *App) *cobra.Command {
	var r network.DisconnectRequest
	c := &cobra.Command{Use: "disconnect [OPTIONS] NETWORK CONTAINER", Args: exactly(2), RunE: func(cmd *cobra.Command, args []string) error {
		cl, err := app.Client()
		if err != nil {
			return err
		}
		r.Container = args[1]
		return cl.Post(cmd.Context(), networkPath(args[0], "/disconnect"), nil, r, nil)
	}}
	c.Flags().BoolVarP(&r.Force, "force", "f", false, "Take it off even if the container does not answer")
	return c
}
