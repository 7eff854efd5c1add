package cli

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestDocsCommands: each command line of wherry that a page shows as something to type names a command that is there, with flags and a
// number of arguments that it takes. What it does then is for the scripts below test/ to see.
func TestDocsCommands(t *testing.T) {
	pages, err := filepath.Glob("../../docs/*.md")
	if err != nil || len(pages) == 0 {
		t.Fatal(pages, err)
	}
	seen := 0
	for _, page := range append(pages, "../../README.md") {
		b, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for shown, line := range codeLines(string(b)) {
			if strings.HasPrefix(line, "wherry  ") { // a drawing
				continue
			}
			for _, words := range shellWords(line) {
				if len(words) == 0 || filepath.Base(words[0]) != "wherry" {
					continue
				}
				seen++
				if err := parses(words[1:]); err != nil {
					t.Errorf("%s: %s: %v", filepath.Base(page), strings.TrimSpace(shown), err)
				}
			}
		}
	}
	if seen < 100 {
		t.Errorf("%d commands found: the pages have more", seen)
	}
}

// parses goes as far as a command goes before it runs.
func parses(args []string) error {
	g, rest, err := parseGlobals(args)
	if err != nil || len(rest) == 0 {
		return err
	}
	name, chosen, rest, err := choose(rest)
	if err != nil || chosen == nil {
		return err
	}
	c := chosen.build(newApp(g, Streams{Out: io.Discard, Err: io.Discard}))
	c.Use = name
	addHelp(c)
	if err := c.ParseFlags(rest); err != nil {
		return err
	}
	if help, _ := c.Flags().GetBool("help"); help || c.Args == nil {
		return nil
	}
	return c.Args(c, c.Flags().Args())
}

// codeLines are the lines of a page's code blocks, whole and as they are typed: without a prompt, with what follows a backslash.
func codeLines(page string) map[string]string {
	out := map[string]string{}
	fenced := false
	lines := strings.Split(page, "\n")
	for i := 0; i < len(lines); i++ {
		line := lines[i]
		if strings.HasPrefix(line, "```") {
			fenced = !fenced
			continue
		}
		if !fenced && !strings.HasPrefix(line, "    ") {
			continue
		}
		typed := strings.TrimSpace(line)
		for strings.HasSuffix(typed, "\\") && i+1 < len(lines) {
			i++
			typed = strings.TrimSuffix(typed, "\\") + strings.TrimSpace(lines[i])
		}
		out[line] = strings.TrimPrefix(typed, "$ ")
	}
	return out
}

// shellWords splits a line at ; and |, and each part into words, as far as pages need it: quotes, comments, variables before a command, sudo.
// A word … stands for any.
func shellWords(line string) [][]string {
	var parts [][]string
	var words []string
	var word strings.Builder
	quote, open := rune(0), false
	end := func() {
		if open && (len(words) > 0 || !strings.Contains(word.String(), "=") && word.String() != "sudo") {
			words = append(words, word.String())
		}
		word.Reset()
		open = false
	}
	for _, r := range line {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '\'' || r == '"':
			quote, open = r, true
		case r == '#' && !open:
			return append(parts, words)
		case r == ';' || r == '|':
			end()
			parts, words = append(parts, words), nil
		case r == ' ':
			end()
		default:
			word.WriteRune(r)
			open = true
		}
	}
	end()
	return append(parts, words)
}
