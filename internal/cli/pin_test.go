package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"wherry.dev/wherry/internal/lockfile"
)

func TestPinnedNames(t *testing.T) {
	sum := digest.FromString("x")
	for name, want := range map[string][2]string{
		"debian":                        {"docker.io/library/debian:latest", "debian:latest@" + sum.String()},
		"debian:12":                     {"docker.io/library/debian:12", "debian:12@" + sum.String()},
		"127.0.0.1:5000/a/b":            {"127.0.0.1:5000/a/b:latest", "127.0.0.1:5000/a/b:latest@" + sum.String()},
		"docker.io/library/debian:12":   {"docker.io/library/debian:12", "docker.io/library/debian:12@" + sum.String()},
		"a:1@" + sum.String():           {"docker.io/library/a:1", "a:1@" + sum.String()},
		"index.docker.io/team/app:edge": {"docker.io/team/app:edge", "index.docker.io/team/app:edge@" + sum.String()},
	} {
		if full, pinned := taggedName(name), pinnedName(name, sum); full != want[0] || pinned != want[1] {
			t.Errorf("%s: %s %s", name, full, pinned)
		}
	}
}

// TestPin: what --locked makes of a reference before an engine is asked.
func TestPin(t *testing.T) {
	dir := t.TempDir()
	a, b := digest.FromString("a"), digest.FromString("b")
	l := lockfile.New(filepath.Join(dir, lockfile.Name))
	l.Images["docker.io/library/debian:12"] = lockfile.Image{Digest: a}
	if _, err := l.Write(); err != nil {
		t.Fatal(err)
	}
	f := lockFlags{locked: true, file: l.Path}
	for name, want := range map[string]string{
		"debian:12":                   "debian:12@" + a.String(),
		"docker.io/library/debian:12": "docker.io/library/debian:12@" + a.String(),
		"debian:12@" + a.String():     "debian:12@" + a.String(),
		"debian@" + b.String():        "debian@" + b.String(),
		"other:1@" + b.String():       "other:1@" + b.String(),
		"debian:12@" + b.String():     "says that debian:12 is " + a.String(),
		"debian":                      "debian is not in " + l.Path + ": add it with wherry lock debian",
	} {
		p, err := f.pin(name)
		if strings.Contains(want, " ") {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err != nil || p.pinned() != want {
			t.Errorf("%s: %s %v", name, p.pinned(), err)
		}
	}
	f.file = filepath.Join(dir, "none")
	if _, err := f.pin("debian:12"); err == nil || !strings.Contains(err.Error(), "there is no lock file") {
		t.Error(err)
	}
}

func TestLockOptions(t *testing.T) {
	for want, o := range map[string]lockOptions{
		"--local goes with": {check: true, local: true},
		"stand alone":       {update: true, remove: true},
		"takes no IMAGE":    {check: true},
	} {
		if err := o.contradicts([]string{"x"}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v", o, err)
		}
	}
	if err := (&lockOptions{remove: true}).contradicts(nil); err == nil {
		t.Error("--remove without an image")
	}
}

// TestNearestLock is written as people would write it.
func TestNearestLock(t *testing.T) {
	dir := t.TempDir()
	deep := filepath.Join(dir, "a", "b")
	if err := os.MkdirAll(deep, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := lockfile.New(filepath.Join(dir, lockfile.Name)).Write(); err != nil {
		t.Fatal(err)
	}
	for in, want := range map[string]string{dir: "wherry.lock", deep: "../../wherry.lock"} {
		t.Chdir(in)
		if got := nearestLock(); got != want {
			t.Errorf("%s: %s", in, got)
		}
	}
}

func TestChangesArePrinted(t *testing.T) {
	stream := `{"Kind":"A","Path":"/etc/new","Before":0,"After":1234}
{"Kind":"D","Path":"/a\u001b[2Jb\nc","Before":7,"After":0}
{"Kind":"C","Path":"/same","Before":3,"After":3}
`
	var out bytes.Buffer
	p := &changePrinter{out: &out, image: "x"}
	if err := p.copy(strings.NewReader(stream)); err != nil {
		t.Fatal(err)
	}
	want := "A   +1.23kB  /etc/new\n" + `D       -7B  "/a\x1b[2Jb\nc"` + "\nC        0B  /same\n1 added, 1 changed, 1 removed; +1.23kB\n"
	if out.String() != want {
		t.Errorf("%s", out.String())
	}
	out.Reset()
	if err := p.copy(strings.NewReader("")); err != nil || !strings.Contains(out.String(), "no file differs") {
		t.Errorf("%v %s", err, out.String())
	}
	if err := p.copy(strings.NewReader(stream[:60] + `{"Before":0,"After":0,"Error":"layer x holds other content"}`)); err == nil {
		t.Error("an answer that broke off")
	}
	if err := p.copy(strings.NewReader(`{"Before":0,"After":0,"Error":"layer x holds other content"}`)); err == nil || !strings.Contains(err.Error(), "other content") {
		t.Error(err)
	}
}

func TestHintsWanted(t *testing.T) {
	for text, want := range map[string]bool{"": true, "{}": true, `{"latestHint": false}`: false, `{"latestHint": true}`: true, `{"latestHint": "no"}`: true, "broken": true} {
		dir := t.TempDir()
		if text != "" {
			write(t, filepath.Join(dir, "config.json"), text)
		}
		if got := hintsWanted(&App{Config: dir}, "latestHint"); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
}
