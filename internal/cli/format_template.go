package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"text/template"
	"unicode"
	"unicode/utf8"
)

// parseTemplate reads a template of --format with Docker's functions.
func parseTemplate(text string) (*template.Template, error) {
	tmpl, err := template.New("").Option("missingkey=error").Funcs(templateFunctions()).Parse(text)
	if err != nil {
		return nil, templateError(err)
	}
	return tmpl, nil
}

// templateError shortens text/template's message, whose beginning names a file that does not exist.
func templateError(err error) error {
	text := strings.TrimPrefix(err.Error(), "template: :")
	text = strings.ReplaceAll(text, `executing "" at `, "")
	return fmt.Errorf("the template of --format: line %s", strings.ReplaceAll(text, "\n", " "))
}

func templateFunctions() template.FuncMap {
	return template.FuncMap{
		"json":  jsonText,
		"join":  joinText,
		"title": ofText(titleText),
		"lower": ofText(strings.ToLower),
		"upper": ofText(strings.ToUpper),
		"split": func(v any, by string) ([]string, error) { s, err := textOf(v); return strings.Split(s, by), err },
		"pad": func(v any, before, after int) (string, error) {
			s, err := textOf(v)
			return padText(s, before, after), err
		},
		"truncate": func(v any, length int) (string, error) { s, err := textOf(v); return truncateText(s, length), err },
	}
}

// ofText lets a function of strings take values of the API's own string types, too.
func ofText(f func(string) string) func(any) (string, error) {
	return func(v any) (string, error) {
		s, err := textOf(v)
		return f(s), err
	}
}

func textOf(v any) (string, error) {
	if r := reflect.ValueOf(v); r.Kind() == reflect.String {
		return r.String(), nil
	}
	return "", fmt.Errorf("this function is for texts, and the value is %T", v)
}

func jsonText(v any) (string, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return "", err
	}
	return strings.TrimSpace(b.String()), nil
}

// joinText joins a list of anything, or the values of a map in the order of their texts.
func joinText(list any, separator string) (string, error) {
	if list == nil {
		return "", nil
	}
	v := reflect.ValueOf(list)
	var parts []string
	switch v.Kind() {
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			parts = append(parts, fmt.Sprint(v.Index(i)))
		}
	case reflect.Map:
		for _, key := range v.MapKeys() {
			parts = append(parts, fmt.Sprint(v.MapIndex(key)))
		}
		slices.Sort(parts)
	default:
		return "", fmt.Errorf("join needs a list, this is %T", list)
	}
	return strings.Join(parts, separator), nil
}

// titleText makes each word's first letter a capital.
func titleText(s string) string {
	last := ' '
	return strings.Map(func(r rune) rune {
		begins := !unicode.IsLetter(last) && !unicode.IsDigit(last) && last != '_' && last != '\''
		last = r
		if begins {
			return unicode.ToTitle(r)
		}
		return r
	}, s)
}

// padText puts spaces around a text, unless it is empty.
func padText(s string, before, after int) string {
	if s == "" {
		return s
	}
	return strings.Repeat(" ", max(before, 0)) + s + strings.Repeat(" ", max(after, 0))
}

// truncateText cuts a text to so many bytes, never in the middle of a letter.
func truncateText(s string, length int) string {
	if length < 0 || len(s) <= length {
		return s
	}
	for length > 0 && !utf8.RuneStart(s[length]) {
		length--
	}
	return s[:length]
}
