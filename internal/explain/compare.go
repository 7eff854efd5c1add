package explain

import (
	"bytes"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"
)

// Comparison of a build with the one before.
type Comparison struct {
	Before, Now *Record  // Before is nil for the first build
	NoCache     []string // stages whose steps were to run anew; empty is all, nil is none

	old   map[string]*Step // by the ID of the new step
	diffs map[string][]change
}

// change of a file; what is nil was or is not there.
type change struct{ before, now *File }

func (c change) path() string {
	if c.now != nil {
		return c.now.Path
	}
	return c.before.Path
}

// Compare finds what differs between two builds.
func Compare(before, now *Record) *Comparison {
	c := &Comparison{Before: before, Now: now, old: map[string]*Step{}, diffs: map[string][]change{}}
	if before == nil {
		return c
	}
	c.pair()
	for context := range now.Files {
		c.diffs[context] = c.changes(context)
	}
	return c
}

// pair finds for each step the one that it was: the same words in the same stage, else what stood in its place.
func (c *Comparison) pair() {
	taken := map[*Step]bool{}
	find := func(s *Step, fits func(*Step) bool) bool {
		for i := range c.Before.Steps {
			if o := &c.Before.Steps[i]; o.Stage == s.Stage && !taken[o] && fits(o) {
				c.old[s.ID()], taken[o] = o, true
				return true
			}
		}
		return false
	}
	var left []*Step
	for i := range c.Now.Steps {
		s := &c.Now.Steps[i]
		if !find(s, func(o *Step) bool { return o.Text == s.Text }) {
			left = append(left, s)
		}
	}
	for _, s := range left {
		find(s, func(o *Step) bool { return o.Index == s.Index })
	}
}

// changes of a context's files, with what its rules keep out left out.
func (c *Comparison) changes(context string) []change {
	was, is := rules(c.Before.Rules), rules(c.Now.Rules)
	if context != "" {
		was, is = nil, nil // the rules of named contexts stand in their own files
	}
	var out []change
	note := func(before, now *File) {
		if before != nil && hidden(was, before.Path) {
			before = nil
		}
		if now != nil && hidden(is, now.Path) {
			now = nil
		}
		if before != nil && now != nil && equal(before, now) || before == nil && now == nil {
			return
		}
		out = append(out, change{before, now})
	}
	otherRules := context == "" && c.Before.Rules != c.Now.Rules
	a, b := c.Before.Files[context], c.Now.Files[context]
	for len(a) > 0 || len(b) > 0 {
		switch {
		case len(b) == 0 || len(a) > 0 && a[0].Path < b[0].Path:
			note(&a[0], nil)
			a = a[1:]
		case len(a) == 0 || b[0].Path < a[0].Path:
			note(nil, &b[0])
			b = b[1:]
		default:
			if otherRules || !equal(&a[0], &b[0]) {
				note(&a[0], &b[0])
			}
			a, b = a[1:], b[1:]
		}
	}
	return out
}

// equal tells whether BuildKit would take two files for the same: times do not count.
func equal(a, b *File) bool {
	if a.Hash == "" || b.Hash == "" {
		return a.same(b)
	}
	return a.Hash == b.Hash && a.Mode == b.Mode && a.Target == b.Target
}

func rules(text string) *patternmatcher.PatternMatcher {
	patterns, err := ignorefile.ReadAll(bytes.NewReader([]byte(text)))
	if err != nil || len(patterns) == 0 {
		return nil
	}
	m, err := patternmatcher.New(patterns)
	if err != nil {
		return nil
	}
	return m
}

func hidden(m *patternmatcher.PatternMatcher, path string) bool {
	if m == nil {
		return false
	}
	hit, err := m.MatchesOrParentMatches(path)
	return err == nil && hit
}

// Why a step that ran could not be taken from the cache: the first thing of its own that differs; "" where nothing does.
func (c *Comparison) Why(s *Step) string {
	if c.Before == nil {
		return "this is the first build of it here"
	}
	old := c.old[s.ID()]
	if old == nil {
		return "the instruction is new"
	}
	if old.Text != s.Text {
		return "the instruction changed; it was: " + short(old.Text)
	}
	if why := inputs(old.Inputs, s.Inputs); why != "" {
		return why
	}
	return c.files(s)
}

// inputs names the first that differs.
func inputs(before, now []Input) string {
	find := func(list []Input, in Input) *Input {
		for i := range list {
			if list[i].Kind == in.Kind && list[i].Name == in.Name {
				return &list[i]
			}
		}
		return nil
	}
	for _, in := range now {
		old := find(before, in)
		what := strings.TrimSpace(string(in.Kind) + " " + in.Name)
		if in.Line > 0 {
			what = fmt.Sprintf("%s (line %d)", what, in.Line)
		}
		switch {
		case old == nil && in.Kind == KindImage: // it was not told of
		case old == nil:
			return what + " is new: " + shown(in.Value)
		case old.Value != in.Value:
			return fmt.Sprintf("%s was %s, is %s", what, shown(old.Value), shown(in.Value))
		}
	}
	for _, old := range before {
		if find(now, old) == nil && old.Kind != KindImage {
			return strings.TrimSpace(string(old.Kind)+" "+old.Name) + " is gone; it was " + shown(old.Value)
		}
	}
	return ""
}

func shown(value string) string {
	if rest, ok := strings.CutPrefix(value, sealed); ok {
		return "a value with the keyed hash " + rest[:min(8, len(rest))]
	}
	return `"` + value + `"`
}

// files names the first file of a step that differs, and how many more do.
func (c *Comparison) files(s *Step) string {
	var first *change
	n := 0
	for _, from := range s.From {
		for i, d := range c.diffs[from] {
			if !slices.ContainsFunc(s.Sources, func(p string) bool { return takes(p, d.path()) }) {
				continue
			}
			if n++; first == nil {
				first = &c.diffs[from][i]
			}
		}
	}
	if first == nil {
		return ""
	}
	text := first.String()
	if n > 1 {
		text += fmt.Sprintf(" (and %d more)", n-1)
	}
	return text
}

func (c change) String() string {
	switch {
	case c.before == nil:
		return fmt.Sprintf("%s is new: %s", c.now.Path, c.now.short())
	case c.now == nil:
		return fmt.Sprintf("%s is gone; it was %s", c.before.Path, c.before.short())
	case c.before.Hash != c.now.Hash || c.before.Hash == "":
		return fmt.Sprintf("%s changed: it was %s, is %s", c.now.Path, c.before.short(), c.now.short())
	case c.before.Target != c.now.Target:
		return fmt.Sprintf("%s pointed to %s, points to %s", c.now.Path, c.before.Target, c.now.Target)
	}
	return fmt.Sprintf("%s has another mode: it was %#o, is %#o", c.now.Path, c.before.Mode&0o7777, c.now.Mode&0o7777)
}

func (f *File) short() string {
	switch {
	case f.Target != "":
		return "a link to " + f.Target
	case f.Hash == "":
		return fmt.Sprintf("%d bytes (no hash of it is known)", f.Size)
	}
	return "sha256:" + f.Hash[:min(12, len(f.Hash))]
}

// takes tells whether a source of COPY takes a file: it is the file, a directory above it, or a pattern for one of these.
func takes(source, file string) bool {
	if source == "" || source == "." || source == file || strings.HasPrefix(file, source+"/") {
		return true
	}
	if !strings.ContainsAny(source, "*?[") {
		return false
	}
	if strings.Contains(source, "**") {
		return hidden(rules(source), file)
	}
	for p := file; p != "." && p != "/"; p = path.Dir(p) {
		if ok, err := path.Match(source, p); err == nil && ok {
			return true
		}
	}
	return false
}

// short is the beginning of an instruction, as a line.
func short(text string) string {
	first, _, more := strings.Cut(text, "\n")
	first = strings.TrimSuffix(strings.TrimSpace(first), "\\")
	if r := []rune(first); len(r) > 100 {
		first, more = string(r[:100]), true
	}
	if more {
		first += "…"
	}
	return first
}
