package cli

import (
	"cmp"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/spf13/cobra"
)

// lookCommands tell about containers and change nothing.
func lookCommands() []command {
	return []command{
		{name: "ps", also: []string{"container ls", "container list", "container ps"}, group: groupCommon, short: "List containers", build: psCommand},
		{name: "logs", also: []string{"container logs"}, group: groupCommon, short: "Print what containers printed", build: logsCommand},
		{name: "inspect", group: groupOther, short: "Print everything about containers, images, networks and volumes", build: inspectCommand},
		{name: "container inspect", group: groupOther, short: "Print everything about containers", build: inspectContainers},
		{name: "why", also: []string{"container why"}, group: groupCommon, short: "Tell why a container ended", build: whyCommand},
		{name: "port", also: []string{"container port"}, group: groupOther, short: "List published ports", build: portCommand},
		{name: "top", also: []string{"container top"}, group: groupOther, short: "List the processes of a container", build: topCommand},
		{name: "stats", also: []string{"container stats"}, group: groupOther, short: "Show what containers use, while they use it", build: statsCommand},
	}
}

func psCommand(app *App) *cobra.Command {
	cmd := &cobra.Command{Use: "ps [OPTIONS]"}
	var all, latest, noTrunc, quiet, sizes bool
	var last int
	var format, order string
	fs := cmd.Flags()
	fs.StringVar(&order, "sort", "", "Order by "+orders(containerOrders())+" (default: the newest first)")
	fs.BoolVarP(&all, "all", "a", false, "Those that do not run too")
	fs.IntVarP(&last, "last", "n", -1, "The last so many that were made, running or not")
	fs.BoolVarP(&latest, "latest", "l", false, "The last one that was made, running or not")
	fs.BoolVar(&noTrunc, "no-trunc", false, "Do not shorten anything")
	fs.BoolVarP(&quiet, "quiet", "q", false, "Print IDs only")
	fs.BoolVarP(&sizes, "size", "s", false, "Print sizes too")
	filter := filterFlag(cmd, "f", "status=exited")
	formatFlag(cmd, &format, "")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if format == "" && !quiet {
			format = configText(app, "psFormat")
		}
		rows, err := containerLayout(sizes).parseRows(format, quiet)
		if err != nil {
			return err
		}
		by, err := orderNamed(containerOrders(), order)
		if err != nil {
			return err
		}
		q := url.Values{}
		if all {
			q.Set("all", "1")
		}
		if latest && last < 0 {
			last = 1
		}
		if last > 0 {
			q.Set("limit", strconv.Itoa(last))
		}
		if sizes || !quiet && format != "json" && rows.uses("Size") || order == "size" { // as docker: json alone does not walk the layers
			q.Set("size", "1")
		}
		filter.into(q)
		c, err := app.Client()
		if err != nil {
			return err
		}
		var list []listedContainer
		if err := c.Get(cmd.Context(), "/containers/json", q, &list); err != nil {
			return err
		}
		slices.SortStableFunc(list, by)
		lines := make([]containerRow, 0, len(list))
		now, columns := time.Now(), int(terminalSize(app)[1])
		for _, s := range list {
			row := newContainerRow(s.Summary, !noTrunc, now)
			if s.Wherry != nil {
				row.HealthOutput = s.Wherry.Health
			}
			if format == "" {
				row.Image, row.Status = s.reference(row.Image), healthText(columns, row.Status, row.HealthOutput)
			}
			lines = append(lines, row)
		}
		return writeRows(app.Out, rows, lines)
	}
	return cmd
}

func portCommand(app *App) *cobra.Command {
	cmd := &cobra.Command{Use: "port [OPTIONS] CONTAINER [PORT[/PROTOCOL]]", Args: between(1, 2)}
	var format string
	formatFlag(cmd, &format, "")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		rows, err := portLayout().parseRows(format, false)
		if err != nil {
			return err
		}
		c, err := app.Client()
		if err != nil {
			return err
		}
		about, err := inspectContainer(cmd.Context(), c, args[0])
		if err != nil {
			return err
		}
		var ports network.PortMap
		if about.NetworkSettings != nil {
			ports = about.NetworkSettings.Ports
		}
		if len(args) == 1 && format == "" {
			_, err = io.WriteString(app.Out, printable(strings.Join(portLines(ports), "")))
			return err
		}
		if len(args) == 1 {
			return writeRows(app.Out, rows, portRows(ports))
		}
		port, err := network.ParsePort(args[1])
		if err != nil {
			return fmt.Errorf("port %s: write it as 80 or 53/udp", args[1])
		}
		if len(ports[port]) == 0 {
			return fmt.Errorf("container %s publishes no port %s%s", args[0], port, publishedInstead(ports))
		}
		if format != "" {
			return writeRows(app.Out, rows, portRows(network.PortMap{port: ports[port]}))
		}
		for _, b := range ports[port] {
			if err := say(app.Out, hostPort(b)); err != nil {
				return err
			}
		}
		return nil
	}
	return cmd
}

// portRow is a line of `port`.
type portRow struct {
	ContainerPort string `head:"CONTAINER PORT"`
	HostIP        string `head:"HOST IP"`
	HostPort      string `head:"HOST PORT"`
	Protocol      string
}

func portLayout() layout {
	return layout{table: `{{.ContainerPort}}\t{{.Protocol}}\t{{.HostIP}}\t{{.HostPort}}`}
}

func portRows(ports network.PortMap) (rows []portRow) {
	for port, bindings := range ports {
		for _, b := range bindings {
			row := portRow{ContainerPort: strconv.Itoa(int(port.Num())), HostPort: b.HostPort, Protocol: string(port.Proto())}
			if b.HostIP.IsValid() {
				row.HostIP = b.HostIP.String()
			}
			rows = append(rows, row)
		}
	}
	slices.SortFunc(rows, func(a, b portRow) int {
		x, _ := strconv.Atoi(a.ContainerPort)
		y, _ := strconv.Atoi(b.ContainerPort)
		return cmp.Or(x-y, strings.Compare(a.Protocol+a.HostIP+a.HostPort, b.Protocol+b.HostIP+b.HostPort))
	})
	return rows
}

func portLines(ports network.PortMap) (lines []string) {
	for port, bindings := range ports {
		for _, b := range bindings {
			lines = append(lines, fmt.Sprintf("%s -> %s\n", port, hostPort(b)))
		}
	}
	slices.SortFunc(lines, func(a, b string) int {
		na, _ := strconv.Atoi(a[:strings.IndexByte(a, '/')])
		nb, _ := strconv.Atoi(b[:strings.IndexByte(b, '/')])
		if na != nb {
			return na - nb
		}
		return strings.Compare(a, b)
	})
	return lines
}

func hostPort(b network.PortBinding) string {
	host := ""
	if b.HostIP.IsValid() {
		host = b.HostIP.String()
	}
	if b.HostIP.Is6() {
		host = "[" + host + "]"
	}
	return host + ":" + b.HostPort
}

func publishedInstead(ports network.PortMap) string {
	var all []string
	for port, bindings := range ports {
		if len(bindings) > 0 {
			all = append(all, port.String())
		}
	}
	if len(all) == 0 {
		return ""
	}
	slices.Sort(all)
	return "; it publishes " + strings.Join(all, ", ")
}

func topCommand(app *App) *cobra.Command {
	cmd := &cobra.Command{Use: "top CONTAINER [PS-OPTION...]", Args: atLeast(1)}
	cmd.Flags().SetInterspersed(false)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := app.Client()
		if err != nil {
			return err
		}
		q := url.Values{}
		if len(args) > 1 {
			q.Set("ps_args", strings.Join(args[1:], " "))
		}
		var list container.TopResponse
		if err := c.Get(cmd.Context(), containerPath(args[0], "/top"), q, &list); err != nil {
			return err
		}
		w := tabwriter.NewWriter(app.Out, 20, 1, 3, ' ', 0)
		for _, row := range append([][]string{list.Titles}, list.Processes...) {
			_ = say(w, strings.Join(row, "\t"))
		}
		return w.Flush()
	}
	return cmd
}
