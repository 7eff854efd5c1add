package container

import (
	"errors"
	"os"
	"testing"
)

// Where this machine has a Docker, its socket is what was asked for.
func TestDockersSocketIsTheEngines(t *testing.T) {
	own := Options{Socket: "/run/own.sock"}
	for source, want := range map[string]string{"/var/run/docker.sock": own.Socket, "/run/docker.sock": own.Socket, "/run/docker.sock/x": "/run/docker.sock/x", "/etc": "/etc"} {
		if _, err := os.Lstat(source); !errors.Is(err, os.ErrNotExist) {
			want = source
		}
		if got := own.socketFor(source); got != want {
			t.Errorf("%s: %s is mounted, not %s", source, got, want)
		}
		if got := new(Options).socketFor(source); got != source {
			t.Errorf("%s, by an engine with no socket: %s", source, got)
		}
	}
}
