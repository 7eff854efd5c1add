package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"text/template"
	"time"

	"github.com/moby/moby/api/types/events"
	"github.com/spf13/cobra"

	"wherry.dev/wherry/internal/client"
)

// eventText is an event with the fields that older engines had, which templates still use.
type eventText struct {
	Status string `json:"status,omitempty"`
	ID     string `json:"id,omitempty"`
	From   string `json:"from,omitempty"`
	events.Message
}

func eventsCommand(app *App) *cobra.Command {
	var since, until, format string
	var f filters
	c := &cobra.Command{Use: "events [OPTIONS]", RunE: func(cmd *cobra.Command, _ []string) error {
		var tmpl *template.Template
		var err error
		switch format {
		case "":
		case "json":
			tmpl, err = parseTemplate("{{json .}}")
		default:
			tmpl, err = parseTemplate(strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(format))
		}
		if err != nil {
			return err
		}
		q := url.Values{}
		f.into(q)
		if err := period(q, since, until); err != nil {
			return err
		}
		cl, err := app.Client()
		if err != nil {
			return err
		}
		res, err := cl.Stream(cmd.Context(), client.Request{Path: "/events", Query: q})
		if err != nil {
			return err
		}
		defer res.Body.Close()
		return printEvents(app.Out, res.Body, tmpl)
	}}
	c.Flags().StringVar(&since, "since", "", "Begin with what happened then: a time, or 10m for ten minutes ago")
	c.Flags().StringVar(&until, "until", "", "End then")
	f = filterFlag(c, "f", "container=NAME, event=die, image=NAME, label=k=v or type=network")
	formatFlag(c, &format, "")
	return c
}

// printEvents prints each event as it comes, until the engine ends the stream.
func printEvents(w io.Writer, body io.Reader, tmpl *template.Template) error {
	for d := json.NewDecoder(body); ; {
		var e struct {
			eventText
			Failure string `json:"message"` // instead of an event: why there are no more
		}
		err := d.Decode(&e)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("the engine's events broke off: %w", err)
		case e.Failure != "":
			return errors.New(e.Failure)
		}
		var line strings.Builder
		if tmpl == nil {
			writeEvent(&line, e.Message)
		} else if err := tmpl.Execute(&line, e.eventText); err != nil {
			return templateError(err)
		}
		if _, err := fmt.Fprintln(w, printable(line.String())); err != nil {
			return err
		}
	}
}

func writeEvent(b *strings.Builder, m events.Message) {
	t := time.Unix(0, m.TimeNano)
	if m.TimeNano == 0 {
		t = time.Unix(m.Time, 0)
	}
	fmt.Fprintf(b, "%s %s %s %s", t.Format("2006-01-02T15:04:05.000000000Z07:00"), m.Type, m.Action, m.Actor.ID)
	if len(m.Actor.Attributes) == 0 {
		return
	}
	var parts []string
	for _, key := range sorted(m.Actor.Attributes) {
		parts = append(parts, oneLine(key+"="+m.Actor.Attributes[key]))
	}
	fmt.Fprintf(b, " (%s)", strings.Join(parts, ", "))
}
