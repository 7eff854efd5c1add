package review

import (
	"go/ast"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestEveryEscapeHasATest: the table of docs/security.md has every class of the field's escapes, and the tests that it names exist.
func TestEveryEscapeHasATest(t *testing.T) {
	b, err := os.ReadFile("../../docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	have := map[string]bool{}
	_, all := sources(t)
	for _, s := range all {
		for _, d := range s.file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && s.test && f.Recv == nil {
				have[filepath.Base(filepath.Dir(s.path))+"."+f.Name.Name] = true
			}
		}
	}
	row, named := regexp.MustCompile(`(?m)^\| (\d+)\. .*$`), regexp.MustCompile(`(\w+)\.((?:Test|Fuzz)\w+)`)
	without := map[int]string{}
	classes := map[int]bool{}
	for _, m := range row.FindAllStringSubmatch(string(b), -1) {
		class, err := strconv.Atoi(m[1])
		if err != nil {
			t.Fatal(err)
		}
		classes[class] = true
		tests := named.FindAllString(m[0], -1)
		for _, name := range tests {
			if !have[name] {
				t.Errorf("docs/security.md, class %d: there is no test %s", class, name)
			}
		}
		if words := without[class]; len(tests) == 0 && (words == "" || !strings.Contains(m[0], words)) {
			t.Errorf("docs/security.md, class %d names no test", class)
		}
	}
	for class := 1; class <= 16; class++ {
		if !classes[class] {
			t.Errorf("docs/security.md lacks class %d", class)
		}
	}
}
