// Package sources finds the image references that Dockerfiles and compose files name.
//
// It reads as much of both languages as that needs, builds nothing, and asks nobody. What it cannot know, such as a variable without a
// value, is an error with its line, never a guess.
package sources

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

const maxSize = 4 << 20 // of a file; more is a mistake

// Reference is an image as a file names it, variables replaced.
type Reference struct {
	Name string
	File string
	Line int
}

// Options of Read.
type Options struct {
	Args map[string]string                // values for ARG in Dockerfiles
	Env  func(name string) (string, bool) // variables of compose files; nil: none. They win over those in .env.
}

// Read finds the references in a Dockerfile or, where the name ends in .yaml or .yml, a compose file, and in the files that it names.
func Read(path string, o Options) ([]Reference, error) {
	r := &reader{o: o, seen: map[string]bool{}}
	var err error
	if IsCompose(path) {
		err = r.compose(path)
	} else {
		err = r.dockerfile(path, o.Args)
	}
	return r.found, err
}

// IsCompose tells compose files by their names.
func IsCompose(path string) bool {
	ext := strings.ToLower(filepath.Ext(path))
	return ext == ".yaml" || ext == ".yml"
}

// Usual are the files that tools take in a folder where none is named, as far as they are there.
func Usual(dir string) []string {
	var out []string
	for _, names := range [][]string{
		{"Dockerfile", "Containerfile"},
		{"compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml"},
		{"compose.override.yaml", "compose.override.yml", "docker-compose.override.yaml", "docker-compose.override.yml"},
	} {
		for _, name := range names {
			path := filepath.Join(dir, name)
			if st, err := os.Stat(path); err == nil && st.Mode().IsRegular() {
				out = append(out, path)
				break
			}
		}
	}
	return out
}

// reader collects what a file and those that it names hold.
type reader struct {
	o     Options
	seen  map[string]bool // compose files
	found []Reference
}

func (r *reader) add(file string, line int, name string) {
	r.found = append(r.found, Reference{Name: name, File: file, Line: line})
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil && st.IsDir() {
		return nil, fmt.Errorf("%s is a directory: name the file in it", path)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err == nil && len(b) > maxSize {
		err = fmt.Errorf("%s has more than 4 MiB: it is no Dockerfile and no compose file", path)
	}
	return b, err
}

// expansion replaces variables: $NAME, ${NAME}, ${NAME:-word}, ${NAME-word}, ${NAME:+word}, ${NAME+word}, ${NAME:?word}, ${NAME?word}.
type expansion struct {
	get    func(name string) (string, bool)
	escape byte // takes the meaning of the $ that follows: \ in Dockerfiles, $ in compose files
}

func (e expansion) text(s string) (string, error) { return e.nested(s, 0) }

func (e expansion) nested(s string, depth int) (string, error) {
	if depth > 8 {
		return "", errors.New("variables are nested too deep")
	}
	var out strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == e.escape && i+1 < len(s) && (s[i+1] == '$' || e.escape != '$'):
			i++
			out.WriteByte(s[i])
			continue
		case s[i] != '$':
			out.WriteByte(s[i])
			continue
		}
		name, braced, end := variable(s[i+1:])
		if end == 0 {
			if braced {
				return "", fmt.Errorf("%s: a } is missing", s[i:])
			}
			out.WriteByte('$')
			continue
		}
		value, err := e.value(name, depth)
		if err != nil {
			return "", err
		}
		out.WriteString(value)
		i += end
	}
	return out.String(), nil
}

// variable parts what follows a $: the text of the variable and how long that is with its braces; 0: it is none.
func variable(s string) (name string, braced bool, end int) {
	if !strings.HasPrefix(s, "{") {
		n := nameLength(s)
		return s[:n], false, n
	}
	depth := 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '{':
			depth++
		case '}':
			if depth--; depth == 0 {
				return s[1:i], true, i + 1
			}
		}
	}
	return "", true, 0
}

func nameLength(s string) int {
	n := 0
	for n < len(s) && (s[n] == '_' || s[n] >= 'a' && s[n] <= 'z' || s[n] >= 'A' && s[n] <= 'Z' || n > 0 && s[n] >= '0' && s[n] <= '9') {
		n++
	}
	return n
}

func (e expansion) value(text string, depth int) (string, error) {
	n := nameLength(text)
	name, rest := text[:n], text[n:]
	if name == "" {
		return "", fmt.Errorf("${%s}: a name is missing", text)
	}
	value, set := e.get(name)
	if rest == "" {
		if !set {
			return "", &unsetError{name}
		}
		return value, nil
	}
	op := rest[:1]
	if op == ":" && len(rest) > 1 {
		op, set = rest[:2], set && value != ""
	}
	word := rest[len(op):]
	switch op[len(op)-1] {
	case '-':
		if set {
			return value, nil
		}
		return e.nested(word, depth+1)
	case '+':
		if !set {
			return "", nil
		}
		return e.nested(word, depth+1)
	case '?':
		if set {
			return value, nil
		}
		return "", fmt.Errorf("%s has no value: %s", name, word)
	}
	return "", fmt.Errorf("${%s}: %q is not understood here: use a plain variable", text, op)
}

// unsetError is a variable without a value.
type unsetError struct{ name string }

func (e *unsetError) Error() string { return e.name + " has no value" }
