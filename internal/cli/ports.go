package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

// portsCommands are about published ports of all containers.
func portsCommands() []command {
	return []command{
		{name: "ports", group: groupOther, short: "List published ports, or explain who listens at one and who reaches it", build: portsCommand},
		{name: "ports explain", group: groupOther, short: "Say who listens at a port of the host, through which rule, and who reaches it", build: portsExplainCommand},
	}
}

// publishedPort is one that the engine tells.
type publishedPort struct {
	Container, Name     string
	Address             netip.Addr
	First, Last         uint16
	Proto               string
	To                  netip.AddrPort
	Table, Map, Element string
}

// host and inside are the two ends of a published port or row of ports.
func (p publishedPort) host() string {
	return p.ends(netip.AddrPortFrom(p.Address, p.First)) + "/" + p.Proto
}

// alsoSix says that another one is the same port, on IPv6.
func (p publishedPort) alsoSix(other publishedPort) bool {
	return other.Address.Is6() && other.Container == p.Container && other.First == p.First && other.Proto == p.Proto
}

func (p publishedPort) inside() string { return p.ends(p.To) }

func (p publishedPort) ends(a netip.AddrPort) string {
	if p.Last > p.First {
		return fmt.Sprintf("%s-%d", a, int(a.Port())+int(p.Last-p.First))
	}
	return a.String()
}

// publishedRow is a line of the list.
type publishedRow struct {
	Container   string
	GoesTo      string `head:"GOES TO"`
	Port        string
	ReachedFrom string `head:"REACHED FROM"`
}

func portsCommand(app *App) *cobra.Command {
	var asJSON, quiet bool
	var format string
	cmd := &cobra.Command{Use: "ports [OPTIONS] [explain PORT[/PROTOCOL]]", Args: exactly(0), RunE: func(cmd *cobra.Command, _ []string) error {
		l := layout{table: `{{.Port}}\t{{.Container}}\t{{.GoesTo}}\t{{.ReachedFrom}}`, quiet: "{{.Port}}"}
		f, err := l.parseRows(format, quiet)
		if err != nil {
			return err
		}
		c, err := app.Client()
		if err != nil {
			return err
		}
		var list []publishedPort
		if err := c.Get(cmd.Context(), "/wherry/ports", nil, &list); err != nil {
			return err
		}
		if asJSON {
			return printJSON(app.Out, list)
		}
		rows := make([]publishedRow, 0, len(list))
		for _, p := range list {
			from := "other machines"
			switch {
			case p.Address.IsLoopback():
				from = "this machine"
			case p.Address == netip.IPv4Unspecified() && !slices.ContainsFunc(list, p.alsoSix):
				from += ", by IPv4"
			}
			rows = append(rows, publishedRow{Container: p.Name, GoesTo: p.inside(), Port: p.host(), ReachedFrom: from})
		}
		return writeRows(app.Out, f, rows)
	}}
	fs := cmd.Flags()
	formatFlag(cmd, &format, "")
	fs.BoolVarP(&quiet, "quiet", "q", false, "Print the ports only")
	fs.BoolVar(&asJSON, "json", false, "Print what the engine says as JSON")
	return cmd
}

func printJSON(w io.Writer, v any) error {
	b, err := json.MarshalIndent(v, "", "    ")
	if err == nil {
		_, err = fmt.Fprintf(w, "%s\n", b)
	}
	return err
}

// portListener is one of the engine's answers about a port.
type portListener struct {
	publishedPort
	Address netip.Addr
	Process string
	Listens bool
	Reach   []struct{ From, Can, Why string }
}

func portsExplainCommand(app *App) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{Use: "explain [OPTIONS] PORT[/PROTOCOL]", Args: exactly(1), RunE: func(cmd *cobra.Command, args []string) error {
		port, proto, has := strings.Cut(args[0], "/")
		if !has {
			proto = "tcp"
		}
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return fmt.Errorf("%q is no port: write it as 80 or 53/udp", args[0])
		}
		if proto = strings.ToLower(proto); proto != "tcp" && proto != "udp" && proto != "sctp" {
			return fmt.Errorf("unknown protocol %q: it can be tcp, udp or sctp", proto)
		}
		c, err := app.Client()
		if err != nil {
			return err
		}
		var list []portListener
		if err := c.Get(cmd.Context(), "/wherry/ports/"+port+"/"+proto, nil, &list); err != nil {
			return err
		}
		if asJSON {
			return printJSON(app.Out, list)
		}
		if len(list) == 0 {
			return fmt.Errorf("nobody listens at port %s/%s: no container publishes it and no process of this machine has it", port, proto)
		}
		for i, l := range list {
			if i > 0 {
				fmt.Fprintln(app.Out)
			}
			if err := l.print(app.Out, port, proto); err != nil {
				return err
			}
		}
		return nil
	}}
	cmd.Flags().BoolVar(&asJSON, "json", false, "Print what the engine says as JSON")
	return cmd
}

func (l portListener) print(out io.Writer, port, proto string) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	n, _ := strconv.Atoi(port)
	fmt.Fprintf(w, "%s/%s\n", netip.AddrPortFrom(l.Address, uint16(n)), proto)
	process := l.Process
	switch {
	case process == "" && l.Listens:
		process = "a process that cannot be seen"
	case process == "":
		process = "nobody"
	}
	if l.Container != "" {
		to := netip.AddrPortFrom(l.To.Addr(), l.To.Port()+uint16(n)-l.First)
		fmt.Fprintf(w, "  goes to\tcontainer %s (%s), %s\n", l.Name, shortID(l.Container), to)
		fmt.Fprintf(w, "  by\tmap %s of nftables' table %s: %s\n", l.Map, l.Table, l.Element)
		fmt.Fprintf(w, "  listens\t%s\n", printable(process))
	} else {
		fmt.Fprintf(w, "  is had by\t%s, a process of this machine\n", printable(process))
	}
	for i, r := range l.Reach {
		head := ""
		if i == 0 {
			head = "reached from"
		}
		why := ""
		if r.Why != "" {
			why = ": " + r.Why
		}
		fmt.Fprintf(w, "  %s\t%s: %s%s\n", head, r.From, r.Can, why)
	}
	return w.Flush()
}
