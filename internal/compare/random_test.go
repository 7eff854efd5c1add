package compare

import (
	"fmt"
	"math/rand/v2"
	"path"
	"strings"
	"testing"
)

// randomLayer writes a layer down of few names, so that layers meet each other's files, folders and losses.
func randomLayer(r *rand.Rand) []string {
	var lines []string
	kinds := map[string]string{"": "dir"} // of this layer
	name := func() string {
		parts := make([]string, 1+r.IntN(3))
		for i := range parts {
			parts[i] = string(rune('a' + r.IntN(3)))
		}
		return strings.Join(parts, "/")
	}
	folders := func(p string) bool {
		for at, c := range p + "/" {
			if c != '/' {
				continue
			}
			switch dir := p[:at]; kinds[dir] {
			case "dir":
			case "":
				kinds[dir] = "dir"
				lines = append(lines, dir+"/")
			default:
				return false // a file of this layer is there
			}
		}
		return true
	}
	for range 1 + r.IntN(6) {
		p := name()
		dir := path.Dir(p)
		if dir == "." {
			dir = ""
		}
		if dir != "" && !folders(dir) || kinds[p] != "" {
			continue
		}
		switch r.IntN(6) {
		case 0, 1:
			kinds[p] = "file"
			lines = append(lines, fmt.Sprintf("%s=%s", p, strings.Repeat("x", r.IntN(3))))
		case 2:
			kinds[p] = "link"
			lines = append(lines, p+">/nowhere")
		case 3:
			folders(p)
			if r.IntN(2) == 0 {
				lines = append(lines, "!"+p)
			}
		case 4:
			kinds[p] = "dir"
			lines = append(lines, fmt.Sprintf("%s/@%o", p, 0o700+r.IntN(2)*0o55))
		case 5:
			kinds[p] = "gone"
			lines = append(lines, "-"+p)
		}
	}
	return lines
}

// TestAgreesWithTheKernel: whatever layers do to each other, what is said is what one sees in the two mounted file systems.
func TestAgreesWithTheKernel(t *testing.T) {
	for seed := range uint64(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			var base, old, young [][]byte
			var text []string
			for _, into := range []*[][]byte{&base, &old, &young} {
				for range 1 + r.IntN(2) {
					lines := randomLayer(r)
					text = append(text, strings.Join(lines, " "))
					*into = append(*into, made(t, lines...))
				}
				text = append(text, "--")
			}
			before, after := image(t, append(base[:len(base):len(base)], old...)...), image(t, append(base[:len(base):len(base)], young...)...)
			got := changes(t, before, after)
			agrees(t, before, after, got)
			if t.Failed() {
				t.Logf("layers:\n%s\nsaid:\n%s", strings.Join(text, "\n"), strings.Join(got, "\n"))
			}
		})
	}
}
