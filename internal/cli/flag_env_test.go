package cli

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/moby/moby/api/types/container"
)

// TestProxiesOfConfigReachContainers: as with Docker's client, "proxies" of config.json become variables where the command line names no others.
func TestProxiesOfConfigReachContainers(t *testing.T) {
	rec := &createRecorder{}
	host := serveRecorder(t, rec)
	dir := t.TempDir()
	text := `{"proxies":{"default":{"httpProxy":"http://p:1","httpsProxy":"http://p:2","noProxy":"lan"}}}`
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	env := func() []string {
		_, body := rec.take()
		var req container.CreateRequest
		if err := json.Unmarshal(body, &req); err != nil || req.Config == nil {
			t.Fatalf("%v in %q", err, body)
		}
		slices.Sort(req.Env)
		return req.Env
	}
	args := []string{"create", "-e", "A=1", "-e", "HTTPS_PROXY=", "-e", "no_proxy=own", "busybox"}
	wherryWith(t, nil, append([]string{"--config", dir, "--host", host}, args...)...)
	got := env()
	want := []string{"A=1", "HTTPS_PROXY=", "HTTP_PROXY=http://p:1", "NO_PROXY=lan", "http_proxy=http://p:1", "https_proxy=http://p:2", "no_proxy=own"}
	if !slices.Equal(got, want) {
		t.Errorf("the variables are %q, not %q", got, want)
	}
	if program, err := exec.LookPath("docker"); err == nil {
		cmd := exec.Command(program, append([]string{"--config", dir, "-H", host}, args...)...)
		_ = cmd.Run() // the recorder makes nothing
		if dockers := env(); !slices.Equal(dockers, want) {
			t.Errorf("docker's are %q", dockers)
		}
	}
}

func TestEnvWithAStar(t *testing.T) {
	t.Setenv("STARRY_A", "1")
	t.Setenv("STARRY_B", "2 3")
	var e envFlag
	for _, s := range []string{"STARRY_*", "X=*", "NOTHING_IS_CALLED_SO*"} {
		if err := e.Set(s); err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(e.values)
	if want := []string{"STARRY_A=1", "STARRY_B=2 3", "X=*"}; !slices.Equal(e.values, want) {
		t.Errorf("%q", e.values)
	}
}
