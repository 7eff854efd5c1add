package cli

import (
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"wherry.dev/wherry/internal/why"
)

func whyCommand(app *App) *cobra.Command {
	cmd := &cobra.Command{Use: "why [OPTIONS] CONTAINER...", Args: atLeast(1)}
	var format string
	var asJSON, all bool
	formatFlag(cmd, &format, "f")
	cmd.Flags().BoolVar(&asJSON, "json", false, "Print all that is known as JSON")
	cmd.Flags().BoolVarP(&all, "all", "a", false, "Print the earlier ends in full too")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if asJSON {
			format = "json"
		}
		c, err := app.Client()
		if err != nil {
			return err
		}
		first := true
		return each(cmd.Context(), app, args, func(name string) error {
			var report why.Report
			if err := c.Get(cmd.Context(), "/wherry/why/"+url.PathEscape(name), nil, &report); err != nil {
				return err
			}
			return printObject(app.Out, format, report, func(w io.Writer) error {
				if !first {
					fmt.Fprintln(w)
				}
				first = false
				_, err := io.WriteString(w, printable(whyText(report, all)))
				return err
			})
		})
	}
	return cmd
}

// earlier is how many of the ends before the last one are listed.
const earlier = 3

// whyText is the answer for people.
func whyText(r why.Report, all bool) string {
	var b strings.Builder
	name := r.Name
	if r.Status == "removed" {
		name += " (removed)"
	}
	fmt.Fprintf(&b, "%s: %s\n", name, r.Summary)
	deaths := r.Deaths
	if l := r.Loop; l != nil {
		fmt.Fprintf(&b, "  in a restart loop: restarted %d times", l.Restarts)
		if l.Lives > 0 {
			fmt.Fprintf(&b, ", it lives %s each time", between2(l.Short, l.Long))
		}
		if l.NextAfter > 0 {
			fmt.Fprintf(&b, "; the last wait before a start was %s", l.NextAfter)
		}
		b.WriteString("\n")
	}
	if r.Cause == why.Running && len(deaths) > 0 {
		fmt.Fprintf(&b, "\nIts last run ended at %s: %s\n", when(deaths[0].Evidence.Ended), deaths[0].Summary)
	}
	if len(deaths) == 0 {
		if r.Advice != "" {
			fmt.Fprintf(&b, "  what to do: %s\n", r.Advice)
		}
		return b.String()
	}
	writeDeath(&b, deaths[0])
	for i, d := range deaths[1:] {
		if i == 0 {
			b.WriteString("\nBefore that:\n")
		}
		if !all && i == earlier {
			fmt.Fprintf(&b, "  and %d more: wherry why --all\n", len(deaths)-1-earlier)
			break
		}
		fmt.Fprintf(&b, "  %s  %-18s %s\n", when(d.Evidence.Ended), d.Cause, d.Summary)
		if all {
			writeDeath(&b, d)
		}
	}
	return b.String()
}

func writeDeath(b *strings.Builder, d why.Death) {
	for _, fact := range d.Facts {
		fmt.Fprintf(b, "  - %s\n", fact)
	}
	if len(d.Evidence.Lines) > 0 {
		b.WriteString("  its last output:\n")
		for _, line := range d.Evidence.Lines[max(0, len(d.Evidence.Lines)-5):] {
			fmt.Fprintf(b, "    | %s\n", line)
		}
	}
	if d.Advice != "" {
		fmt.Fprintf(b, "  what to do: %s\n", d.Advice)
	}
}

func when(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05") }

func between2(short, long time.Duration) string {
	round := func(d time.Duration) time.Duration {
		if d < time.Second {
			return d.Round(10 * time.Millisecond)
		}
		return d.Round(100 * time.Millisecond)
	}
	if round(short) == round(long) {
		return round(short).String()
	}
	return round(short).String() + " to " + round(long).String()
}
