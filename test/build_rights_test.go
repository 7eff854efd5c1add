package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// builder is an engine of its own with settings of builds, and a directory with a Dockerfile.
type builder struct {
	*engine
	t   *testing.T
	dir string
}

func newBuilder(t *testing.T, settings string, args ...string) *builder {
	t.Helper()
	withBuildx(t)
	e := newEngine(shared, t.TempDir())
	file := filepath.Join(t.TempDir(), "wherry.toml")
	ok(t, os.WriteFile(file, []byte("[builds]\n"+settings+"\n"), 0o644))
	e.args = append([]string{"--config", file}, args...)
	ok(t, e.start())
	t.Cleanup(func() { ok(t, e.shutdown()) })
	ok(t, e.load("busybox-1"))
	return &builder{e, t, t.TempDir()}
}

// build gives a Dockerfile to a client, and returns what it says and whether it was content.
func (b *builder) build(client, dockerfile string, args ...string) (string, error) {
	b.t.Helper()
	ok(b.t, os.WriteFile(filepath.Join(b.dir, "Dockerfile"), []byte(dockerfile), 0o644))
	words := strings.Fields(client)
	return b.run(words[0], append(append(words[1:], args...), b.dir)...)
}

// TestInsecureSteps: steps get all rights where the client and the settings allow it, and the error names who did not.
func TestInsecureSteps(t *testing.T) {
	dockerfile := "FROM busybox:1\nRUN --security=insecure mkdir /m && mount -t tmpfs x /m && umount /m && [ -c /dev/kmsg ] && id -u >/made\n"
	plain := "FROM busybox:1\nRUN ! mount -t tmpfs x /mnt && [ ! -e /dev/kmsg ]\n"
	with, without := newBuilder(t, `entitlements = ["security.insecure"]`), newBuilder(t, "")
	for _, client := range []string{"wherry build --no-cache", "docker buildx build --no-cache"} {
		if out, err := with.build(client, dockerfile, "-t", "made:1", "--allow", "security.insecure"); err != nil {
			t.Errorf("%s: %v\n%s", client, err, out)
		}
		if out, err := with.build(client, plain, "--allow", "security.insecure"); err != nil {
			t.Errorf("%s: an ordinary step has more rights than before: %v\n%s", client, err, out)
		}
		for name, row := range map[string]struct {
			b    *builder
			args []string
			want string
		}{
			"the client is silent":   {with, nil, "have to; the client does not"},
			"the engine is silent":   {without, []string{"--allow", "security.insecure"}, "have to; the settings do not"},
			"both are":               {without, nil, "have to; neither does"},
			"the host's network too": {with, []string{"--network", "host", "--allow", "security.insecure", "--allow", "network.host"}, "network.host) and the engine's settings (builds.entitlements) have to; the settings do not"},
		} {
			if out, err := row.b.build(client, dockerfile, row.args...); err == nil || !strings.Contains(out, row.want) {
				t.Errorf("%s, %s: %v\n%s", client, name, err, out)
			}
		}
	}
	if out, err := with.run("wherry", "run", "--rm", "made:1", "stat", "-c", "%u", "/made"); err != nil || strings.TrimSpace(out) != "0" {
		t.Errorf("a file of an insecure step belongs to %s: %v", out, err)
	}
}

// TestFrontendsOfImages: a program in an image writes the build, with the rights of a step, past the policy, and the digest that ran is written down.
func TestFrontendsOfImages(t *testing.T) {
	policy := filepath.Join(t.TempDir(), "policy.toml")
	ok(t, os.WriteFile(policy, []byte("default = \"accept\"\n[[rule]]\nscope = \""+registryAddress+"/refused\"\naction = \"reject\"\n"), 0o644))
	b := newBuilder(t, `frontends = "all"`, "--policy", policy)
	compile := exec.Command("go", "build", "-o", filepath.Join(b.dir, "frontend"), "./test/frontend")
	compile.Dir, compile.Env = repository(), append(os.Environ(), "CGO_ENABLED=0")
	if out, err := compile.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	out, err := b.build("wherry build -q -t front:1", "FROM scratch\nCOPY frontend /\nENTRYPOINT [\"/frontend\"]\n")
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	digest, refused := strings.TrimSpace(out), registryAddress+"/refused/front:1"
	for _, args := range [][]string{{"tag", "front:1", refused}, {"push", "-q", refused}, {"rmi", refused}} {
		if out, err := b.run("wherry", args...); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	ok(t, os.Remove(filepath.Join(b.dir, "frontend")))
	to := filepath.Join(t.TempDir(), "out")
	if out, err := b.build("wherry build --provenance=mode=max -o", "# syntax=front:1\nfile hello world\nself\nrun id -u >/out/id\n", to); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for name, want := range map[string][]string{"hello": {"world\n"}, "id": {"0\n"}, "self": {"Seccomp:\t2\n", "CapEff:\t00000000800424fb\n", " 65536\n"}, "provenance.json": {digest[len("sha256:"):]}} {
		text, err := os.ReadFile(filepath.Join(to, name))
		ok(t, err)
		for _, part := range want {
			if !strings.Contains(string(text), part) {
				t.Errorf("%s has no %q:\n%s", name, part, text)
			}
		}
	}
	own := newBuilder(t, "")
	for _, client := range []string{"wherry build", "docker buildx build --load", "env DOCKER_BUILDKIT=0 docker build"} {
		if out, err := b.build(client, "# syntax=front:1\nfile a b\n", "-t", "by:1"); err != nil {
			t.Errorf("%s: %v\n%s", client, err, out)
		}
		if out, err := b.run("wherry", "image", "inspect", "-f", "{{.Config.Labels.by}}", "by:1"); err != nil || strings.TrimSpace(out) != "frontend" {
			t.Errorf("%s: the image is made by %s: %v", client, out, err)
		}
		for name, row := range map[string]struct {
			b          *builder
			dockerfile string
			want       string
		}{
			"last words":     {b, "# syntax=front:1\ndie\n", "the frontend front:1 ended: exit code: 3: it said: these are its last words"},
			"its own answer": {b, "# syntax=front:1\nwhat\n", "no such word: what"},
			"the policy":     {b, "# syntax=" + refused + "\nfile a b\n", "is refused by the rule for " + registryAddress + "/refused"},
			"the settings":   {own, "# syntax=front:1\nfile a b\n", "builds.frontends"},
		} {
			if out, err := row.b.build(client, row.dockerfile); err == nil || !strings.Contains(out, row.want) {
				t.Errorf("%s, %s: %v\n%s", client, name, err, out)
			}
		}
	}
	if left, err := b.run("wherry", "ps", "-aq"); err != nil || left != "" {
		t.Error(fmt.Errorf("left: %s: %w", left, err))
	}
}
