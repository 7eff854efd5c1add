package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"wherry.dev/wherry/internal/client"
)

// secretKind is what the commands of secrets and those of configs differ by.
type secretKind struct{ name, path string }

// secretCommands keep values that only containers are to see, and configs, which are the same but may be read again.
func secretCommands() []command {
	var out []command
	for _, k := range []secretKind{{"secret", "/wherry/secrets"}, {"config", "/wherry/configs"}} {
		line := func(verb, short string, build func(secretKind, *App) *cobra.Command, also ...string) {
			out = append(out, command{name: k.name + " " + verb, also: also, group: groupOther, short: short, build: func(app *App) *cobra.Command { return build(k, app) }})
		}
		line("create", "Keep a "+k.name+" from a file, or from the input", secretCreateCommand)
		line("ls", "List "+k.name+"s", secretListCommand, k.name+" list")
		line("inspect", "Print all about "+k.name+"s"+map[string]string{"secret": " but their values", "config": ""}[k.name], secretInspectCommand)
		line("rm", "Remove "+k.name+"s that no container uses", secretRemoveCommand, k.name+" remove")
	}
	return out
}

// secretItem is one as the engine tells of it.
type secretItem struct {
	ID        string
	CreatedAt time.Time
	UpdatedAt time.Time
	Spec      struct {
		Name   string
		Labels map[string]string
		Data   []byte `json:",omitempty"`
	}
}

func secretCreateCommand(k secretKind, app *App) *cobra.Command {
	var labels, options []string
	var driver, variable string
	var replace bool
	c := &cobra.Command{Use: "create [OPTIONS] NAME [FILE|-]", Args: between(1, 2), RunE: func(cmd *cobra.Command, args []string) error {
		if driver != "" && driver != "file" {
			return fmt.Errorf("%s create: --driver %s: the engine keeps %ss itself: leave it out", k.name, driver, k.name)
		}
		value, err := secretValue(app, args[1:], variable)
		if err != nil {
			return err
		}
		defer value.Close()
		q := url.Values{"name": {args[0]}}
		if len(labels) > 0 {
			text, err := json.Marshal(pairs(labels))
			if err != nil {
				return err
			}
			q.Set("labels", string(text))
		}
		if replace {
			q.Set("replace", "1")
		}
		cl, err := app.Client()
		if err != nil {
			return err
		}
		var made struct{ ID string }
		header := http.Header{"Content-Type": {"application/octet-stream"}}
		if err := cl.Do(cmd.Context(), client.Request{Method: http.MethodPost, Path: k.path, Query: q, Header: header, Body: value}, &made); err != nil {
			return err
		}
		return say(app.Out, made.ID)
	}}
	c.Flags().StringArrayVarP(&labels, "label", "l", nil, "Label k=v; may be given often")
	c.Flags().BoolVar(&replace, "replace", false, "Put it in the place of one of this name; containers see it when they start next")
	c.Flags().StringVar(&variable, "env", "", "Take the value of this variable of the environment instead of a file")
	c.Flags().StringVarP(&driver, "driver", "d", "", "Not used: the engine keeps it itself")
	c.Flags().StringArrayVar(&options, "driver-opts", nil, "Not used")
	_, _ = c.Flags().MarkHidden("driver"), c.Flags().MarkHidden("driver-opts")
	return c
}

// secretValue opens where the value is read from.
func secretValue(app *App, file []string, variable string) (io.ReadCloser, error) {
	switch {
	case variable != "" && len(file) > 0:
		return nil, errors.New("--env and a file both give the value: leave one of them out")
	case variable != "":
		value, ok := os.LookupEnv(variable)
		if !ok {
			return nil, fmt.Errorf("--env %s: the environment has no such variable", variable)
		}
		return io.NopCloser(strings.NewReader(value)), nil
	case len(file) == 0 || file[0] == "-":
		if _, ok := terminal(app.In); ok && len(file) == 0 {
			return nil, errors.New("where is the value? give a file, or - and type it")
		}
		return io.NopCloser(app.In), nil
	}
	return os.Open(file[0])
}

// secretRow is a line of `secret ls`.
type secretRow struct {
	CreatedAt string `head:"CREATED"`
	Driver    string
	ID        string
	Labels    string
	Name      string
	UpdatedAt string `head:"UPDATED"`
	labels    map[string]string
}

// Label is the value of one label.
func (r secretRow) Label(name string) string { return r.labels[name] }

func secretListCommand(k secretKind, app *App) *cobra.Command {
	var quiet bool
	var format string
	var f filters
	c := &cobra.Command{Use: "ls [OPTIONS]", RunE: func(cmd *cobra.Command, _ []string) error {
		l := layout{table: `{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.CreatedAt}}\t{{.UpdatedAt}}`}
		if k.name == "config" {
			l.table = `{{.ID}}\t{{.Name}}\t{{.CreatedAt}}\t{{.UpdatedAt}}`
		}
		rows, err := l.parseRows(format, quiet)
		if err != nil {
			return err
		}
		list, err := filtered[[]secretItem](cmd.Context(), app, k.path, f)
		if err != nil {
			return err
		}
		now := time.Now()
		var out []secretRow
		for _, i := range list {
			out = append(out, secretRow{ID: i.ID, Name: i.Spec.Name, CreatedAt: ago(now, i.CreatedAt), UpdatedAt: ago(now, i.UpdatedAt),
				Labels: labelText(i.Spec.Labels), labels: i.Spec.Labels})
		}
		return writeRows(app.Out, rows, out)
	}}
	c.Flags().BoolVarP(&quiet, "quiet", "q", false, "Print ids only")
	f = filterFlag(c, "f", "name=PART, label=k=v or id=PART")
	formatFlag(c, &format, "")
	return c
}

func secretInspectCommand(k secretKind, app *App) *cobra.Command {
	c := oneInspect[secretItem](app, strings.ToUpper(k.name), func(name string) (string, url.Values, error) {
		return k.path + "/" + url.PathEscape(name), nil, nil
	})
	var pretty bool
	c.Flags().BoolVar(&pretty, "pretty", false, "Print it for people")
	plain := c.RunE
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if !pretty {
			return plain(cmd, args)
		}
		cl, err := app.Client()
		if err != nil {
			return err
		}
		return each(cmd.Context(), app, args, func(name string) error {
			var i secretItem
			if err := cl.Get(cmd.Context(), k.path+"/"+url.PathEscape(name), nil, &i); err != nil {
				return err
			}
			fmt.Fprintf(app.Out, "ID:\t\t\t%s\nName:\t\t\t%s\nLabels:\n", i.ID, i.Spec.Name)
			for _, key := range sorted(i.Spec.Labels) {
				fmt.Fprintf(app.Out, " - %s=%s\n", key, i.Spec.Labels[key])
			}
			_, err := fmt.Fprintf(app.Out, "Created at:\t\t%s\nUpdated at:\t\t%s\n", i.CreatedAt, i.UpdatedAt)
			if k.name == "config" && err == nil {
				_, err = fmt.Fprintf(app.Out, "Data:\n%s\n", i.Spec.Data)
			}
			return err
		})
	}
	return c
}

func secretRemoveCommand(k secretKind, app *App) *cobra.Command {
	var all bool
	c := &cobra.Command{Use: "rm [OPTIONS] " + strings.ToUpper(k.name) + "...", Args: atLeast(0), RunE: func(cmd *cobra.Command, args []string) error {
		cl, err := app.Client()
		if err != nil {
			return err
		}
		if all == (len(args) > 0) {
			return fmt.Errorf("%s rm: give names, or --all", k.name)
		}
		if all {
			var list []secretItem
			if err := cl.Get(cmd.Context(), k.path, nil, &list); err != nil {
				return err
			}
			for _, i := range list {
				args = append(args, i.Spec.Name)
			}
		}
		return each(cmd.Context(), app, args, func(name string) error {
			if err := cl.Delete(cmd.Context(), k.path+"/"+url.PathEscape(name), nil, nil); err != nil {
				return err
			}
			_, err := fmt.Fprintln(app.Out, name)
			return err
		})
	}}
	c.Flags().BoolVarP(&all, "all", "a", false, "Remove all that no container uses")
	return c
}
