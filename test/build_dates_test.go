package test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestBuildsHaveNoDatesOfTheirOwn: two engines with stores of their own, and the same sources that were written at other times, in another order, by a client
// with another umask on a host of another name: the same image. Both ways into the engine give it.
func TestBuildsHaveNoDatesOfTheirOwn(t *testing.T) {
	withBuildx(t)
	type file struct{ name, content string }
	sources := []file{
		{"Dockerfile", `FROM busybox:1 AS make
WORKDIR /src
COPY . .
RUN mkdir out && cat a.txt deep/b.txt >out/result && ln -s result out/link && date +%s >/dev/null && [ "$SOURCE_DATE_EPOCH" = 315532800 ]
FROM busybox:1
RUN --mount=type=tmpfs,target=/t echo x >/t/x && touch -t 200102030405.06 /old
COPY --from=make /src/out /out
COPY --link deep /deep
ADD packed.tar /packed
RUN <<EOF
echo hi >/hi
chmod 700 /hi
EOF
`},
		{"a.txt", "A\n"}, {"deep/b.txt", "B\n"}, {"deep/er/c.txt", "C\n"},
	}
	var digests, created []string
	for turn := range 2 {
		e := newEngine(shared, t.TempDir())
		ok(t, e.start())
		ok(t, e.load("busybox-1"))
		dir := t.TempDir()
		list := slices.Clone(sources)
		if turn == 1 {
			slices.Reverse(list)
		}
		for i, f := range list {
			path := filepath.Join(dir, f.name)
			at := time.Now().Add(-time.Duration(1+i+1000*turn) * time.Hour)
			ok(t, os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(f.content), 0o644), os.Chtimes(path, at, at))
		}
		out, err := exec.Command("tar", "-C", dir, "--mtime=@1000000000", "-cf", filepath.Join(dir, "packed.tar"), "--owner=0", "--group=0", "a.txt").CombinedOutput()
		if err != nil {
			t.Fatalf("tar: %v: %s", err, out)
		}
		for _, client := range []string{filepath.Join(shared.bin, "wherry") + " build -q", "DOCKER_BUILDKIT=0 docker build -q", "docker buildx build --provenance=false --load -q"} {
			cmd := exec.Command("unshare", "-u", "sh", "-c", []string{"umask 022; hostname first; ", "umask 077; hostname second; "}[turn]+client+" --no-cache -t again:1 "+dir)
			cmd.Env = append(os.Environ(), e.environment()...)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%s: %v: %s", client, err, out)
			}
			id, err := e.run("wherry", "image", "inspect", "--format", "{{.Id}} {{.Created}}", "again:1")
			ok(t, err)
			digest, at, _ := strings.Cut(strings.TrimSpace(id), " ")
			digests, created = append(digests, digest), append(created, at)
		}
		base, err := e.run("wherry", "image", "inspect", "--format", "{{.Created}}", "busybox:1")
		ok(t, err)
		if at := strings.TrimSpace(base); slices.ContainsFunc(created, func(c string) bool { return c != at }) {
			t.Errorf("made at %v, its base at %s", created, at)
		}
		dates, err := e.run("wherry", "run", "--rm", "again:1", "stat", "-c", "%n %Y", "/hi", "/out", "/out/result", "/out/link", "/deep/er", "/deep/b.txt", "/packed/a.txt", "/old")
		want := "/hi 315532800\n/out 315532800\n/out/result 315532800\n/out/link 315532800\n/deep/er 315532800\n/deep/b.txt 315532800\n/packed/a.txt 1000000000\n/old 981173106\n"
		if err != nil || strings.TrimSpace(dates) != strings.TrimSpace(want) {
			t.Errorf("%v: the files are from\n%s\nwant\n%s", err, dates, want)
		}
		if turn == 1 { // who asks for another time gets it
			_, err = e.run("wherry", "build", "-q", "--build-arg", "SOURCE_DATE_EPOCH=1700000000", "-t", "later:1", dir)
			ok(t, err)
			at, err := e.run("wherry", "image", "inspect", "--format", "{{.Created}}", "later:1")
			if err != nil || !strings.HasPrefix(at, "2023-11-14T22:13:20") {
				t.Errorf("made at %s, %v", at, err)
			}
		}
		ok(t, e.shutdown())
	}
	if d := slices.Compact(slices.Clone(digests)); len(d) != 1 {
		t.Errorf("the same sources gave %v", digests)
	}
}
