package review

import (
	"flag"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write deps/*.txt anew")

// TestDependencyLists holds what each binary links from outside the standard library: a change is a diff that a review sees.
func TestDependencyLists(t *testing.T) {
	for _, name := range []string{"oar", "wherry", "wherryd", "wherry-build", "wherry-verify"} {
		var lines []string
		for _, p := range list(t, "-deps", "./cmd/"+name) {
			if !p.Standard {
				lines = append(lines, p.ImportPath)
			}
		}
		sort.Strings(lines)
		got := strings.Join(lines, "\n") + "\n"
		file := filepath.Join("../../deps", name+".txt")
		if *update {
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if got == string(want) {
			continue
		}
		t.Errorf("what cmd/%s links differs from deps/%s.txt; if it is meant: go test ./internal/review -run TestDependencyLists -update\n%s",
			name, name, difference(string(want), got))
	}
}

func difference(want, got string) string {
	have := map[string]int{}
	for _, l := range strings.Split(want, "\n") {
		have[l]--
	}
	for _, l := range strings.Split(got, "\n") {
		have[l]++
	}
	var out []string
	for l, n := range have {
		if n > 0 {
			out = append(out, "+ "+l)
		} else if n < 0 {
			out = append(out, "- "+l)
		}
	}
	sort.Strings(out)
	return strings.Join(out, "\n")
}
