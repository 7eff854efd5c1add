package explain

import (
	"bytes"
	"cmp"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/distribution/reference"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
)

// Build is what a build is told.
type Build struct {
	Dockerfile []byte
	Rules      string            // of .dockerignore
	Args       map[string]string // build arguments
	Options    map[string]string // others that RUN steps depend on
	Contexts   []string          // names of contexts that are directories
}

// reader goes through a Dockerfile and says what its steps depend on.
type reader struct {
	b      *Build
	lines  [][]byte
	seal   func(name, value string) string
	lex    *shell.Lex
	global map[string]string // values of ARGs before the first FROM
	stages map[string]*scope // those that were read, by name and number
	steps  []Step
}

// scope is what holds at a point of a stage.
type scope struct {
	name   string
	inputs []Input           // ENV, ARG, USER and SHELL so far
	values map[string]string // of variables
}

// Steps of a build's Dockerfile; seal makes of a value what may be written down. A syntax that this package does not know gives an error.
func (b *Build) Steps(seal func(name, value string) string) ([]Step, error) {
	tree, err := parser.Parse(bytes.NewReader(b.Dockerfile))
	if err != nil {
		return nil, err
	}
	stages, globals, err := instructions.Parse(tree.AST, nil)
	if err != nil {
		return nil, err
	}
	r := &reader{b: b, lines: bytes.Split(b.Dockerfile, []byte("\n")), seal: seal, lex: shell.NewLex(tree.EscapeToken),
		global: map[string]string{}, stages: map[string]*scope{}}
	for i := range globals {
		for _, a := range globals[i].Args {
			r.global[a.Key] = r.argument(a, r.global)
		}
	}
	for i := range stages {
		r.stage(i, &stages[i], len(stages))
	}
	return r.steps, nil
}

// argument is the value of an ARG: what the build is told, else what stands in the Dockerfile.
func (r *reader) argument(a instructions.KeyValuePairOptional, values map[string]string) string {
	if v, ok := r.b.Args[a.Key]; ok {
		return v
	}
	if a.Value == nil {
		return r.global[a.Key]
	}
	return r.expand(*a.Value, values)
}

func (r *reader) expand(word string, values map[string]string) string {
	env := make([]string, 0, len(values))
	for k, v := range values {
		env = append(env, k+"="+v)
	}
	out, _, err := r.lex.ProcessWord(word, shell.EnvsFromSlice(env))
	if err != nil {
		return word
	}
	return out
}

func (r *reader) stage(i int, st *instructions.Stage, of int) {
	s := &scope{values: map[string]string{}} // one that is alone is called nothing
	if of > 1 {
		s.name = cmp.Or(strings.ToLower(st.Name), "stage-"+strconv.Itoa(i))
	}
	base := r.expand(st.BaseName, r.global)
	first := Step{Stage: s.name, Index: 1, Line: line(st.Location), Text: r.text(st.Location)}
	if b, ok := r.stages[strings.ToLower(base)]; ok {
		first.Base = b.name
		s.inputs = slices.Clone(b.inputs)
		s.inputs = slices.DeleteFunc(s.inputs, func(in Input) bool { return in.Kind == KindArg }) // an ARG ends with its stage
		for _, in := range s.inputs {
			if v, ok := b.values[in.Name]; ok {
				s.values[in.Name] = v
			}
		}
	}
	if named, err := reference.ParseNormalizedNamed(base); err == nil && first.Base == "" {
		first.Image = reference.TagNameOnly(named).String()
		first.Image, _, _ = strings.Cut(first.Image, "@")
	}
	first.Inputs = r.mentioned(st.BaseName, r.global)
	r.steps = append(r.steps, first)
	index := 1
	for _, c := range st.Commands {
		if r.declares(s, c) {
			continue
		}
		step := Step{Stage: s.name, Index: index + 1, Line: line(c.Location()), Text: r.text(c.Location())}
		if r.depends(s, &step, c) {
			index++
			r.steps = append(r.steps, step)
		}
	}
	r.stages[strconv.Itoa(i)] = s
	if st.Name != "" {
		r.stages[strings.ToLower(st.Name)] = s
	}
}

// declares notes an instruction that makes no layer itself and that later ones depend on.
func (r *reader) declares(s *scope, c instructions.Command) bool {
	at := line(c.Location())
	switch c := c.(type) {
	case *instructions.ArgCommand:
		for _, a := range c.Args {
			v := r.argument(a, s.values)
			s.values[a.Key] = v
			s.set(Input{Kind: KindArg, Name: a.Key, Value: r.seal(a.Key, v), Line: at})
		}
	case *instructions.EnvCommand:
		for _, e := range c.Env {
			v := r.expand(e.Value, s.values)
			s.values[e.Key] = v
			s.set(Input{Kind: KindEnv, Name: e.Key, Value: r.seal(e.Key, v), Line: at})
		}
	case *instructions.UserCommand:
		s.set(Input{Kind: KindUser, Value: r.expand(c.User, s.values), Line: at})
	case *instructions.ShellCommand:
		s.set(Input{Kind: KindShell, Value: strings.Join(c.Shell, " "), Line: at})
	default:
		return false
	}
	return true
}

func (s *scope) set(in Input) {
	i := slices.IndexFunc(s.inputs, func(o Input) bool { return o.Kind == in.Kind && o.Name == in.Name })
	if i >= 0 {
		s.inputs[i] = in
		return
	}
	s.inputs = append(s.inputs, in)
}

// depends fills in what a step that makes a layer depends on; false is an instruction that makes none.
func (r *reader) depends(s *scope, step *Step, c instructions.Command) bool {
	switch c := c.(type) {
	case *instructions.CopyCommand:
		r.takes(step, r.expand(c.From, s.values), r.expandAll(c.SourcePaths, s.values))
		step.Inputs = r.mentionedIn(s, step.Text)
	case *instructions.AddCommand:
		local := slices.DeleteFunc(r.expandAll(c.SourcePaths, s.values), func(p string) bool { return strings.Contains(p, "://") || strings.HasPrefix(p, "git@") })
		if len(local) > 0 {
			r.takes(step, "", local)
		}
		step.Inputs = r.mentionedIn(s, step.Text)
	case *instructions.WorkdirCommand:
		step.Inputs = r.mentionedIn(s, step.Text)
	case *instructions.RunCommand:
		step.Inputs = slices.Clone(s.inputs)
		for _, k := range sorted(r.b.Options) {
			step.Inputs = append(step.Inputs, Input{Kind: KindOption, Name: "--" + k, Value: r.b.Options[k]})
		}
		if err := c.Expand(func(word string) (string, error) { return r.expand(word, s.values), nil }); err != nil {
			return true // BuildKit will say so
		}
		for _, m := range instructions.GetMounts(c) {
			if m.Type == instructions.MountTypeBind {
				r.takes(step, m.From, []string{m.Source})
			}
		}
	default:
		return false
	}
	return true
}

// takes notes files of a stage or context.
func (r *reader) takes(step *Step, from string, sources []string) {
	if st, ok := r.stages[strings.ToLower(from)]; ok {
		from = st.name
	}
	step.From = append(step.From, from)
	if from != "" && !slices.Contains(r.b.Contexts, from) {
		return
	}
	for _, p := range sources {
		step.Sources = append(step.Sources, strings.TrimPrefix(path.Clean("/"+p), "/"))
	}
}

func (r *reader) expandAll(words []string, values map[string]string) []string {
	out := make([]string, len(words))
	for i, w := range words {
		out[i] = r.expand(w, values)
	}
	return out
}

// mentioned are the variables of a text that come from ARGs before the first FROM.
func (r *reader) mentioned(text string, values map[string]string) []Input {
	var out []Input
	for _, name := range sorted(values) {
		if mentions(text, name) {
			out = append(out, Input{Kind: KindArg, Name: name, Value: r.seal(name, values[name])})
		}
	}
	return out
}

// mentionedIn are the variables of a text that hold in a stage: those alone are what COPY, ADD and WORKDIR depend on.
func (r *reader) mentionedIn(s *scope, text string) []Input {
	return slices.DeleteFunc(slices.Clone(s.inputs), func(in Input) bool { return in.Name == "" || !mentions(text, in.Name) })
}

func mentions(text, name string) bool {
	return strings.Contains(text, "$"+name) || strings.Contains(text, "${"+name)
}

func line(at []parser.Range) int {
	if len(at) == 0 {
		return 0
	}
	return at[0].Start.Line
}

// text of an instruction, with the documents that stand in it.
func (r *reader) text(at []parser.Range) string {
	if len(at) == 0 {
		return ""
	}
	first, last := at[0].Start.Line, at[len(at)-1].End.Line
	if first < 1 || last < first || last > len(r.lines) {
		return ""
	}
	return strings.TrimSpace(string(bytes.Join(r.lines[first-1:last], []byte("\n"))))
}
