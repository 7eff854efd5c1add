package access

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// file is what can be written.
type file struct {
	Default string        `toml:"default"`
	Rules   []writtenRule `toml:"rule"`
}

type writtenRule struct {
	User        *string `toml:"user"`
	UID         *int64  `toml:"uid"`
	Group       *string `toml:"group"`
	GID         *int64  `toml:"gid"`
	Certificate *string `toml:"certificate"`
	Containers  *bool   `toml:"containers"`
	May         *string `toml:"may"`
}

// Parse reads a file's text. Its error has a line for each mistake, with the file's name, the line, and what is wrong there.
func Parse(name string, text []byte) (*Rules, error) {
	var f file
	d := toml.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&f); err != nil {
		return nil, explain(name, err)
	}
	at := places(text)
	out := &Rules{File: name, group: -1}
	var mistakes []error
	wrong := func(line int, err error) { mistakes = append(mistakes, fmt.Errorf("%s:%d: %w", name, line, err)) }
	if f.Default != "" {
		var err error
		if out.Default, err = parseRight(f.Default); err != nil {
			wrong(at.defaults, fmt.Errorf("default: %w", err))
		}
	}
	for i := range f.Rules {
		place := at.rules[i]
		rule, key, err := f.Rules[i].rule()
		if err != nil {
			line := place[""]
			if n, ok := place[key]; ok {
				line = n
			}
			wrong(line, err)
			continue
		}
		rule.Line = place[""]
		out.List = append(out.List, rule)
	}
	return out, errors.Join(mistakes...)
}

// rule makes one of what was written; key is where a mistake is.
func (w *writtenRule) rule() (r Rule, key string, err error) {
	r.uid, r.gid = -1, -1
	var who []string
	if w.User != nil {
		who = append(who, "user "+*w.User)
		r.uid, err = userID(*w.User)
		key = "user"
	}
	if w.UID != nil {
		who = append(who, fmt.Sprintf("uid %d", *w.UID))
		r.uid, err, key = *w.UID, number(*w.UID), "uid"
	}
	if w.Group != nil {
		who = append(who, "group "+*w.Group)
		r.gid, err = Group(*w.Group)
		key = "group"
	}
	if w.GID != nil {
		who = append(who, fmt.Sprintf("gid %d", *w.GID))
		r.gid, err, key = *w.GID, number(*w.GID), "gid"
	}
	if w.Certificate != nil {
		who = append(who, "certificate "+*w.Certificate)
		r.certificate, key = *w.Certificate, "certificate"
		if *w.Certificate == "" {
			err = errors.New("certificate: give the name that stands in it")
		}
	}
	if w.Containers != nil {
		who = append(who, "containers")
		r.containers, key = *w.Containers, "containers"
		if !r.containers {
			err = errors.New("containers: write true, or leave the rule out")
		}
	}
	switch {
	case len(who) != 1:
		return r, "", fmt.Errorf("a rule names one of user, uid, group, gid, certificate, containers; this one %d of them", len(who))
	case err != nil:
		return r, key, err
	case w.May == nil:
		return r, "", errors.New("a rule says what its callers may: none, read-only, own or all")
	}
	r.Who = who[0]
	if r.May, err = parseRight(*w.May); err != nil {
		return r, "may", fmt.Errorf("may: %w", err)
	}
	if r.uid == 0 && r.May != All {
		return r, "may", errors.New("root may everything on this machine: no rule takes that away")
	}
	return r, "", nil
}

func number(n int64) error {
	if n < 0 || n >= 1<<31 {
		return fmt.Errorf("%d is no id", n)
	}
	return nil
}

// positions are the lines of the keys.
type positions struct {
	defaults int
	rules    []map[string]int // "" is the rule's own line
}

func places(text []byte) (out positions) {
	var p unstable.Parser
	p.Reset(text)
	lineOf := func(e *unstable.Node) (string, int) {
		k := e.Key()
		k.Next()
		return string(k.Node().Data), 1 + bytes.Count(text[:k.Node().Raw.Offset], []byte("\n"))
	}
	for p.NextExpression() {
		e := p.Expression()
		key, line := lineOf(e)
		switch {
		case e.Kind == unstable.ArrayTable:
			out.rules = append(out.rules, map[string]int{"": line})
		case e.Kind == unstable.KeyValue && len(out.rules) > 0:
			out.rules[len(out.rules)-1][key] = line
		case e.Kind == unstable.KeyValue && key == "rule" && e.Value().Kind == unstable.Array: // rule = [{…}, …]
			for c := e.Value().Children(); c.Next(); {
				out.rules = append(out.rules, map[string]int{"": line})
			}
		case key == "default":
			out.defaults = line
		}
	}
	return out
}

func explain(name string, err error) error {
	var unknown *toml.StrictMissingError
	if errors.As(err, &unknown) {
		var all []error
		for _, e := range unknown.Errors {
			line, _ := e.Position()
			all = append(all, fmt.Errorf("%s:%d: %s: there is no such key; a file has default and [[rule]], a rule has user, uid, group, gid, certificate, containers and may",
				name, line, strings.Join(e.Key(), ".")))
		}
		return errors.Join(all...)
	}
	var wrong *toml.DecodeError
	if !errors.As(err, &wrong) {
		return fmt.Errorf("%s: %w", name, err)
	}
	line, _ := wrong.Position()
	return fmt.Errorf("%s:%d: %s", name, line, strings.TrimPrefix(wrong.Error(), "toml: "))
}
