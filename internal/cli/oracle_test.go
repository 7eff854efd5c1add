package cli

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// recording answers GET requests with fixed bodies on a unix socket: what an engine might say. Two clients see the same engine.
type recording map[string]string

func (r recording) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	w.Header().Set("Api-Version", "1.50")
	w.Header().Set("Ostype", "linux")
	path := req.URL.Path
	if strings.HasPrefix(path, "/v1.") {
		path = path[strings.IndexByte(path[1:], '/')+1:]
	}
	if path == "/_ping" {
		fmt.Fprint(w, "OK")
		return
	}
	body, ok := r[path]
	w.Header().Set("Content-Type", "application/json")
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		body = `{"message":"no such thing: ` + path + `"}`
	}
	fmt.Fprint(w, body)
}

// serve starts the recording and returns its address.
func (r recording) serve(t *testing.T) string {
	t.Helper()
	return serveOn(t, r)
}

func serveOn(t *testing.T, h http.Handler) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: h}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	return "unix://" + socket
}

// docker runs the docker client of this machine against an address; its output is what ours has to be.
func docker(t *testing.T, host string, args ...string) string {
	t.Helper()
	program, err := exec.LookPath("docker")
	if err != nil {
		t.Skip("there is no docker client to compare with")
	}
	cmd := exec.Command(program, append([]string{"-H", host}, args...)...)
	cmd.Env = append(os.Environ(), "DOCKER_CONFIG="+t.TempDir())
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("docker %s: %v\n%s", strings.Join(args, " "), err, &stderr)
	}
	return stdout.String()
}
