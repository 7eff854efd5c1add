package test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// hostileBuild is what the tests of builds share beside the tree outside.
type hostileBuild struct {
	*hostile
	server string // serves the contexts' files and repositories
	dir    string
	count  int
}

func newHostileBuild(t *testing.T) *hostileBuild {
	t.Helper()
	withBuildx(t)
	dir := t.TempDir()
	server := httptest.NewServer(serveFilesAndGit(dir))
	t.Cleanup(server.Close)
	return &hostileBuild{hostile: newHostile(t), server: server.URL, dir: dir}
}

// context writes a Dockerfile, in which OUT stands for the tree outside and SERVER for the server, and files.
func (h *hostileBuild) context(dockerfile string, files ...string) string {
	h.t.Helper()
	h.count++
	dir := filepath.Join(h.dir, fmt.Sprint(h.count))
	ok(h.t, os.MkdirAll(dir, 0o755), os.WriteFile(dir+"/Dockerfile", []byte(h.fill(dockerfile)), 0o644))
	for _, f := range files {
		ok(h.t, os.WriteFile(filepath.Join(dir, f), []byte(f+"\n"), 0o644))
	}
	return dir
}

func (h *hostileBuild) fill(s string) string {
	return strings.NewReplacer("OUT", h.out, "UP", strings.Repeat("../", 30)+h.out[1:], "SERVER", h.server).Replace(s)
}

// build builds it with buildx, without a cache, and returns what the client prints and its exit code.
func (h *hostileBuild) build(dockerfile string, args ...string) (string, int) {
	h.t.Helper()
	return h.run("docker", append(append([]string{"build", "--no-cache", "--progress=plain"}, args...), h.context(dockerfile))...)
}

// refused wants a build to fail, saying one of the words.
func (h *hostileBuild) refused(t *testing.T, out string, code int, words ...string) {
	t.Helper()
	h.blind(t, out)
	for _, w := range words {
		if code != 0 && strings.Contains(out, w) {
			return
		}
	}
	t.Errorf("exit code %d, and nothing of %q in:\n%s", code, words, out)
}

// blind wants that nothing of outside was seen.
func (h *hostileBuild) blind(t *testing.T, out string) {
	t.Helper()
	if strings.Contains(out, "canary") || strings.Contains(out, "SEEN") {
		t.Errorf("the build has seen what is outside:\n%s", out)
	}
	h.intact()
}

// TestBuildAdvisories: what was wrong in builders before, each by the name that it is known by.
func TestBuildAdvisories(t *testing.T) {
	h := newHostileBuild(t)
	h.repository()
	for name, f := range map[string]func(*hostileBuild, *testing.T){
		"CVE-2019-13139 options in the place of a git reference":        gitOptions,
		"CVE-2024-1753 a bind's source is a link to the root":           bindOfLink,
		"CVE-2024-9407 propagation as a mount's option":                 mountPropagation,
		"CVE-2024-9675 a cache's name leads upwards":                    cacheUpwards,
		"CVE-2024-11218 CVE-2024-23651 a cache's directory is swapped":  cacheRace,
		"CVE-2024-21626 descriptors and the working directory of a RUN": descriptorsOfRun,
		"CVE-2024-23652 a mount's place is a link when it is cleared":   mountPlaces,
		"CVE-2024-24557 an image that looks like a cached step":         poisonedCache,
		"CVE-2026-33748 a git directory outside of the repository":      gitDirectories,
		"CVE-2026-44517 contexts of archives and repositories lead out": contextsLeadOut,
		"privileges of a RUN are those of a run":                        privilegesOfRun,
	} {
		t.Run(name, func(t *testing.T) { f(h, t) })
	}
}

// repository has links that lead out of it.
func (h *hostileBuild) repository() {
	h.t.Helper()
	script := h.fill(`set -e; git init -q -b main r; cd r; git config user.name x; git config user.email x@example.org
		mkdir sub; echo inside >sub/file; ln -s OUT absolute; ln -s UP upwards; ln -s ../.. above; ln -s OUT/secret sub/secret
		git add .; git commit -q -m all; cd ..; git clone -q --bare r repo.git`)
	cmd := exec.Command("sh", "-c", script)
	cmd.Dir = h.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		h.t.Fatalf("%v: %s", err, out)
	}
}

func gitOptions(h *hostileBuild, t *testing.T) {
	for _, ref := range []string{"--upload-pack=touch OUT/made;", "-uOUT/made", "--output=OUT/made", "main:--output=OUT/made", "-"} {
		out, code := h.build("FROM scratch\nADD \"SERVER/repo.git#" + strings.ReplaceAll(ref, " ", "$IFS") + "\" /\n")
		h.refused(t, out, code, "ERROR")
		out, code = h.run("docker", "build", "--progress=plain", h.fill("SERVER/repo.git#"+ref))
		h.refused(t, out, code, "ERROR")
	}
	for _, url := range []string{"ssh://-oProxyCommand=touch$IFS''OUT/made/x.git", "git@-oProxyCommand=touch:OUT/made.git", "ext::touch OUT/made.git", "file://OUT/repo.git"} {
		out, _ := h.build("FROM busybox:1\nADD [\"" + url + "\", \"/x\"]\nRUN find /x; cat /x/*\n")
		h.blind(t, out)
	}
}

func bindOfLink(h *hostileBuild, t *testing.T) {
	for _, link := range []string{"/", "OUT", "UP", "/proc/1/root", "/proc/self/cwd"} {
		out, _ := h.build("FROM busybox:1 AS evil\nRUN ln -s " + link + " /link\nFROM busybox:1\n" +
			"RUN --mount=type=bind,from=evil,source=/link,target=/m,rw cat /m/secret /mOUT/secret; touch /m/made /mOUT/made; true\n" +
			"COPY --from=evil /link/secret* /link/OUT/secret* /copied/\nRUN cat /copied/*")
		h.blind(t, out)
	}
}

func mountPropagation(h *hostileBuild, t *testing.T) {
	for _, option := range []string{"bind-propagation=shared", "bind-propagation=OUT", "Z", "relabel=shared", "upperdir=OUT"} {
		out, code := h.build("FROM busybox:1\nRUN --mount=type=bind,target=/m," + option + " cat /m/secret; echo SE''EN\n")
		h.refused(t, out, code, "unexpected key", "not found", "invalid", "unsupported", "must be")
	}
}

func cacheUpwards(h *hostileBuild, t *testing.T) {
	for _, option := range []string{"id=UP", "id=../../OUT", "id=OUT", "source=UP", "source=OUT", "from=busybox:1,source=UP", "id=a,source=../../.."} {
		out, _ := h.build("FROM busybox:1\nRUN --mount=type=cache,target=/c," + option + " ls -a /c; cat /c/secret; touch /c/made; true\n")
		h.blind(t, out)
	}
	out, _ := h.build("FROM busybox:1\nRUN ln -s OUT /link\nRUN --mount=type=cache,target=/link/etc echo >/link/etc/made\nRUN --mount=type=tmpfs,target=UP/etc touch UP/etc/made; true\n")
	h.blind(t, out)
}

// cacheRace swaps a cache's directory for a link in one step while others mount it.
func cacheRace(h *hostileBuild, t *testing.T) {
	dir := h.context("FROM busybox:1\nARG N\nRUN --mount=type=cache,id=race$N,target=/c mkdir /c/sub && ln -s OUT /c/link && touch /c/sub/inside\n")
	h.must("docker", "build", "--build-arg", "N=1", dir)
	swap := "for i in $(seq 2000); do mv /c/sub /c/x; mv /c/link /c/sub; mv /c/sub /c/link; mv /c/x /c/sub; done; ls /c/sub/inside"
	dockerfile, final := "FROM busybox:1 AS swap\nARG N\nRUN --mount=type=cache,id=race$N,target=/c "+swap+"\n", "FROM busybox:1\n"
	for i := range 12 { // a look that comes at the wrong moment ends the build: others have been at it by then
		dockerfile += fmt.Sprintf("FROM busybox:1 AS look%d\nARG N\nRUN --mount=type=cache,id=race$N,target=/c,source=sub,rw ls /c/inside; cat /c/secret /c/etc/secret; touch /c/made; true\n", i)
		final += fmt.Sprintf("COPY --from=look%d /etc/group /x\n", i)
	}
	out, _ := h.run("docker", "build", "--progress=plain", "--build-arg", "N=1", h.context(dockerfile+final+"COPY --from=swap /etc/group /x\n"))
	h.blind(t, out)
	if !strings.Contains(out, "/c/inside\n") && !strings.Contains(out, "link") {
		t.Errorf("nobody has looked:\n%s", out)
	}
}

func descriptorsOfRun(h *hostileBuild, t *testing.T) {
	out, code := h.build("FROM busybox:1\nRUN echo descriptors: $(ls /proc/self/fd)\n")
	if code != 0 || !strings.Contains(out, "descriptors: 0 1 2 3\n") { // ls has one of its own
		t.Errorf("%d\n%s", code, out)
	}
	for fd := 3; fd < 16; fd++ {
		out, _ := h.build(fmt.Sprintf("FROM busybox:1\nWORKDIR /proc/self/fd/%d\nRUN cat UP/secret ../../..OUT/secret; touch UP/made; true\n", fd))
		h.blind(t, out)
	}
}

// mountPlaces puts links where the engine made places for mounts, so that it would remove what they lead to.
func mountPlaces(h *hostileBuild, t *testing.T) {
	victims, err := os.MkdirTemp(shared.dir, "victims-")
	ok(t, err, os.MkdirAll(victims+"/directory", 0o777), os.WriteFile(victims+"/file", nil, 0o666))
	defer os.RemoveAll(victims)
	for _, mount := range []string{"type=tmpfs,target=/d/directory", "type=cache,target=/d/directory", "type=bind,target=/d/directory", "type=secret,id=s,target=/d/file"} {
		out, code := h.build("FROM busybox:1\nRUN --mount="+mount+" mv /d /e && ln -s "+victims+" /d\nRUN readlink /d\n", "--secret", "id=s,src=/proc/version")
		if code == 0 && !strings.Contains(out, victims) {
			t.Errorf("the link was not made:\n%s", out)
		}
		for _, name := range []string{"directory", "file"} {
			if _, err := os.Lstat(filepath.Join(victims, name)); err != nil {
				t.Errorf("%s: %v", mount, err)
			}
		}
	}
}

// poisonedCache loads an image that says of itself to be what a step would make.
func poisonedCache(h *hostileBuild, t *testing.T) {
	step := "/bin/sh -c #(nop) COPY file:0000000000000000000000000000000000000000000000000000000000000000 in / "
	config := map[string]any{"Cmd": []string{"/bin/sh"}, "Labels": map[string]string{"poison": "yes"}}
	image := h.image("poison", config, piece{name: "file", content: "poisoned"})
	dir := h.context("FROM scratch\nCOPY file /\n", "file")
	for _, buildkit := range []string{"0", "1"} {
		t.Setenv("DOCKER_BUILDKIT", buildkit)
		h.must("docker", "build", "--cache-from", image, "-t", "unpoisoned:1", dir)
		if labels := h.must("wherry", "image", "inspect", "-f", "{{json .Config.Labels}}", "unpoisoned:1"); strings.Contains(labels, "poison") {
			t.Errorf("DOCKER_BUILDKIT=%s: the image was taken for %q", buildkit, step)
		}
		box := h.must("wherry", "create", "unpoisoned:1", "none")
		if content := h.must("wherry", "cp", box+":/file", "-"); !strings.Contains(content, "file\n") || strings.Contains(content, "poisoned") {
			t.Errorf("DOCKER_BUILDKIT=%s: the file is %q", buildkit, content)
		}
		h.must("wherry", "rm", box)
	}
}

func gitDirectories(h *hostileBuild, t *testing.T) {
	for _, sub := range []string{"..", "../..", "sub/../../..", "/../../..", "absolute", "upwards", "above", "above/..", ".git", "sub/../.git"} {
		out, _ := h.build("FROM busybox:1\nADD SERVER/repo.git#main:" + sub + " /x\nRUN find /x -maxdepth 3 -type f -exec cat {} +\n")
		h.blind(t, out)
		out, _ = h.run("docker", "build", "--progress=plain", h.server+"/repo.git#main:"+sub)
		h.blind(t, out)
	}
	out, code := h.build("FROM busybox:1\nADD SERVER/repo.git#main:sub /x\nRUN cat /x/file; cat /x/secret; true\n")
	if h.blind(t, out); code != 0 || !strings.Contains(out, "inside") {
		t.Errorf("%d\n%s", code, out)
	}
}

// contextsLeadOut copies by what lies in an archive, or in a repository, as a context or added to one.
func contextsLeadOut(h *hostileBuild, t *testing.T) {
	copies := "FROM busybox:1\nCOPY %s /x\nRUN find /x -type f -exec cat {} +; cat /x/secret; true\n"
	for _, from := range []string{"link/secret", "link", "file", "up/secret", "link/", "dir/../../secret", "hard"} {
		dockerfile := piece{name: "Dockerfile", content: fmt.Sprintf(copies, from), mode: 0o644}
		archive := layerOf(dockerfile, piece{name: "dir/", kind: '5'}, symlink("link", h.out), symlink("file", h.out+"/secret"), symlink("up", h.fill("UP")),
			piece{name: "hard", link: h.out + "/secret", kind: '1'}, piece{name: "link/made", content: "x"}, piece{name: "up/etc/made", content: "x"})
		ok(t, os.WriteFile(h.dir+"/evil.tar", archive, 0o644))
		out, _ := h.run("docker", "build", "--progress=plain", h.server+"/evil.tar")
		h.blind(t, out)
		h.blind(t, h.post(t, "", archive))
		dir := h.context("FROM busybox:1 AS a\nADD evil.tar /t/\nFROM busybox:1\nCOPY --from=a /t/" + from + " /x\nRUN find /x -type f -exec cat {} +; cat /x/secret; true\n")
		ok(t, os.WriteFile(dir+"/evil.tar", archive, 0o644))
		out, _ = h.run("docker", "build", "--progress=plain", dir)
		h.blind(t, out)
	}
	script := h.fill(`set -e; git init -q -b main evil; cd evil; git config user.name x; git config user.email x@example.org
		ln -s OUT link; ln -s OUT/secret file; ln -s OUT/secret Dockerfile; printf 'FROM busybox:1\nCOPY link/secret file /x/\nRUN cat /x/*; true\n' >real
		printf '[submodule "m"]\n\tpath = m\n\turl = OUT\n' >.gitmodules; git update-index --add --cacheinfo 160000,$(git hash-object -t tree /dev/null),m
		git add .; git commit -q -m all; cd ..; git clone -q --bare evil evil.git`)
	cmd := exec.Command("sh", "-c", script)
	cmd.Dir = h.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, args := range [][]string{{h.server + "/evil.git"}, {"-f", "real", h.server + "/evil.git"}, {"-f", "link/secret", h.server + "/evil.git"}} {
		out, _ := h.run("docker", append([]string{"build", "--progress=plain"}, args...)...)
		h.blind(t, out)
	}
}

// privilegesOfRun compares a step's process with that of a container.
func privilegesOfRun(h *hostileBuild, t *testing.T) {
	show := `grep -E '^(Cap|NoNewPrivs|Seccomp:|Uid|Groups)' /proc/self/status; awk '{ print ($1 == $2) }' /proc/self/uid_map; ls /dev | tr '\n' ' '; cat /proc/sys/kernel/hostname >/dev/null`
	run := h.must("wherry", "run", "--rm", "busybox:1", "sh", "-c", show)
	h.must("docker", "build", "-t", "privileges:1", h.context("FROM busybox:1\nRUN <<'EOF' sh >/shown\n"+show+"\nEOF\n"))
	if built := h.must("wherry", "run", "--rm", "privileges:1", "cat", "/shown"); built != run {
		t.Errorf("a step has\n%s\nand a container\n%s", built, run)
	}
}

// TestHostileContexts sends archives that no client makes, as the Engine API takes them.
func TestHostileContexts(t *testing.T) {
	h := newHostileBuild(t)
	dockerfile := piece{name: "Dockerfile", content: h.fill("FROM busybox:1\nCOPY . /c\nRUN find /c -type f -exec cat {} + ; cat /c/link/secret; true\n"), mode: 0o644}
	up := strings.Repeat("../", 30)
	rows := map[string]struct {
		body  []byte
		query string
	}{
		"upwards":            {body: layerOf(dockerfile, piece{name: up + h.out[1:] + "/made", content: "x"})},
		"absolute":           {body: layerOf(dockerfile, piece{name: h.out + "/made", content: "x"})},
		"through a link":     {body: layerOf(dockerfile, symlink("link", h.out), piece{name: "link/made", content: "x"}, piece{name: "link/secret", content: "changed"})},
		"a hard link":        {body: layerOf(dockerfile, piece{name: "secret", link: h.out + "/secret", kind: '1'}, piece{name: "secret", content: "changed"})},
		"Dockerfile a link":  {body: layerOf(symlink("Dockerfile", h.out+"/secret"))},
		"Dockerfile upwards": {body: layerOf(dockerfile), query: "dockerfile=" + up + h.out[1:] + "/secret"},
		"Dockerfile abroad":  {body: layerOf(dockerfile), query: "dockerfile=" + h.out + "/secret"},
		"a device":           {body: layerOf(dockerfile, piece{name: "memory", kind: '3', major: 1, minor: 1})},
		"longer than it is":  {body: layerOf(dockerfile, piece{name: "x", content: strings.Repeat("x", 1<<16)})[:4096]},
		"huge":               {body: append(layerOf(dockerfile)[:1024], headOf(1<<50)...)},
		"not an archive":     {body: []byte(strings.Repeat("no archive", 1000))},
		"an empty archive":   {body: layerOf()},
		"nothing":            {},
		"a remote option":    {query: "remote=--upload-pack=touch%20" + h.out + "/made"},
		"a remote file":      {query: "remote=file://" + h.out + "/secret"},
		"a remote git":       {query: "remote=git@-oProxyCommand=touch:" + h.out + "/made.git"},
		"unknown JSON":       {body: layerOf(dockerfile), query: "buildargs=%7B&labels=%5B"},
		"a network's name":   {body: layerOf(dockerfile), query: "networkmode=container:no-such"},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			answer := h.post(t, row.query, row.body)
			h.blind(t, answer)
		})
	}
	// The engine is there, and builds.
	h.must("docker", "build", h.context("FROM busybox:1\nRUN true\n"))
}

// post asks for a build as docker without buildx does.
func (h *hostileBuild) post(t *testing.T, query string, body []byte) string {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", shared.engine.socket())
	}}}
	r, err := client.Post("http://engine/build?"+query, "application/x-tar", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	answer, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(answer)
}
