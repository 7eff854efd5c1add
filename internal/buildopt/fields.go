package buildopt

import (
	"encoding/csv"
	"errors"
	"fmt"
	"strings"
)

// fields reads "key=value,key=value", where a value with commas stands in quotes as CSV has them. A word alone has the value "".
func fields(s string) ([][2]string, error) {
	if s == "" {
		return nil, errors.New("it is empty")
	}
	r := csv.NewReader(strings.NewReader(s))
	words, err := r.Read()
	if err != nil || strings.ContainsAny(s, "\n\r") {
		return nil, errors.New("write KEY=value, with commas between them")
	}
	out := make([][2]string, 0, len(words))
	for _, w := range words {
		k, v, _ := strings.Cut(w, "=")
		out = append(out, [2]string{strings.ToLower(strings.TrimSpace(k)), v})
	}
	return out, nil
}

// typed reads "type=X,key=value,…"; a value without any "=" is handed to short.
func typed(s string, short func(string) (string, map[string]string)) (kind string, attrs map[string]string, err error) {
	if !strings.Contains(s, "=") && short != nil && s != "" {
		kind, attrs = short(s)
		return kind, attrs, nil
	}
	list, err := fields(s)
	if err != nil {
		return "", nil, err
	}
	attrs = map[string]string{}
	for _, f := range list {
		switch {
		case f[0] == "":
			return "", nil, errors.New("write KEY=value, with commas between them")
		case f[0] == "type":
			kind = f[1]
		default:
			attrs[f[0]] = f[1]
		}
	}
	if kind == "" {
		return "", nil, errors.New("it says no type=…")
	}
	return kind, attrs, nil
}

// pair cuts NAME=value and refuses an empty name.
func pair(flag, s string) (name, value string, has bool, err error) {
	name, value, has = strings.Cut(s, "=")
	if name == "" {
		return "", "", false, fmt.Errorf("%s %q: write NAME=value", flag, s)
	}
	return name, value, has, nil
}

// csvLine joins words as CSV has them.
func csvLine(words []string) string {
	if len(words) == 0 {
		return ""
	}
	var b strings.Builder
	w := csv.NewWriter(&b)
	_ = w.Write(words) // to memory: it cannot fail
	w.Flush()
	return strings.TrimSuffix(b.String(), "\n")
}

// list is a flag that may be given several times.
type list struct{ values *[]string }

func (l list) Type() string       { return "list" }
func (l list) String() string     { return "" }
func (l list) Set(s string) error { *l.values = append(*l.values, s); return nil }

// Append, Replace and GetSlice make it a pflag.SliceValue.
func (l list) Append(s string) error      { return l.Set(s) }
func (l list) Replace(all []string) error { *l.values = all; return nil }
func (l list) GetSlice() []string         { return *l.values }
