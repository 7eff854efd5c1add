package test

import (
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestBuild runs each script of testdata/build twice: with wherry, and with the docker command line and its buildx plugin.
func TestBuild(t *testing.T) {
	for _, client := range []string{"wherry", "docker"} {
		t.Run(client, func(t *testing.T) { runBuildScripts(t, "testdata/build", client) })
	}
}

// TestBuilders runs the scripts about the other clients: docker without buildx, bake, compose, buildctl.
func TestBuilders(t *testing.T) { runBuildScripts(t, "testdata/builders", "docker") }

// runBuildScripts gives scripts the clients that test/clients builds, and a server of files and Git repositories ($SERVER/<path below $WORK>).
func runBuildScripts(t *testing.T, dir, client string) {
	clients := filepath.Join(repository(), ".cache/clients")
	if _, err := os.Stat(clients + "/buildctl"); err != nil {
		t.Fatalf("%v: run `make images`, which builds it", err)
	}
	runScripts(t, dir, client, func(env *testscript.Env) error {
		server := httptest.NewServer(serveFilesAndGit(env.WorkDir))
		env.Defer(server.Close)
		env.Setenv("SERVER", server.URL)
		env.Setenv("PATH", env.Getenv("PATH")+":"+clients+":"+clients+"/node/node_modules/.bin")
		env.Setenv("GIT_CONFIG_GLOBAL", filepath.Join(repository(), "test/testdata/gitconfig"))
		return os.Symlink(clients+"/cli-plugins", filepath.Join(env.WorkDir, ".docker/cli-plugins"))
	})
}

// serveFilesAndGit serves a directory: what is below a name that ends in .git as Git's smart protocol, the rest as files.
func serveFilesAndGit(dir string) http.Handler {
	files := http.FileServer(http.Dir(dir))
	exec, _ := exec.Command("git", "--exec-path").Output()
	git := &cgi.Handler{Path: strings.TrimSpace(string(exec)) + "/git-http-backend", Env: []string{"GIT_PROJECT_ROOT=" + dir, "GIT_HTTP_EXPORT_ALL=1"}}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, ".git/") {
			git.ServeHTTP(w, r)
			return
		}
		files.ServeHTTP(w, r)
	})
}

// withBuildx gives the docker command line of a test its plugins.
func withBuildx(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	ok(t, os.Symlink(filepath.Join(repository(), ".cache/clients/cli-plugins"), filepath.Join(dir, "cli-plugins")))
	t.Setenv("DOCKER_CONFIG", dir)
}
