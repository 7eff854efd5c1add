package container

import (
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"
)

// TestWithoutDescriptors: an engine that can open nothing more says so, and not that a container that runs does not.
func TestWithoutDescriptors(t *testing.T) {
	e := newEngine(t)
	id := e.run(request{name: "runs", cmd: sh("sleep 3600")})
	execID, err := e.ExecCreate(t.Context(), id, container.ExecCreateRequest{Cmd: []string{"true"}, AttachStdout: true})
	if err != nil {
		t.Fatal(err)
	}
	var had unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &had); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 4, Max: had.Max}); err != nil {
		t.Fatal(err)
	}
	_, viewed := e.View(t.Context(), id)
	started := e.ExecStart(t.Context(), execID, ExecStreams{Stdout: io.Discard})
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &had); err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{"view": viewed, "exec": started} {
		if !errors.Is(err, unix.EMFILE) || strings.Contains(err.Error(), "not running") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if v, err := e.View(t.Context(), id); err != nil || !v.Running {
		t.Errorf("then: %v %v", v.Running, err)
	} else {
		v.Init.Close()
	}
}
