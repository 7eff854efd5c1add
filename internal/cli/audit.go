package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"wherry.dev/wherry/internal/client"
)

func auditCommands() []command {
	return []command{
		{name: "audit", also: []string{"audit log"}, group: groupOther, short: "Print who did what through the engine", build: auditCommand},
		{name: "audit verify", group: groupOther, short: "Check that the audit log is what was written", build: auditVerifyCommand},
	}
}

// auditRecord is a line of the audit log.
type auditRecord struct {
	Seq  uint64
	Time time.Time
	Who  struct {
		UID, GID                              *uint32
		PID                                   int
		Program, Certificate, Serial, Address string
	}
	Event, Method, Path string
	Object              struct{ Type, ID, Name string }
	With                map[string]string
	Status              int
	Error               string
	Of                  uint64
	Message             string // instead of a record: why there are no more
}

func auditCommand(app *App) *cobra.Command {
	var since, until, user, object, format string
	c := &cobra.Command{Use: "audit [OPTIONS]", RunE: func(cmd *cobra.Command, _ []string) error {
		if format != "" && format != "json" {
			return fmt.Errorf("--format %s: there is json, the lines as they stand in the log", format)
		}
		q := url.Values{}
		if err := period(q, since, until); err != nil {
			return err
		}
		for name, text := range map[string]string{"user": user, "object": object} {
			if text != "" {
				q.Set(name, text)
			}
		}
		cl, err := app.Client()
		if err != nil {
			return err
		}
		res, err := cl.Stream(cmd.Context(), client.Request{Path: "/wherry/audit", Query: q})
		if err != nil {
			return err
		}
		defer res.Body.Close()
		if format == "json" {
			_, err := io.Copy(app.Out, res.Body)
			return err
		}
		return printAudit(app.Out, res.Body)
	}}
	c.Flags().StringVar(&since, "since", "", "Begin there: a time, or 10m for ten minutes ago")
	c.Flags().StringVar(&until, "until", "", "End there")
	c.Flags().StringVar(&user, "user", "", "Only what this user did: a name, an id, or certificate:NAME")
	c.Flags().StringVar(&object, "object", "", "Only what was done to this container, network, volume or image")
	c.Flags().StringVar(&format, "format", "", "json: print the lines as they stand in the log")
	return c
}

func printAudit(w io.Writer, body io.Reader) error {
	for d := json.NewDecoder(body); ; {
		var r auditRecord
		err := d.Decode(&r)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("the audit log broke off: %w", err)
		case r.Message != "":
			return errors.New(r.Message)
		}
		if _, err := fmt.Fprintln(w, printable(oneLine(r.text()))); err != nil {
			return err
		}
	}
}

// text is a record on one line: when, who, what, to what, how, with which result.
func (r *auditRecord) text() string {
	parts := []string{strconv.FormatUint(r.Seq, 10), r.Time.Local().Format("2006-01-02T15:04:05.000Z07:00"), r.who()}
	switch {
	case r.Event == "end":
		parts = append(parts, fmt.Sprintf("end of %d:", r.Of), r.Method, r.Path)
	case r.Event != "":
		parts = append(parts, r.Event)
	default:
		parts = append(parts, r.Method, r.Path)
	}
	if o := r.Object; o.Type != "" {
		parts = append(parts, strings.TrimSpace(o.Type+" "+o.Name))
		if len(o.ID) >= 12 {
			parts[len(parts)-1] += " (" + o.ID[:12] + ")"
		}
	}
	for _, name := range sorted(r.With) {
		parts = append(parts, name+"="+r.With[name])
	}
	if r.Status != 0 {
		parts = append(parts, "→ "+strconv.Itoa(r.Status))
	}
	if r.Error != "" {
		parts = append(parts, strconv.Quote(r.Error))
	}
	return strings.Join(parts, " ")
}

// oneLine is a text in which nobody begins a line of his own.
func oneLine(s string) string { return strings.NewReplacer("\n", " ", "\t", " ").Replace(s) }

func (r *auditRecord) who() string {
	switch {
	case r.Who.Certificate != "":
		return "certificate:" + r.Who.Certificate + "@" + r.Who.Address
	case r.Who.UID != nil:
		return fmt.Sprintf("uid:%d %s[%d]", *r.Who.UID, r.Who.Program[strings.LastIndexByte(r.Who.Program, '/')+1:], r.Who.PID)
	}
	return "wherryd"
}

// auditReport is what the engine says of its log.
type auditReport struct {
	OK                   bool
	Records, First, Last uint64
	Hash, File, Problem  string
	Line                 int
	Told, Cut            []string
}

// print says of a whole log how it can be checked against root, who could write all of it anew.
func (r *auditReport) print(w io.Writer, expect string) error {
	for _, told := range r.Told {
		fmt.Fprintln(w, "damage that the engine found when it started:", printable(told))
	}
	for _, cut := range r.Cut {
		fmt.Fprintln(w, "the end of a record that an engine could not finish, as a power cut leaves it:", printable(cut))
	}
	switch {
	case r.Problem != "" && r.File == "":
		return fmt.Errorf("the audit log cannot be checked against --expect %s: %s", expect, r.Problem)
	case r.Problem != "":
		return fmt.Errorf("the audit log is not what was written: %s:%d: %s", r.File, r.Line, r.Problem)
	case !r.OK:
		return errors.New("the audit log was damaged while the engine did not run; what was written since is whole")
	}
	text := fmt.Sprintf("%d records, %d to %d, are what was written: none was changed, none is missing", r.Records, r.First, r.Last)
	if expect != "" {
		text += "; " + expect + " is among them"
	}
	_, err := fmt.Fprintf(w, "%s\nroot could have written all of them anew. To be sure of them later, keep this line on another machine:\n    wherry audit verify --expect %d:%s\n", text, r.Last, r.Hash)
	return err
}

func auditVerifyCommand(app *App) *cobra.Command {
	var expect string
	c := &cobra.Command{Use: "verify [OPTIONS]", RunE: func(cmd *cobra.Command, _ []string) error {
		cl, err := app.Client()
		if err != nil {
			return err
		}
		q := url.Values{}
		if expect != "" {
			q.Set("expect", expect)
		}
		var r auditReport
		if err := cl.Get(cmd.Context(), "/wherry/audit/verify", q, &r); err != nil {
			return err
		}
		return r.print(app.Out, expect)
	}}
	c.Flags().StringVar(&expect, "expect", "", "Check that this record is in the log: NUMBER:HASH as an earlier verify printed it, and kept somewhere else")
	return c
}
