package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"text/template"
	"unicode"
)

// layout is what a listing prints when nobody asks for a format of their own. The texts are templates over the fields of its rows.
type layout struct {
	table string // the columns, parted by \t
	raw   string // of "--format raw"; "" where Docker has none
	quiet string // of -q; "" is {{.ID}}
	// quietFirst lets -q win over a template; otherwise the template wins, as Docker decides it command by command.
	quietFirst bool
}

// rowFormat is a format, parsed before the engine is asked for anything. The rows are structs whose exported fields stand in alphabetical
// order: their names are the words of templates and of JSON. A field's column header is its tag `head`, else its name in capitals.
type rowFormat struct {
	text  string
	tmpl  *template.Template
	table bool
}

// parseRows reads a --format: "" and "table" for the layout's own columns, "table TEMPLATE", "json", "raw" or a template.
func (l layout) parseRows(format string, quiet bool) (rowFormat, error) {
	text, table := format, false
	switch {
	case quiet && (format == "" || format == "table" || l.quietFirst):
		text = l.quiet
		if text == "" {
			text = "{{.ID}}"
		}
	case format == "" || format == "table":
		text, table = l.table, true
	case format == "json":
		text = "{{json .}}"
	case format == "raw" && l.raw != "":
		text = l.raw
	default:
		if rest, ok := strings.CutPrefix(format, "table"); ok {
			text, table = rest, true
		}
	}
	text = strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(strings.Trim(text, " "))
	tmpl, err := parseTemplate(text)
	if err != nil {
		return rowFormat{}, err
	}
	return rowFormat{text: text, tmpl: tmpl, table: table}, nil
}

// uses tells whether the format mentions a field, so that costly ones are only asked for when they are printed.
func (f rowFormat) uses(field string) bool {
	return strings.Contains(f.text, "."+field) || strings.Contains(f.text, "json .")
}

// writeRows prints the rows, each followed by a line's end; a table gets its headers.
func writeRows[T any](w io.Writer, f rowFormat, rows []T) error {
	var out bytes.Buffer
	f.tmpl.Funcs(template.FuncMap{"json": rowJSON[T]})
	if f.table {
		f.tmpl.Funcs(headerFunctions())
		if err := f.tmpl.Execute(&out, headersOf[T]()); err != nil {
			return templateError(err)
		}
		out.WriteByte('\n')
		f.tmpl.Funcs(templateFunctions()).Funcs(template.FuncMap{"json": rowJSON[T]})
	}
	for _, row := range rows {
		if err := f.tmpl.Execute(&out, row); err != nil {
			return rowError[T](err)
		}
		out.WriteByte('\n')
	}
	text := out.Bytes()
	if f.table {
		text = alignColumns(text)
	}
	return writeFormatted(w, f.text, text)
}

// rowError says which fields a row has to who asks for one that it has not.
func rowError[T any](err error) error {
	_, rest, ok := strings.Cut(err.Error(), "can't evaluate field ")
	field, _, _ := strings.Cut(rest, " ")
	_, has := reflect.TypeFor[T]().FieldByName(field)
	if !ok || has { // or it is a part of one
		return templateError(err)
	}
	var known []string
	for _, f := range reflect.VisibleFields(reflect.TypeFor[T]()) {
		if f.IsExported() && !f.Anonymous {
			known = append(known, f.Name)
		}
	}
	slices.Sort(known)
	return fmt.Errorf("the template of --format: there is no field %s%s", field, didYouMean(field, known, "; there are "+strings.Join(known, ", ")))
}

// rowJSON is the template function json of listings. A whole row has <, > and & escaped, a part of one has not: that is what Docker's
// clients have always printed.
func rowJSON[T any](v any) (string, error) {
	if row, ok := v.(T); ok {
		text, err := json.Marshal(row)
		return string(text), err
	}
	return jsonText(v)
}

// headers stands in for a row while the line of headers is made.
type headers map[string]string

// Label is the header of a column that shows one label: the label's last word.
func (headers) Label(name string) string {
	last := name[strings.LastIndexByte(name, '.')+1:]
	return strings.NewReplacer("-", " ", "_", " ").Replace(last)
}

func headersOf[T any]() headers {
	h := headers{}
	for _, field := range reflect.VisibleFields(reflect.TypeFor[T]()) {
		if !field.IsExported() || field.Anonymous {
			continue
		}
		name, ok := field.Tag.Lookup("head")
		if !ok {
			name = headerName(field.Name)
		}
		h[field.Name] = name
	}
	return h
}

// headerName turns CreatedBy into CREATED BY.
func headerName(field string) string {
	var b strings.Builder
	var last rune
	for _, r := range field {
		if unicode.IsUpper(r) && unicode.IsLower(last) {
			b.WriteByte(' ')
		}
		b.WriteRune(unicode.ToUpper(r))
		last = r
	}
	return b.String()
}

// headerFunctions leave headers as they are, whatever the template does to values.
func headerFunctions() template.FuncMap {
	same := func(v string) string { return v }
	return template.FuncMap{
		"json": same, "title": same, "lower": same, "upper": same,
		"split":    func(v, _ string) string { return v },
		"join":     func(v, _ string) string { return v },
		"truncate": func(v string, _ int) string { return v },
	}
}

// printObject prints one value: with a template, as JSON, or through plain when no format is asked for.
func printObject(w io.Writer, format string, value any, plain func(io.Writer) error) error {
	switch format {
	case "":
		return plain(w)
	case "json":
		format = "{{json .}}"
	}
	tmpl, err := parseTemplate(strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(format))
	if err != nil {
		return err
	}
	var out bytes.Buffer
	if err := tmpl.Execute(&out, value); err != nil {
		return templateError(err)
	}
	_, err = fmt.Fprintln(w, out.String())
	return err
}
