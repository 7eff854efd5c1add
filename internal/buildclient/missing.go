package buildclient

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"
)

// missing says why a file that a step wants from the context is not there; "" where that is not what went wrong.
func (j *job) missing(err error, failed *step) string {
	name, ok := notFound(err.Error())
	if !ok || j.sources.dir == "" || failed != nil && strings.Contains(failed.Name, "--from=") {
		return ""
	}
	if strings.ContainsAny(name, "*?[") {
		return fmt.Sprintf("Nothing in the context %s matches %s.", j.sources.dir, name)
	}
	if _, err := os.Lstat(filepath.Join(j.sources.dir, name)); err == nil {
		if rule := j.sources.hides(name); rule != "" {
			return fmt.Sprintf("%s is there, but %s keeps it out of the context.", name, rule)
		}
		return ""
	}
	text := fmt.Sprintf("There is no %s in the context %s", name, j.sources.dir)
	if near := sibling(j.sources.dir, name); near != "" {
		return text + "; there is " + near + "."
	}
	if _, err := os.Lstat(filepath.FromSlash(name)); err == nil {
		return text + "; paths count from there, not from the current directory."
	}
	return text + "."
}

// notFound takes the path out of BuildKit's way of saying that it is not there: …: "/path": not found
func notFound(text string) (name string, ok bool) {
	text, ok = strings.CutSuffix(text, `": not found`)
	if !ok {
		return "", false
	}
	at := strings.LastIndexByte(text, '"')
	if at < 0 {
		return "", false
	}
	name = strings.TrimPrefix(path.Clean("/"+text[at+1:]), "/")
	return name, name != ""
}

func isNotFound(err error) bool {
	_, ok := notFound(err.Error())
	return ok
}

// hides is the rule that keeps a file out of the context, with its place; "" where none does.
func (s *sources) hides(name string) string {
	if s.ignore == nil {
		return ""
	}
	rule := ""
	for i, line := range bytes.Split(s.ignore.data, []byte("\n")) {
		patterns, err := ignorefile.ReadAll(bytes.NewReader(line))
		if err != nil || len(patterns) != 1 {
			continue
		}
		allows := strings.HasPrefix(patterns[0], "!")
		m, err := patternmatcher.New([]string{strings.TrimPrefix(patterns[0], "!")})
		if err != nil {
			continue
		}
		if hit, err := m.MatchesOrParentMatches(name); err != nil || !hit {
			continue
		}
		rule = ""
		if !allows {
			rule = fmt.Sprintf("line %d of %s (%s)", i+1, filepath.Base(s.ignore.path), strings.TrimSpace(string(line)))
		}
	}
	return rule
}

// sibling is a file that is called nearly so.
func sibling(dir, name string) string {
	entries, err := os.ReadDir(filepath.Join(dir, filepath.Dir(name)))
	if err != nil {
		return ""
	}
	want := strings.ToLower(filepath.Base(name))
	for _, e := range entries {
		have := strings.ToLower(e.Name())
		if have == want || strings.TrimSuffix(have, filepath.Ext(have)) == strings.TrimSuffix(want, filepath.Ext(want)) {
			return path.Join(path.Dir(name), e.Name()) + slash(e)
		}
	}
	return ""
}

func slash(e fs.DirEntry) string {
	if e.IsDir() {
		return "/"
	}
	return ""
}
