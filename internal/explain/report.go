package explain

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Seen is what became of a step of BuildKit's graph.
type Seen struct {
	Name   string // "[linux/arm64 stage 2/4] COPY . ."
	Cached bool
	Failed bool
	Took   time.Duration
}

// place of a seen step.
type place struct {
	platform, stage string
	index, of       int
	text            string
}

// parse reads the name of a step; false is a step of BuildKit's own.
func parse(name string) (place, bool) {
	inner, text, ok := strings.Cut(strings.TrimPrefix(name, "["), "] ")
	words := strings.Fields(inner)
	if !ok || !strings.HasPrefix(name, "[") || len(words) == 0 {
		return place{}, false
	}
	index, of, ok := strings.Cut(words[len(words)-1], "/")
	i, err := strconv.Atoi(index)
	n, err2 := strconv.Atoi(of)
	if !ok || err != nil || err2 != nil {
		return place{}, false
	}
	p := place{index: i, of: n, text: text}
	for _, w := range words[:len(words)-1] {
		if strings.Contains(w, "/") && p.platform == "" && p.stage == "" {
			p.platform = w
		} else {
			p.stage = w
		}
	}
	return p, true
}

// outcome of a step, of all of BuildKit's steps that it is made of.
type outcome struct {
	place
	name        string
	ran, failed bool
	took        time.Duration
}

// outcomes by platform, stage and number, in the order in which they were first seen.
func (c *Comparison) outcomes(seen []Seen) []*outcome {
	alone := !slices.ContainsFunc(c.Now.Steps, func(s Step) bool { return s.Stage != "" })
	var list []*outcome
	for _, s := range seen {
		p, ok := parse(s.Name)
		if !ok {
			continue
		}
		if alone {
			p.stage = ""
		}
		if !slices.ContainsFunc(c.Now.Steps, func(s Step) bool { return s.Stage == p.stage }) {
			continue // it is another build's, too, and has the name that it has there
		}
		i := slices.IndexFunc(list, func(o *outcome) bool { return o.platform == p.platform && o.stage == p.stage && o.index == p.index })
		if i < 0 {
			i = len(list)
			list = append(list, &outcome{place: p, name: s.Name})
		}
		o := list[i]
		o.ran, o.failed, o.took = o.ran || !s.Cached, o.failed || s.Failed, o.took+s.Took
	}
	c.align(list)
	return list
}

// Report says for each step of a build whether it ran, and why.
func (c *Comparison) Report(w io.Writer, seen []Seen) error {
	list := c.outcomes(seen)
	slices.SortStableFunc(list, func(a, b *outcome) int {
		return cmp.Or(cmp.Compare(a.platform, b.platform), cmp.Compare(c.order(a.place), c.order(b.place)))
	})
	var b strings.Builder
	ran := map[string]*outcome{}
	for _, o := range list {
		why := ""
		if o.ran {
			why = c.reason(o, ran)
			o.ran = o.index != 1 || why != "" || o.failed // a base image that is the same as before ran nothing
		}
		word := "CACHED"
		switch {
		case o.failed:
			word = "FAILED"
		case o.ran:
			word = "RAN"
		}
		took := ""
		if o.ran && o.took > 0 {
			took = fmt.Sprintf("  (%.1f s)", o.took.Seconds())
		}
		fmt.Fprintf(&b, "%-7s %s%s\n", word, short(o.name), took)
		if !o.ran {
			continue
		}
		if why != "" {
			fmt.Fprintf(&b, "        %s\n", why)
		}
		ran[o.key(o.stage, o.index)] = o
	}
	if len(list) == 0 {
		b.WriteString("No step of this Dockerfile makes a layer.\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (p place) key(stage string, index int) string {
	return p.platform + " " + stage + " " + strconv.Itoa(index)
}

// step of the Dockerfile that an outcome is of, nil where its name leads to none.
func (c *Comparison) step(p place) *Step {
	if strings.HasPrefix(p.text, "ONBUILD ") {
		return nil // the base image brings it
	}
	for i := range c.Now.Steps {
		if s := &c.Now.Steps[i]; s.Stage == p.stage && s.Index == p.index {
			return s
		}
	}
	return nil
}

// align makes the numbers of a stage's outcomes those of its steps. BuildKit numbers what it does: not the FROM of an empty image or of a
// named context, and first what ONBUILD of the base image brings. What the instructions are tells by how much the numbers differ.
func (c *Comparison) align(list []*outcome) {
	stages := map[string][]*outcome{}
	for _, o := range list {
		k := o.platform + " " + o.stage
		stages[k] = append(stages[k], o)
	}
	for _, of := range stages {
		length := c.length(of[0].stage)
		brought := max(0, of[0].of-length)
		best, most := 0, -1
		for _, shift := range []int{-brought, 1 - brought} {
			score := 0
			for _, o := range of {
				p := o.place
				p.index += shift
				if s := c.step(p); s != nil {
					score += resemble(s.Text, o.text)
				}
			}
			if score > most {
				best, most = shift, score
			}
		}
		for _, o := range of {
			o.index += best
		}
	}
}

// resemble counts the words that an instruction and BuildKit's name of it have in common at their beginnings; variables fit anything.
func resemble(text, name string) (n int) {
	a, b := strings.Fields(text), strings.Fields(name)
	for i := range min(len(a), len(b), 6) {
		switch {
		case strings.EqualFold(a[i], b[i]):
			n += 2
		case strings.Contains(a[i], "$"):
			n++
		default:
			return n
		}
	}
	return n
}

func (c *Comparison) order(p place) int {
	s := c.step(p)
	if s == nil {
		return 0
	}
	return s.Line
}

// reason why a step ran: something of its own, else the step before it, else what it copies from.
func (c *Comparison) reason(o *outcome, ran map[string]*outcome) string {
	s := c.step(o.place)
	if s == nil {
		return "it comes with the base image"
	}
	if why := c.Why(s); why != "" || s.Index == 1 {
		return why
	}
	if forced := c.forced(s); forced != "" {
		return forced
	}
	if why := c.follows(o, ran); why != "" {
		return why
	}
	for _, from := range s.From {
		for i := range c.Now.Steps {
			t := &c.Now.Steps[i]
			if from != "" && t.Stage == from && ran[o.key(from, t.Index)] != nil {
				return "what it copies from " + from + " changed: " + bracket(ran[o.key(from, t.Index)].name) + " ran"
			}
		}
	}
	return "nothing that is known of differs: what the cache had of it is gone, or comes from outside (an address, a secret, another image)"
}

// forced tells whether the cache was not to be used.
func (c *Comparison) forced(s *Step) string {
	switch {
	case c.NoCache == nil:
		return ""
	case len(c.NoCache) == 0:
		return "--no-cache asked for it"
	case slices.ContainsFunc(c.NoCache, func(stage string) bool { return strings.EqualFold(stage, s.Stage) }):
		return "--no-cache-filter asked for it"
	}
	return ""
}

// follows says what came before a step and was not as the last time: the nearest step before that ran, in this stage or the one that it
// continues, or the base image, which runs nothing. "" is nothing.
func (c *Comparison) follows(o *outcome, ran map[string]*outcome) string {
	stage, index := o.stage, o.index-1
	for range len(c.Now.Steps) {
		for ; index > 0; index-- {
			if before := ran[o.key(stage, index)]; before != nil {
				return "it follows from " + bracket(before.name)
			}
		}
		first := c.step(place{stage: stage, index: 1})
		if first == nil {
			return ""
		}
		if first.Base == "" {
			return c.Why(first)
		}
		stage, index = first.Base, c.length(first.Base)
	}
	return ""
}

func (c *Comparison) length(stage string) (n int) {
	for i := range c.Now.Steps {
		if c.Now.Steps[i].Stage == stage {
			n = max(n, c.Now.Steps[i].Index)
		}
	}
	return n
}

// bracket is the part of a step's name that tells it from others.
func bracket(name string) string {
	inside, _, ok := strings.Cut(name, "] ")
	if !ok {
		return name
	}
	return inside + "]"
}

// digest is that of the image that a FROM step names, "" where it names none.
func (s Seen) digest() string {
	_, digest, ok := strings.Cut(s.Name, "@sha256:")
	if !ok {
		return ""
	}
	return "sha256:" + strings.TrimSpace(digest)
}

// SetImages adds to FROM steps the digests of their images, which BuildKit's names of steps tell. Builds that do the same thing at the same time
// share it and its name, so the stage in such a name may be another build's: the image alone counts.
func (r *Record) SetImages(seen []Seen) {
	for _, v := range seen {
		digest := v.digest()
		if digest == "" {
			continue
		}
		if context, _, ok := strings.Cut(strings.TrimPrefix(v.Name, "[context "), "] load metadata"); ok {
			r.setContext(context, digest)
		} else if _, from, ok := strings.Cut(v.Name, "] FROM "); ok {
			name, _, _ := strings.Cut(from, "@")
			r.setImage(name, digest)
		}
	}
}

func (r *Record) setImage(name, digest string) {
	for i := range r.Steps {
		s := &r.Steps[i]
		in := Input{Kind: KindImage, Name: s.image(), Value: digest}
		if s.Index == 1 && s.Image == name && !slices.Contains(s.Inputs, in) {
			s.Inputs = append(s.Inputs, in)
		}
	}
}

// setContext notes the image that a named context is.
func (r *Record) setContext(name, digest string) {
	for i := range r.Steps {
		s := &r.Steps[i]
		in := Input{Kind: KindImage, Name: name, Value: digest}
		if s.Index == 1 && s.image() == name && !slices.Contains(s.Inputs, in) {
			s.Inputs = append(s.Inputs, in)
		}
	}
}

// image that FROM names.
func (s *Step) image() string {
	for _, w := range strings.Fields(s.Text)[1:] {
		if !strings.HasPrefix(w, "--") {
			return w
		}
	}
	return ""
}
