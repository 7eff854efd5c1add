package explain

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tonistiigi/fsutil"
)

const dockerfile = `ARG VERSION=12
FROM debian:$VERSION AS build
ARG TOKEN
ARG JOBS=2
ENV LANG=C
COPY go.mod go.sum ./
RUN go mod download && \
    true
COPY src /src
RUN --mount=type=bind,source=tools,target=/t make
FROM scratch
COPY --from=build /out /out
`

// project is a context that tests build in their minds.
type project struct {
	Build
	files map[string]string
}

func newProject() *project {
	return &project{
		Build: Build{Dockerfile: []byte(dockerfile), Args: map[string]string{"TOKEN": "s3cret"}, Options: map[string]string{}, Contexts: []string{""}},
		files: map[string]string{"go.mod": "m", "go.sum": "s", "src/a.go": "a", "src/b.go": "b", "tools/x": "x", "README": "r"},
	}
}

func (p *project) record(t *testing.T, digest string) *Record {
	t.Helper()
	steps, err := p.Steps(Seal([]byte("salt")))
	if err != nil {
		t.Fatal(err)
	}
	r := &Record{Steps: steps, Rules: p.Rules, Files: map[string][]File{}}
	for _, path := range sorted(p.files) {
		text, mode, _ := strings.Cut(p.files[path], "|")
		f := File{Path: path, Mode: 0o644, Size: int64(len(text)), Hash: fmt.Sprintf("%x%030x", text, 0)}
		if mode != "" {
			f.Mode = 0o755
		}
		r.Files[""] = append(r.Files[""], f)
	}
	r.SetImages([]Seen{{Name: "[build 1/5] FROM docker.io/library/debian:12@sha256:" + digest}})
	return r
}

// ran are the steps of the Dockerfile; those from the numbered one on ran.
func ran(from int) []Seen {
	names := []string{
		"[internal] load build context", "[build 1/5] FROM docker.io/library/debian:12", "[build 2/5] COPY go.mod go.sum ./",
		"[build 3/5] RUN go mod download &&     true", "[build 4/5] COPY src /src", "[build 5/5] RUN --mount=type=bind,source=tools,target=/t make",
		"[stage-1 1/1] COPY --from=build /out /out", "exporting to image",
	}
	var list []Seen
	for i, n := range names {
		list = append(list, Seen{Name: n, Cached: i < from, Took: time.Second})
	}
	return list
}

// TestFirstDifference makes an edit, and looks for the culprit in what is said of the first step that ran.
func TestFirstDifference(t *testing.T) {
	replace := func(old, new string) func(*project) {
		return func(p *project) { p.Dockerfile = bytes.Replace(p.Dockerfile, []byte(old), []byte(new), 1) }
	}
	for _, row := range []struct {
		name   string
		edit   func(*project)
		digest string
		from   int // the step that runs first
		want   string
	}{
		{"a file", func(p *project) { p.files["src/b.go"] = "c" }, "1", 4, "src/b.go changed: it was sha256:620000000000, is sha256:630000000000"},
		{"two files", func(p *project) { p.files["src/a.go"] = "c"; p.files["src/b.go"] = "c" }, "1", 4, "src/a.go changed: it was sha256:610000000000, is sha256:630000000000 (and 1 more)"},
		{"a new file", func(p *project) { p.files["src/n"] = "n" }, "1", 4, "src/n is new"},
		{"a file that is gone", func(p *project) { delete(p.files, "go.sum") }, "1", 2, "go.sum is gone"},
		{"a mode", func(p *project) { p.files["src/a.go"] = "a|x" }, "1", 4, "src/a.go has another mode: it was 0644, is 0755"},
		{"a file of a mount", func(p *project) { p.files["tools/x"] = "y" }, "1", 5, "tools/x changed"},
		{"a rule", func(p *project) { p.Rules = "src/a*\n" }, "1", 4, "src/a.go is gone"},
		{"an argument", func(p *project) { p.Args["JOBS"] = "3" }, "1", 3, `build argument JOBS (line 4) was "2", is "3"`},
		{"a secret argument", func(p *project) { p.Args["TOKEN"] = "other" }, "1", 3, "build argument TOKEN (line 3) was a value with the keyed hash"},
		{"the environment", replace("LANG=C", "LANG=D"), "1", 3, `ENV LANG (line 5) was "C", is "D"`},
		{"an instruction", replace("true", "false"), "1", 3, "the instruction changed; it was: RUN go mod download && …"},
		{"a new instruction", replace("COPY src", "RUN new\nCOPY src"), "1", 4, "the instruction"},
		{"the base image", func(*project) {}, "2", 2, `image debian:$VERSION was "sha256:1", is "sha256:2"`},
		{"an option", func(p *project) { p.Options["shm-size"] = "1" }, "1", 3, `option --shm-size is new: "1"`},
		{"the cache is gone", func(*project) {}, "1", 3, "nothing that is known of differs"},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := newProject()
			before := p.record(t, "1")
			row.edit(p)
			var out strings.Builder
			if err := Compare(before, p.record(t, row.digest)).Report(&out, ran(row.from)); err != nil {
				t.Fatal(err)
			}
			lines := strings.Split(out.String(), "\n")
			for i, l := range lines {
				if strings.HasPrefix(l, "RAN") {
					if !strings.HasPrefix(strings.TrimSpace(lines[i+1]), row.want) {
						t.Errorf("said %q, want %q:\n%s", lines[i+1], row.want, &out)
					}
					break
				}
			}
			if strings.Contains(out.String(), "s3cret") {
				t.Error("a secret is printed")
			}
		})
	}
}

func TestReport(t *testing.T) {
	p := newProject()
	before := p.record(t, "1")
	p.files["go.mod"] = "n"
	var out strings.Builder
	if err := Compare(before, p.record(t, "1")).Report(&out, ran(2)); err != nil {
		t.Fatal(err)
	}
	want := `CACHED  [build 1/5] FROM docker.io/library/debian:12
RAN     [build 2/5] COPY go.mod go.sum ./  (1.0 s)
        go.mod changed: it was sha256:6d0000000000, is sha256:6e0000000000
RAN     [build 3/5] RUN go mod download &&     true  (1.0 s)
        it follows from [build 2/5]
RAN     [build 4/5] COPY src /src  (1.0 s)
        it follows from [build 3/5]
RAN     [build 5/5] RUN --mount=type=bind,source=tools,target=/t make  (1.0 s)
        it follows from [build 4/5]
RAN     [stage-1 1/1] COPY --from=build /out /out  (1.0 s)
        what it copies from build changed: [build 2/5] ran
`
	if out.String() != want {
		t.Errorf("got\n%s", &out)
	}
	out.Reset()
	if err := Compare(nil, before).Report(&out, ran(1)); err != nil || !strings.Contains(out.String(), "first build") {
		t.Errorf("%v: %s", err, &out)
	}
}

// TestAlign: instructions that a base image brings stand before the Dockerfile's own, and count.
// TestSharedNames: a base image that several builds use at once has the name that it has in one of them.
func TestSharedNames(t *testing.T) {
	b := Build{Dockerfile: []byte("FROM x AS a\nRUN a\nFROM a\nRUN b\n")}
	record := func(from string) (*Record, []Seen) {
		steps, err := b.Steps(Seal(nil))
		if err != nil {
			t.Fatal(err)
		}
		seen := []Seen{{Name: "[other 1/9] FROM docker.io/library/x:latest@sha256:" + from}, {Name: "[a 2/2] RUN a"}, {Name: "[stage-1 1/1] RUN b", Cached: true}}
		r := &Record{Steps: steps}
		r.SetImages(seen)
		return r, seen
	}
	before, _ := record("1")
	now, seen := record("2")
	var out strings.Builder
	if err := Compare(before, now).Report(&out, seen); err != nil {
		t.Fatal(err)
	}
	if want := "RAN     [a 2/2] RUN a\n        image x was \"sha256:1\", is \"sha256:2\"\nCACHED  [stage-1 1/1] RUN b\n"; out.String() != want {
		t.Errorf("%s", &out)
	}
}

func TestAlign(t *testing.T) {
	b := Build{Dockerfile: []byte("FROM x\nRUN a\nCOPY b /\n")}
	steps, err := b.Steps(Seal(nil))
	if err != nil {
		t.Fatal(err)
	}
	c := Comparison{Now: &Record{Steps: steps}}
	list := c.outcomes([]Seen{
		{Name: "[linux/arm64 2/5] ONBUILD COPY z /"}, {Name: "[linux/arm64 3/5] ONBUILD RUN z"}, {Name: "[linux/arm64 4/5] RUN a"}, {Name: "[linux/arm64 5/5] COPY b /"},
	})
	if s := c.step(list[2].place); s == nil || s.Text != "RUN a" {
		t.Errorf("step 4 is %+v", s)
	}
	if s := c.step(list[0].place); s != nil {
		t.Errorf("ONBUILD is taken for %+v", s)
	}
}

func TestStore(t *testing.T) {
	s := Store{Dir: filepath.Join(t.TempDir(), "builds")}
	if r := s.Load("none"); r != nil {
		t.Error("a record out of nothing")
	}
	r := newProject().record(t, "1")
	r.Salt = []byte("salt")
	if err := s.Save("k", r, nil); err != nil {
		t.Fatal(err)
	}
	got := s.Load("k")
	if got == nil {
		t.Fatal("it is not there")
	}
	written := got.written
	if again, err := got.encode(); err != nil || !bytes.Equal(again, written) || len(got.Files[""]) != len(r.Files[""]) || got.Files[""][1] != r.Files[""][1] {
		t.Errorf("read %+v (%v)\nwrote %+v", got, err, r)
	}
	if bytes.Contains(written, []byte("s3cret")) {
		t.Error("a secret is written down")
	}
	for i := range mostRecords + 10 {
		if err := s.Save(fmt.Sprint(i), r, nil); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := os.ReadDir(s.Dir)
	if err != nil || len(entries) != mostRecords {
		t.Errorf("%d records are kept (%v), want %d", len(entries), err, mostRecords)
	}
	if err := os.WriteFile(filepath.Join(s.Dir, "bad"), written[:len(written)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	if s.Load("bad") != nil {
		t.Error("half a record is taken for one")
	}
}

// TestWatch: what is fetched is hashed on its way, what looks as before keeps its hash, and the rest is read.
func TestWatch(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a", "b", "c"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("abc"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	look := func(fetch string, before []File) []File {
		fs, err := fsutil.NewFS(dir)
		if err != nil {
			t.Fatal(err)
		}
		w := NewWatch(fs)
		if err := fsutil.Send(t.Context(), &stream{fetch: fetch, t: t}, w, nil); err != nil {
			t.Fatal(err)
		}
		return w.Files(before)
	}
	const abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
	first := look("a", nil)
	if len(first) != 3 || first[0].Path != "a" || first[0].Hash != abc || first[2].Hash != abc {
		t.Fatalf("%+v", first)
	}
	first[1].Hash = strings.Repeat("1", 64)
	if second := look("", first); second[1].Hash != first[1].Hash {
		t.Errorf("b lost its hash: %+v", second[1])
	}
	if err := os.Chtimes(filepath.Join(dir, "b"), time.Time{}, time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if third := look("", first); third[1].Hash != abc {
		t.Errorf("b looks different and kept its hash: %+v", third[1])
	}
}

func TestTakes(t *testing.T) {
	for _, row := range []struct {
		source, file string
		want         bool
	}{
		{".", "a", true}, {"", "a/b", true}, {"a", "a", true}, {"a", "a/b", true}, {"a", "ab", false}, {"*.go", "x.go", true}, {"*.go", "d/x.go", false},
		{"d*", "dir/deep/x", true}, {"src/**/x", "src/a/b/x", true}, {"a?", "ab/c", true},
	} {
		if got := takes(row.source, row.file); got != row.want {
			t.Errorf("%s takes %s: %v", row.source, row.file, got)
		}
	}
}

func FuzzDecode(f *testing.F) {
	r := &Record{Steps: []Step{{Stage: "s", Index: 1}}, Files: map[string][]File{"": {{Path: "p", Hash: "ab"}}, "n": nil}}
	data, err := r.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add(data[:len(data)-1])
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := decode(data)
		if err != nil {
			return
		}
		if _, err := r.encode(); err != nil {
			t.Errorf("what was read cannot be written: %v", err)
		}
	})
}

func FuzzSteps(f *testing.F) {
	f.Add(dockerfile)
	f.Add("FROM a\nCOPY <<E /x\nhi\nE\nRUN <<E\nls\nE\n")
	f.Add("FROM $x AS y\nFROM y\nCOPY --from=0 [\"a\", \"b\"]\n")
	f.Fuzz(func(t *testing.T, text string) {
		b := Build{Dockerfile: []byte(text)}
		steps, err := b.Steps(Seal(nil))
		if err != nil {
			return
		}
		var out strings.Builder
		if err := Compare(nil, &Record{Steps: steps}).Report(&out, []Seen{{Name: "[1/1] COPY a b"}}); err != nil {
			t.Error(err)
		}
	})
}
