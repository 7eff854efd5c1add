package buildclient

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	solver "github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/solver/pb"
	"github.com/tonistiigi/fsutil"

	"wherry.dev/wherry/internal/buildopt"
)

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestExcerpt: the line is shown, and the caret is below the word that the message names.
func TestExcerpt(t *testing.T) {
	const file = "FROM busybox\n\nCOPY --foo=bar a /\nRNU ls\nRUN true && \\\n\tfalse\ncopy --from=n f /f\n"
	for _, row := range []struct {
		first, last int32
		message     string
		want        string
	}{
		{3, 3, "unknown flag: --foo (did you mean from?)", ">   3 | COPY --foo=bar a /\n      |      ^^^^^\n"},
		{4, 4, "unknown instruction: RNU (did you mean RUN?)", ">   4 | RNU ls\n      | ^^^\n"},
		{3, 3, `"/a": not found`, ">   3 | COPY --foo=bar a /\n      |                ^\n"},
		{7, 7, `"/f" is not there`, ">   7 | copy --from=n f /f\n      |               ^"},
		{5, 6, "exit status 1", ">   5 | RUN true && \\\n>   6 |     false\n      |     ^"},
	} {
		s := &solver.Source{Info: &pb.SourceInfo{Filename: "Dockerfile", Data: []byte(file)},
			Ranges: []*pb.Range{{Start: &pb.Position{Line: row.first}, End: &pb.Position{Line: row.last}}}}
		if got := excerpt(s, row.message); !strings.Contains(got, row.want) {
			t.Errorf("%s:\n%s\nwant\n%s", row.message, got, row.want)
		}
	}
	beyond := &solver.Source{Info: &pb.SourceInfo{Data: []byte("FROM x")}, Ranges: []*pb.Range{{Start: &pb.Position{Line: 7}, End: &pb.Position{Line: 9}}}}
	if got := excerpt(beyond, ""); got != "" {
		t.Errorf("lines that are not there: %q", got)
	}
}

// TestLastLines: of a quiet build's failed step its last lines are shown, and nothing where it has printed nothing.
func TestLastLines(t *testing.T) {
	for tail, want := range map[string]string{"": "", "\n": "", "a\nb\n": "a\nb\n", strings.Repeat("x\n", 9) + "y\nz": strings.Repeat("x\n", 8) + "y\nz\n"} {
		if got := lastLines([]byte(tail)); got != want {
			t.Errorf("of %q: %q", tail, got)
		}
	}
}

// TestMissing: of a file that is not in the context people are told why.
func TestMissing(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "app.js"), "x")
	write(t, filepath.Join(dir, "src", "keep.js"), "x")
	write(t, filepath.Join(dir, "Readme.md"), "x")
	write(t, filepath.Join(dir, ".dockerignore"), "# rules\n\n*.js\nsrc\n!src/keep.js\n")
	ignore, err := readIgnore(dir, filepath.Join(dir, "Dockerfile"), "")
	if err != nil {
		t.Fatal(err)
	}
	j := &job{o: &buildopt.Options{}, sources: &sources{dir: dir, ignore: ignore}}
	for path, want := range map[string]string{
		"/app.js": "app.js is there, but line 3 of .dockerignore (*.js) keeps it out", "/src": "line 4 of .dockerignore (src)", "/src/keep.js": "",
		"/README": "there is Readme.md", "/nothing/here": "There is no nothing/here in the context", "/*.go": "Nothing in the context",
		"/../../etc/passwd": "There is no etc/passwd",
	} {
		err := errors.New(`failed to calculate checksum of ref x::y: "` + path + `": not found`)
		if got := j.missing(err, nil); !strings.Contains(got, want) || want == "" && got != "" {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
	from := &step{}
	from.Name = "[2/2] COPY --from=x /app.js /"
	if got := j.missing(errors.New(`"/app.js": not found`), from); got != "" {
		t.Errorf("a file of another stage: %q", got)
	}
}

// TestFailuresArePlain: what BuildKit says of its own steps is left out, and the image that is meant is pointed at.
func TestFailuresArePlain(t *testing.T) {
	for said, want := range map[string]string{
		"failed to solve: failed to load cache key: Get \"http://h/x\": connection refused":                                     "Get \"http://h/x\": connection refused",
		"failed to solve: buid: failed to resolve source metadata for docker.io/library/buid:latest: pull buid:latest: no such": "pull buid:latest: no such",
		"it is an image that cannot be had: failed to resolve source metadata for docker.io/library/a:1: pull a:1: no such":     "it is an image that cannot be had: pull a:1: no such",
		"a: failed to resolve source metadata for docker.io/library/a:1: docker.io/library/a:1: not found":                      "a: docker.io/library/a:1: not found",
		"failed to load cache key: no SSH key \"default\" forwarded from the client":                                            "no SSH key \"default\" forwarded from the client: --ssh default lends an agent's keys, --ssh default=FILE a key",
	} {
		if got := plain(errors.New(said)).Error(); got != want {
			t.Errorf("%s: %s, want %s", said, got, want)
		}
	}
	for line, want := range map[string]int{"COPY --from=buid /a /b": len("COPY --from="), "FROM buid AS x": len("FROM "), "FROM other": -1} {
		if at, _ := pointAt(line, "pull buid:latest: no such"); at != want {
			t.Errorf("%s: %d, want %d", line, at, want)
		}
	}
}

func TestDockerfiles(t *testing.T) {
	dir, here := t.TempDir(), t.TempDir()
	t.Chdir(here)
	if _, err := readDockerfile(dir, ""); err == nil || !strings.Contains(err.Error(), "--file") {
		t.Errorf("none: %v", err)
	}
	write(t, filepath.Join(dir, "Containerfile"), "container")
	write(t, filepath.Join(dir, "sub", "other"), "in the context")
	for name, want := range map[string]string{"": "container", "sub/other": "in the context"} {
		if f, err := readDockerfile(dir, name); err != nil || string(f.data) != want {
			t.Errorf("%q: %v %v", name, f, err)
		}
	}
	write(t, filepath.Join(here, "sub", "other"), "here")
	write(t, filepath.Join(here, "sub", "other.dockerignore"), "own rules")
	write(t, filepath.Join(dir, "Dockerfile"), "docker")
	write(t, filepath.Join(dir, ".dockerignore"), "rules")
	for name, want := range map[string][2]string{"": {"docker", "rules"}, "sub/other": {"here", "own rules"}} {
		f, err := readDockerfile(dir, name)
		if err != nil || string(f.data) != want[0] {
			t.Fatalf("%q: %v %v", name, f, err)
		}
		if i, err := readIgnore(dir, f.path, ""); err != nil || string(i.data) != want[1] {
			t.Errorf("rules of %q: %v %v", name, i, err)
		}
	}
	if _, err := readIgnore(dir, "x", "gone"); err == nil {
		t.Error("rules that are named and not there")
	}
	write(t, filepath.Join(dir, "huge"), strings.Repeat("#", largestDockerfile+1))
	if _, err := readDockerfile(dir, "huge"); err == nil || !strings.Contains(err.Error(), "larger") {
		t.Errorf("a huge one: %v", err)
	}
}

// TestTextFiles: the frontend gets what it follows by name, one by one.
func TestTextFiles(t *testing.T) {
	files := textFiles{{path: "b", data: []byte("2")}, {path: "a", data: []byte("1")}}
	for target, want := range map[string]string{"/": "a b", "b": "b", "/a": "a", "c": ""} {
		var got []string
		err := files.Walk(t.Context(), target, func(path string, _ fs.DirEntry, _ error) error {
			got = append(got, path)
			return nil
		})
		if err != nil || strings.Join(got, " ") != want {
			t.Errorf("%s: %v %v", target, got, err)
		}
	}
	filtered, err := fsutil.NewFilterFS(files, &fsutil.FilterOpt{FollowPaths: []string{"a", "a.dockerignore"}})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	if err := filtered.Walk(t.Context(), "/", func(string, fs.DirEntry, error) error { n++; return nil }); err != nil || n != 1 {
		t.Errorf("%d files followed, %v", n, err)
	}
	if _, err := files.Open("../a"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("open ../a: %v", err)
	}
}

// TestInput: what comes from the input is told apart by its first bytes.
func TestInput(t *testing.T) {
	tarHead := make([]byte, 512)
	copy(tarHead[257:], "ustar")
	for text, want := range map[string]bool{"FROM x\n": false, "\x1f\x8b\x08x": true, "BZh9": true, "\x28\xb5\x2f\xfd": true, string(tarHead): true, "": false} {
		if got := isArchive([]byte(text)); got != want {
			t.Errorf("%.10q: %v", text, got)
		}
	}
	if _, err := openSources(&buildopt.Options{Context: "-"}, strings.NewReader("")); err == nil || !strings.Contains(err.Error(), "empty") {
		t.Errorf("an empty input: %v", err)
	}
	s, err := openSources(&buildopt.Options{Context: "-"}, strings.NewReader("FROM x"))
	if err != nil || s.attrs["filename"] != "Dockerfile" || len(s.mounts) != 2 {
		t.Errorf("a Dockerfile: %+v %v", s, err)
	}
	s, err = openSources(&buildopt.Options{Context: "-", File: "d/Dockerfile"}, strings.NewReader(string(tarHead)))
	if err != nil || !strings.HasPrefix(s.attrs["context"], "http://buildkit-session/") || s.attrs["filename"] != "d/Dockerfile" || len(s.attach) != 1 {
		t.Errorf("a tar file: %+v %v", s, err)
	}
	if _, err := openSources(&buildopt.Options{Context: filepath.Join(t.TempDir(), "gone")}, nil); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("no context: %v", err)
	}
}

// TestResultFiles: a file has its name when it is whole, and none of another name stays.
func TestResultFiles(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "x.tar")
	j := &job{}
	for _, whole := range []bool{false, true} {
		f := &resultFile{path: path}
		j.files = []*resultFile{f}
		w, err := f.open(nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte("tar")); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if whole {
			if err := f.keep(); err != nil {
				t.Fatal(err)
			}
		}
		j.dropFiles()
		entries, _ := os.ReadDir(dir)
		if (len(entries) == 1) != whole || whole && entries[0].Name() != "x.tar" {
			t.Errorf("whole %v: %v", whole, entries)
		}
	}
}

// TestPack: what is packed comes out with its owners, modes and links, and nothing of it can leave the directory.
func TestPack(t *testing.T) {
	from, to, file := t.TempDir(), t.TempDir(), filepath.Join(t.TempDir(), "cache.tar")
	write(t, filepath.Join(from, "d", "f"), "x")
	for _, err := range []error{os.Chown(filepath.Join(from, "d", "f"), 7, 8), os.Chmod(filepath.Join(from, "d", "f"), 0o711|fs.ModeSetuid), os.Symlink("/etc", filepath.Join(from, "l"))} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := pack(t.Context(), from, file); err != nil {
		t.Fatal(err)
	}
	if err := unpack(t.Context(), file, to); err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(filepath.Join(to, "d", "f"))
	if err != nil || st.Mode() != 0o711|fs.ModeSetuid || st.Sys().(*syscall.Stat_t).Uid != 7 || st.Sys().(*syscall.Stat_t).Gid != 8 {
		t.Errorf("%v %v", st, err)
	}
	if l, err := os.Readlink(filepath.Join(to, "l")); l != "/etc" {
		t.Errorf("%s %v", l, err)
	}
}

func TestMountWords(t *testing.T) {
	for _, row := range []struct{ file, args, want string }{
		{"", "ls", ""}, {"f", "export /c", ""}, {"-", "import c", ""}, {"", "", "say ls"}, {"", "export c", "-o FILE"}, {"f", "import", "wants the ID"}, {"f", "drop c", "say ls"},
	} {
		m := buildopt.Mounts{File: row.file}
		if err := m.Take(strings.Fields(row.args)); (err == nil) != (row.want == "") || err != nil && !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v", row.args, err)
		}
	}
	m := buildopt.Mounts{File: "f", Mode: "0700", UID: "5"}
	if err := m.Take([]string{"export", "/root/.cache"}); err != nil || m.Key() != "//root/.cache" {
		t.Errorf("key %s %v", m.Key(), err)
	}
	if owner, ok, err := m.Owner(); owner != [3]int{5, 0, 0o700} || !ok || err != nil {
		t.Errorf("%v %v %v", owner, ok, err)
	}
}

// TestModes: what a umask does to sources is not seen in what the engine gets, and what somebody made private stays private.
func TestModes(t *testing.T) {
	for _, row := range []struct{ dockerfile, file, want fs.FileMode }{
		{0o644, 0o644, 0o644}, {0o664, 0o664, 0o644}, {0o600, 0o600, 0o644}, {0o600, 0o700, 0o755}, {0o640, 0o640, 0o644}, {0o640, 0o750, 0o755},
		{0o644, 0o600, 0o600}, {0o644, 0o777, 0o755}, {0, 0o600, 0o600}, {0, 0o664, 0o644}, {0o644, 0o777 | fs.ModeSticky, 0o777 | fs.ModeSticky},
	} {
		dir := t.TempDir()
		write(t, filepath.Join(dir, "f"), "x")
		if err := os.Chmod(filepath.Join(dir, "f"), row.file); err != nil {
			t.Fatal(err)
		}
		root, err := fsutil.NewFS(dir)
		if err != nil {
			t.Fatal(err)
		}
		err = withModes(root, row.dockerfile).Walk(t.Context(), "/", func(_ string, e fs.DirEntry, _ error) error {
			info, err := e.Info()
			if err == nil && info.Mode() != row.want {
				t.Errorf("%#o beside a Dockerfile of %#o: %#o, want %#o", row.file, row.dockerfile, info.Mode(), row.want)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
