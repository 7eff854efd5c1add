package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"text/template"

	"wherry.dev/wherry/internal/client"
)

// inspection prints what `inspect` found: a JSON list, or one line for each object through a template.
type inspection struct {
	out    io.Writer
	format string
	tmpl   *template.Template // nil without one
	raw    [][]byte
	lines  bytes.Buffer
}

func newInspection(out io.Writer, format string) (*inspection, error) {
	i := &inspection{out: out, format: format}
	if format == "" || format == "json" {
		return i, nil
	}
	var err error
	i.tmpl, err = parseTemplate(format)
	return i, err
}

// add takes one object as the engine sent it and a pointer to a struct of its type, into which it is decoded for templates: so numbers
// compare as numbers, and what the engine left out prints as a zero. Templates that ask for words which the struct does not have
// get the plain JSON.
func (i *inspection) add(raw []byte, typed any) error {
	if i.tmpl == nil {
		i.raw = append(i.raw, bytes.TrimSpace(raw))
		return nil
	}
	if err := json.Unmarshal(raw, typed); err != nil {
		return fmt.Errorf("read the engine's answer: %w", err)
	}
	i.tmpl.Funcs(template.FuncMap{"json": func(v any) (string, error) {
		if v == typed {
			var b bytes.Buffer
			err := json.Compact(&b, raw)
			return b.String(), err
		}
		return jsonText(v)
	}})
	var line bytes.Buffer
	err := i.tmpl.Option("missingkey=default").Execute(&line, typed) // a label that is not there is <no value>
	if err != nil {
		var generic any
		d := json.NewDecoder(bytes.NewReader(raw))
		d.UseNumber()
		if d.Decode(&generic) != nil {
			return templateError(err)
		}
		line.Reset()
		i.tmpl.Funcs(template.FuncMap{"json": jsonText})
		err = i.tmpl.Option("missingkey=error").Execute(&line, generic)
	}
	if err != nil {
		return templateError(err)
	}
	line.WriteByte('\n')
	_, err = line.WriteTo(&i.lines)
	return err
}

// flush prints everything that was added.
func (i *inspection) flush() error {
	if i.tmpl != nil {
		if i.lines.Len() == 0 {
			i.lines.WriteByte('\n')
		}
		return writeFormatted(i.out, i.format, i.lines.Bytes())
	}
	list := append([]byte{'['}, bytes.Join(i.raw, []byte{','})...)
	list = append(list, ']')
	var out bytes.Buffer
	var err error
	if i.format == "json" {
		err = json.Compact(&out, list)
	} else {
		err = json.Indent(&out, list, "", "    ")
	}
	if err != nil {
		return fmt.Errorf("read the engine's answer: %w", err)
	}
	out.WriteByte('\n')
	return writeFormatted(i.out, i.format, out.Bytes())
}

// inspectAll fetches and prints several objects: first those that are there, then an error for each that is not.
func inspectAll[T any](app *App, format string, names []string, fetch func(name string) ([]byte, error)) error {
	i, err := newInspection(app.Out, format)
	if err != nil {
		return err
	}
	var failed []error
	for _, name := range names {
		raw, err := fetch(name)
		if err == nil {
			err = i.add(raw, new(T))
		}
		if err != nil {
			failed = append(failed, err)
		}
	}
	if err := i.flush(); err != nil {
		return err
	}
	for _, err := range failed {
		printError(app.Err, err)
	}
	if failed != nil {
		return &exitError{code: 1}
	}
	return nil
}

// getRaw fetches an object as the engine sends it.
func getRaw(ctx context.Context, c *client.Client, path string, q url.Values) ([]byte, error) {
	var raw json.RawMessage
	err := c.Get(ctx, path, q, &raw)
	return raw, err
}
