package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"

	"github.com/spf13/cobra"
)

// filters are the values of --filter name=value, as the engine wants them: name → value → true.
type filters map[string]map[string]bool

func (f filters) Type() string   { return "name=value" }
func (f filters) String() string { return "" }

// Set reads one; pflag calls it for each.
func (f filters) Set(text string) error {
	name, value, ok := strings.Cut(text, "=")
	name = strings.ToLower(strings.TrimSpace(name))
	if not, isNot := strings.CutSuffix(name, "!"); isNot {
		name = strings.TrimSpace(not) + "!" // label!=x
	}
	if !ok || name == "" {
		return fmt.Errorf("write a filter as name=value")
	}
	f.add(name, strings.TrimSpace(value))
	return nil
}

func (f filters) add(name, value string) {
	if f[name] == nil {
		f[name] = map[string]bool{}
	}
	f[name][value] = true
}

// into puts the filters into a query, if there are any.
func (f filters) into(q url.Values) {
	if len(f) == 0 {
		return
	}
	text, err := json.Marshal(f)
	if err == nil { // maps of strings: it cannot fail
		q.Set("filters", string(text))
	}
}

// filtered asks the engine for a list of what meets the filters.
func filtered[T any](ctx context.Context, app *App, path string, f filters) (list T, err error) {
	cl, err := app.Client()
	if err != nil {
		return list, err
	}
	q := url.Values{}
	f.into(q)
	err = cl.Get(ctx, path, q, &list)
	return list, err
}

// filterFlag gives a command --filter, with -f where short is "f".
func filterFlag(c *cobra.Command, short, example string) filters {
	f := filters{}
	c.Flags().VarP(f, "filter", short, "Only what meets a condition, such as "+example+"; may be given often")
	return f
}

// formatFlag gives a command --format.
func formatFlag(c *cobra.Command, into *string, short string) {
	c.Flags().StringVarP(into, "format", short, "", "Print through a Go template, or as json; 'table TEMPLATE' adds headers")
}
