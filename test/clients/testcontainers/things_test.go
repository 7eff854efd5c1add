package testcontainers

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	tc "github.com/testcontainers/testcontainers-go"
	"github.com/testcontainers/testcontainers-go/network"
	"github.com/testcontainers/testcontainers-go/wait"
)

func TestNetworks(t *testing.T) {
	n, err := network.New(t.Context(), network.WithAttachable())
	tc.CleanupNetwork(t, n)
	check(t, err)
	server := run(t, serving("across the net", network.WithNetwork([]string{"server", "harbour"}, n))...)
	caller := run(t, tc.WithCmd("sleep", "300"), network.WithNetwork([]string{"caller"}, n))
	for _, name := range []string{"server", "harbour"} {
		if code, out := exec(t, caller, []string{"wget", "-qO-", "http://" + name + ":8080/"}); code != 0 || out != "across the net" {
			t.Errorf("%s: %d %q", name, code, out)
		}
	}
	aliases, err := server.NetworkAliases(t.Context())
	check(t, err)
	if got := aliases[n.Name]; !strings.Contains(strings.Join(got, " "), "harbour") {
		t.Errorf("aliases: %v", aliases)
	}
	if addresses, err := server.ContainerIPs(t.Context()); err != nil || len(addresses) == 0 {
		t.Errorf("addresses: %q %v", addresses, err)
	}
	outsider := run(t, tc.WithCmd("sleep", "300"))
	if code, _ := exec(t, outsider, []string{"nslookup", "harbour"}); code == 0 {
		t.Error("a container outside the network knows its names")
	}
}

func TestMounts(t *testing.T) {
	dir := t.TempDir()
	check(t, os.WriteFile(filepath.Join(dir, "x"), []byte("bound"), 0o644))
	name := "testcontainers-" + tc.SessionID()[:12]
	mounted := func(command string) string {
		c := run(t, tc.WithCmd("sleep", "300"), tc.WithTmpfs(map[string]string{"/scratch": "rw,size=1m"}),
			tc.WithMounts(tc.VolumeMount(name, "/data"), tc.ContainerMount{Source: tc.NewDockerImageMountSource(image, "bin"), Target: "/programs"}),
			tc.WithHostConfigModifier(func(h *container.HostConfig) { h.Binds = []string{dir + ":/bound:ro"} }))
		code, out := exec(t, c, []string{"sh", "-c", command})
		if code != 0 {
			t.Errorf("%s: %d %q", command, code, out)
		}
		check(t, c.Terminate(t.Context(), tc.StopTimeout(0)))
		return out
	}
	if out := mounted("echo kept >/data/x; touch /scratch/x; ls /programs/busybox; cat /bound/x; ! touch /bound/y 2>/dev/null"); !strings.HasPrefix(out, "/programs/busybox\nbound") {
		t.Errorf("%q", out)
	}
	if out := mounted("cat /data/x; ls /scratch"); out != "kept\n" {
		t.Errorf("%q", out)
	}
	engine, err := tc.NewDockerClientWithOpts(t.Context())
	check(t, err)
	defer engine.Close()
	_, err = engine.VolumeRemove(t.Context(), name, client.VolumeRemoveOptions{})
	check(t, err)
}

// buildContext is a folder to build from.
func buildContext(t *testing.T) string {
	dir := t.TempDir()
	check(t, os.WriteFile(filepath.Join(dir, "page"), []byte("built in"), 0o644))
	check(t, os.WriteFile(filepath.Join(dir, ".dockerignore"), []byte("secret\n"), 0o644))
	check(t, os.WriteFile(filepath.Join(dir, "secret"), nil, 0o644))
	check(t, os.WriteFile(filepath.Join(dir, "Dockerfile.web"), []byte("ARG BASE\nFROM $BASE\nARG WHO\nCOPY . /www/\nRUN mv /www/page /www/index.html && echo $WHO >/who\nCMD [\"httpd\",\"-f\",\"-p\",\"8080\",\"-h\",\"/www\"]\n"), 0o644))
	return dir
}

func TestBuild(t *testing.T) {
	for _, builder := range []string{"1", "2"} {
		t.Run("version "+builder, func(t *testing.T) {
			base, who := image, "builder "+builder
			var log strings.Builder
			c, err := tc.GenericContainer(t.Context(), tc.GenericContainerRequest{Started: true, ContainerRequest: tc.ContainerRequest{
				FromDockerfile: tc.FromDockerfile{Context: buildContext(t), Dockerfile: "Dockerfile.web", BuildArgs: map[string]*string{"BASE": &base, "WHO": &who}, BuildLogWriter: &log,
					BuildOptionsModifier: func(o *client.ImageBuildOptions) { o.Version = build.BuilderVersion(builder) }},
				ExposedPorts: []string{"8080/tcp"},
				WaitingFor:   wait.ForHTTP("/").WithPort("8080/tcp"),
			}})
			tc.CleanupContainer(t, c, tc.StopTimeout(0))
			check(t, err)
			if code, out := exec(t, c, []string{"sh", "-c", "cat /who; ls /www"}); code != 0 || out != who+"\nDockerfile.web\nindex.html\n" {
				t.Errorf("%d %q\n%s", code, out, &log)
			}
		})
	}
}

// TestPull brings an image into the registry and gets it back.
func TestPull(t *testing.T) {
	engine, err := tc.NewDockerClientWithOpts(t.Context())
	check(t, err)
	defer engine.Close()
	name := os.Getenv("REGISTRY") + "/testcontainers/busybox:1"
	_, err = engine.ImageTag(t.Context(), client.ImageTagOptions{Source: image, Target: name})
	check(t, err)
	pushed, err := engine.ImagePush(t.Context(), name, client.ImagePushOptions{RegistryAuth: "e30="})
	check(t, err)
	check(t, pushed.Wait(t.Context()))
	_, err = engine.ImageRemove(t.Context(), name, client.ImageRemoveOptions{})
	check(t, err)
	for _, options := range [][]tc.ContainerCustomizer{{}, {tc.WithAlwaysPull()}} {
		c, err := tc.Run(t.Context(), name, append(options, tc.WithCmd("sleep", "300"))...)
		tc.CleanupContainer(t, c, tc.StopTimeout(0))
		check(t, err)
	}
	provider, err := tc.NewDockerProvider()
	check(t, err)
	defer provider.Close()
	archive := filepath.Join(t.TempDir(), "images.tar")
	check(t, provider.SaveImages(t.Context(), archive, name, image))
	if about, err := os.Stat(archive); err != nil || about.Size() < 500_000 {
		t.Errorf("saved: %v %v", about, err)
	}
	list, err := provider.ListImages(t.Context())
	if err != nil || !strings.Contains(fmt.Sprint(list), name) {
		t.Errorf("images: %v %v", list, err)
	}
}
