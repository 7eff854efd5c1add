package cli

import (
	"strings"
	"testing"
)

// TestLayerTree: chains go on in their column, branches have bars, and no line is wider than a terminal.
func TestLayerTree(t *testing.T) {
	host := serveOn(t, &listener{recording: recording{"/wherry/layers": `[
{"ID":"sha256:111111111111aaaa","CreatedBy":"ADD base","Size":2000000,"BlobSize":1000000,"SharedWith":4,"Images":[{"ID":"sha256:a","Names":["debian:12"]}]},
{"ID":"sha256:222222222222aaaa","Parent":"sha256:111111111111aaaa","CreatedBy":"RUN one ` + strings.Repeat("x", 90) + `","Size":3000,"Images":[]},
{"ID":"sha256:333333333333aaaa","Parent":"sha256:222222222222aaaa","CreatedBy":"RUN \u001b[2J two","Size":3000,"BlobSize":5,"Images":[{"ID":"sha256:b","Names":["app:1","app:2"],"Containers":["web","db"]}]},
{"ID":"sha256:444444444444aaaa","Parent":"sha256:111111111111aaaa","CreatedBy":"COPY","Size":7,"Images":[{"ID":"sha256:0123456789abcdef","Names":[],"Platform":"linux/arm64"}]},
{"ID":"sha256:555555555555aaaa","CreatedBy":"import","Images":[{"ID":"sha256:d","Names":["x:1"]}]}]`}})
	out, stderr, status := wherry(t, host, "image", "tree")
	want := `LAYER         UNPACKED  AS BLOB  CREATED BY
111111111111       2MB      1MB  ADD base
│  ▪ debian:12
├─ 222222222222       3kB        -  RUN one ` + strings.Repeat("x", 34) + `…
│  333333333333       3kB       5B  RUN [2J two
│     ▪ app:1, app:2 ← web, db
└─ 444444444444        7B        -  COPY
      ▪ <none> 0123456789ab (linux/arm64)
555555555555         -        -  import
   ▪ x:1
`
	if status != 0 || out != want {
		t.Errorf("exit %d %s\n%s\nnot\n%s", status, stderr, out, want)
	}
}

func TestCleanUpSaysWhatItDid(t *testing.T) {
	l := &listener{recording: recording{"/wherry/clean-up": `{"Measure":"file-system","Capacity":100000000000,"Used":90000000000,"High":85000000000,"Low":70000000000,"Freed":5000000000,
"Removed":[{"ID":"sha256:0123456789abcdef","Names":["a:1","b:2"],"LastUsed":"2020-01-01T00:00:00Z","Frees":5000000000}],"Kept":{"pinned":2}}`}}
	host := serveOn(t, l)
	out, stderr, status := wherry(t, host, "system", "clean-up", "--dry-run", "--to", "70%")
	for _, want := range []string{"a:1, b:2", "0123456789ab", "5GB", "Would free 5GB: the disk has 90GB of 100GB in use, and the aim is 70GB", "Kept: 2 pinned"} {
		if status != 0 || !strings.Contains(out, want) {
			t.Errorf("exit %d %s, without %q:\n%s", status, stderr, want, out)
		}
	}
	if asked := l.take(); len(asked) != 1 || asked[0].Query["dry-run"][0] != "yes" || asked[0].Query["to"][0] != "70%" {
		t.Errorf("asked %+v", asked)
	}
}
