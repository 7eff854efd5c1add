package test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// repeatedSources are built twice, by engines that have nothing in common.
var repeatedSources = []struct {
	name, text string
	mode       os.FileMode
}{
	{"Dockerfile", `FROM busybox:1 AS make
WORKDIR /made/here
COPY --link b/one /linked
RUN mkdir -p z/y x && for f in z/y/2 x/1 z/0; do echo $f >$f; done && rm -r x && ln z/0 hard && ln -s z/0 soft && mkfifo pipe
RUN hostname >name; chmod 4711 z/0; chown 1000:2000 z/y; rm /etc/group
FROM busybox:1
ADD archive.tar /added/
COPY . /context
COPY --from=make /made /made
ENV MADE=yes
RUN find /context /made | wc -l >/count
LABEL of="repeat"
CMD ["cat", "/count"]
`, 0o644},
	{"a/x/y/z", "deep", 0o600},
	{"b/one", "1", 0o644},
	{"b/two", "22", 0o755},
	{"c", "c", 0o444},
	{"ü/ß", "not of ASCII", 0o640},
}

// TestBuildsAreReproducible: the same sources give the same digest, by other roots, host names, umasks, orders and ages of files, file
// systems, clients, and at another time.
func TestBuildsAreReproducible(t *testing.T) {
	first := repeat(t, repeated{client: "wherry", shell: "umask 022"})
	at := time.Now().Unix()
	ok(t, eventually(5*time.Second, func() error { // another second, which is what a date in an image has
		if time.Now().Unix() == at {
			return errors.New("the clock stands still")
		}
		return nil
	}))
	second := repeat(t, repeated{client: "docker", shell: "umask 077; hostname elsewhere; TZ=Asia/Kolkata; LANG=tr_TR.UTF-8; export TZ LANG", reverse: true, dir: "/tmp"})
	if first.digest == "" || first.digest != second.digest {
		t.Errorf("%s and %s", first.digest, second.digest)
		for i := range first.layers {
			if i < len(second.layers) && first.layers[i] != second.layers[i] {
				t.Errorf("layer %d differs", i)
			}
		}
		t.Logf("%s\n%s", first.config, second.config)
	}
	epoch := repeat(t, repeated{client: "docker", shell: "umask 022", args: []string{"--build-arg", "SOURCE_DATE_EPOCH=981173106"}})
	if !strings.Contains(epoch.config, "2001-02-03T04:05:06Z") {
		t.Errorf("SOURCE_DATE_EPOCH is not in %s", epoch.config)
	}
}

// repeated says how one of the builds differs.
type repeated struct {
	client, shell, dir string
	args               []string
	reverse            bool
}

type repeatedResult struct {
	digest, config string
	layers         []string
}

func repeat(t *testing.T, r repeated) repeatedResult {
	t.Helper()
	dir, err := os.MkdirTemp(r.dir, "repeat-"+strings.Repeat("x", len(r.shell)))
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	writeRepeated(t, dir+"/context", r.reverse)
	e := newEngine(shared, t.TempDir())
	e.shell = r.shell
	if err := e.start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := e.shutdown(); err != nil {
			t.Error(err)
		}
	}()
	if err := e.load("busybox-1"); err != nil {
		t.Fatal(err)
	}
	withBuildx(t)
	client := r.client
	if client == "wherry" {
		client = filepath.Join(shared.bin, client)
	}
	name := registryAddress + "/repeat/" + filepath.Base(dir) + ":1"
	args := append([]string{"-c", r.shell + `; exec "$0" "$@"`, client, "build", "-t", name, "--provenance=false"}, r.args...)
	if out, err := e.run("unshare", append([]string{"--uts", "sh"}, append(args, dir+"/context")...)...); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	do := func(args ...string) string {
		out, err := e.run("wherry", args...)
		if err != nil {
			t.Fatalf("wherry %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return strings.TrimSpace(out)
	}
	if out := do("run", "--rm", name); out == "" {
		t.Error("it does not run")
	}
	do("push", "-q", name)
	result := repeatedResult{
		digest: do("inspect", "-f", "{{index .RepoDigests 0}}", name),
		config: do("inspect", name),
		layers: strings.Fields(do("inspect", "-f", "{{range .RootFS.Layers}}{{println .}}{{end}}", name)),
	}
	_, result.digest, _ = strings.Cut(result.digest, "@")
	return result
}

// writeRepeated writes the sources, in order or the other way round, the later files the younger ones.
func writeRepeated(t *testing.T, dir string, reverse bool) {
	t.Helper()
	at := time.Date(2020, 1, 2, 3, 4, 5, 6, time.UTC)
	write := func(name string, content []byte, mode os.FileMode) {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		at = at.Add(time.Hour)
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
	for i := range repeatedSources {
		if reverse {
			i = len(repeatedSources) - 1 - i
		}
		write(repeatedSources[i].name, []byte(repeatedSources[i].text), repeatedSources[i].mode)
	}
	write("archive.tar", layerOf(piece{name: "in/the/archive", content: "archived"}, symlink("in/link", "the/archive")), 0o644)
}
