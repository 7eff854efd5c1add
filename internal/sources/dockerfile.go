package sources

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// dockerfile collects the images of FROM, COPY --from, RUN --mount=from and of the syntax line.
func (r *reader) dockerfile(path string, args map[string]string) error {
	text, err := readFile(path)
	if err != nil {
		return err
	}
	return r.dockerfileText(path, text, args)
}

func (r *reader) dockerfileText(path string, text []byte, args map[string]string) error {
	d := &dockerfile{args: args, global: predefined(), stages: map[string]bool{}}
	maps.Copy(d.global, only(args, d.global))
	if err := d.read(text); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	for _, u := range d.uses {
		if u.from && d.isStage(u.name) || u.name == "scratch" {
			continue
		}
		r.add(path, u.line, u.name)
	}
	return nil
}

// predefined are the variables that BuildKit sets for FROM, as they are when one builds for this machine.
func predefined() map[string]string {
	m := map[string]string{}
	for _, of := range []string{"BUILD", "TARGET"} {
		m[of+"PLATFORM"], m[of+"OS"], m[of+"ARCH"], m[of+"VARIANT"] = "linux/"+runtime.GOARCH, "linux", runtime.GOARCH, ""
	}
	m["TARGETSTAGE"] = "default"
	return m
}

func only(m, keys map[string]string) map[string]string {
	out := map[string]string{}
	for k, v := range m {
		if _, ok := keys[k]; ok {
			out[k] = v
		}
	}
	return out
}

// dockerfile is one while it is read.
type dockerfile struct {
	args, global map[string]string
	escape       byte
	stages       map[string]bool // names, lower case
	count        int             // of stages
	uses         []use
}

// use of an image, or of a stage where from is true: which, is known at the end.
type use struct {
	name string
	line int
	from bool
}

func (d *dockerfile) isStage(name string) bool {
	if n, err := strconv.Atoi(name); err == nil && n >= 0 && n < d.count {
		return true
	}
	return d.stages[strings.ToLower(name)]
}

func (d *dockerfile) read(text []byte) error {
	text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))
	lines := strings.Split(strings.ReplaceAll(string(text), "\r\n", "\n"), "\n")
	d.directives(lines)
	for i := 0; i < len(lines); {
		at := i
		var whole string
		whole, i = d.instruction(lines, i)
		if whole == "" {
			continue
		}
		word, rest, _ := strings.Cut(whole, " ")
		if err := d.step(strings.ToUpper(word), strings.TrimSpace(rest), at+1); err != nil {
			return fmt.Errorf("line %d: %w", at+1, err)
		}
		switch strings.ToUpper(word) {
		case "RUN", "COPY", "ADD":
			var err error
			if i, err = skipHeredocs(lines, i, rest); err != nil {
				return fmt.Errorf("line %d: %w", at+1, err)
			}
		}
	}
	return nil
}

// directives stand at the very top: # syntax=IMAGE, # escape=CHARACTER.
func (d *dockerfile) directives(lines []string) {
	d.escape = '\\'
	for i, line := range lines {
		comment, ok := strings.CutPrefix(strings.TrimSpace(line), "#")
		key, value, isPair := strings.Cut(comment, "=")
		if !ok || !isPair {
			return
		}
		value = strings.TrimSpace(value)
		switch strings.ToLower(strings.TrimSpace(key)) {
		case "syntax":
			if value, _, _ = strings.Cut(value, " "); value != "" {
				d.uses = append(d.uses, use{name: value, line: i + 1})
			}
		case "escape":
			if value == "`" {
				d.escape = '`'
			}
		case "check":
		default:
			return
		}
	}
}

// instruction joins the lines of the one that begins at i, comments between them left out, and says where the next one begins.
func (d *dockerfile) instruction(lines []string, i int) (whole string, next int) {
	var b strings.Builder
	for ; i < len(lines); i++ {
		line := strings.TrimSpace(lines[i])
		if strings.HasPrefix(line, "#") || line == "" && b.Len() > 0 {
			if b.Len() == 0 {
				return "", i + 1
			}
			continue
		}
		more, continues := strings.CutSuffix(line, string(d.escape))
		b.WriteString(more)
		if !continues {
			return strings.TrimSpace(strings.ReplaceAll(b.String(), "\t", " ")), i + 1
		}
	}
	return strings.TrimSpace(b.String()), i
}

// skipHeredocs passes over the documents that an instruction begins (<<EOF, <<-"EOF").
func skipHeredocs(lines []string, i int, rest string) (int, error) {
	for _, word := range strings.Fields(rest) {
		after, ok := strings.CutPrefix(strings.TrimLeft(word, "0123456789"), "<<")
		if !ok || strings.Contains(after, "<") {
			continue
		}
		after, tabs := strings.CutPrefix(after, "-")
		end := strings.Trim(after, `"'`)
		if end == "" {
			continue
		}
		for {
			if i >= len(lines) {
				return i, fmt.Errorf("the document <<%s does not end: its %s is missing", end, end)
			}
			line := lines[i]
			if tabs {
				line = strings.TrimLeft(line, "\t")
			}
			i++
			if line == end {
				break
			}
		}
	}
	return i, nil
}

func (d *dockerfile) step(word, rest string, line int) error {
	switch word {
	case "ARG":
		if d.count == 0 {
			return d.arg(rest)
		}
	case "FROM":
		return d.from(rest, line)
	case "COPY", "RUN":
		for _, f := range leadingFlags(rest) {
			var name string
			switch {
			case word == "COPY":
				name, _ = strings.CutPrefix(f, "--from=")
			default:
				name = mountFrom(f)
			}
			if name == f || name == "" {
				continue
			}
			if strings.Contains(name, "$") {
				return fmt.Errorf("%s: variables are not replaced there: name a stage, FROM %s AS NAME", f, name)
			}
			d.uses = append(d.uses, use{name: strings.Trim(name, `"'`), line: line, from: true})
		}
	}
	return nil
}

// leadingFlags are the words with -- that stand before all others.
func leadingFlags(rest string) []string {
	words := strings.Fields(rest)
	n := slices.IndexFunc(words, func(w string) bool { return !strings.HasPrefix(w, "--") })
	if n < 0 {
		n = len(words)
	}
	return words[:n]
}

// mountFrom is where a --mount of RUN comes from.
func mountFrom(flag string) string {
	options, ok := strings.CutPrefix(flag, "--mount=")
	if !ok {
		return ""
	}
	for option := range strings.SplitSeq(strings.Trim(options, `"'`), ",") {
		if key, value, _ := strings.Cut(option, "="); strings.EqualFold(key, "from") {
			return value
		}
	}
	return ""
}

// arg declares variables before the first FROM. Values that were given win over the default.
func (d *dockerfile) arg(rest string) error {
	for _, word := range words(rest) {
		name, value, has := strings.Cut(word, "=")
		if given, ok := d.args[name]; ok {
			d.global[name] = given
			continue
		}
		if !has {
			continue
		}
		value, err := d.expand(value)
		if err != nil {
			return fmt.Errorf("ARG %s: %w", word, err)
		}
		d.global[name] = value
	}
	return nil
}

// expand takes quotes off and replaces variables. One that was declared without a value is an error.
func (d *dockerfile) expand(s string) (string, error) {
	if quoted, ok := strings.CutPrefix(s, "'"); ok {
		return strings.TrimSuffix(quoted, "'"), nil
	}
	s = strings.ReplaceAll(s, `"`, "")
	out, err := expansion{escape: d.escape, get: func(name string) (string, bool) { v, ok := d.global[name]; return v, ok }}.text(s)
	var unset *unsetError
	if errors.As(err, &unset) {
		err = fmt.Errorf("%w: give it with --build-arg %s=VALUE, or write ARG %s=DEFAULT before the first FROM", err, unset.name, unset.name)
	}
	return out, err
}

func (d *dockerfile) from(rest string, line int) error {
	rest = strings.TrimSpace(rest)
	for _, f := range leadingFlags(rest) {
		rest = strings.TrimSpace(strings.TrimPrefix(rest, f))
	}
	parts := words(rest)
	if len(parts) != 1 && (len(parts) != 3 || !strings.EqualFold(parts[1], "as")) {
		return fmt.Errorf("FROM %s: it is FROM [--platform=…] IMAGE [AS NAME]", rest)
	}
	name, err := d.expand(parts[0])
	if err != nil {
		return fmt.Errorf("FROM %s: %w", parts[0], err)
	}
	if name == "" {
		return fmt.Errorf("FROM %s: that is empty", parts[0])
	}
	if !d.stages[strings.ToLower(name)] {
		d.uses = append(d.uses, use{name: name, line: line})
	}
	d.count++
	if len(parts) == 3 {
		d.stages[strings.ToLower(parts[2])] = true
	}
	return nil
}

// words parts a line at its spaces, those in quotes or braces left whole.
func words(s string) []string {
	var out []string
	var b strings.Builder
	var quote byte
	depth := 0
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '"' || c == '\'':
			quote = c
		case c == '{':
			depth++
		case c == '}' && depth > 0:
			depth--
		case c == ' ' && depth == 0:
			if b.Len() > 0 {
				out = append(out, b.String())
				b.Reset()
			}
			continue
		}
		b.WriteByte(c)
	}
	if b.Len() > 0 {
		out = append(out, b.String())
	}
	return out
}
