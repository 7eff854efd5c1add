package test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// composes are the two programs that read compose files: docker's plugin, and the older one in Python, which shares no code with it.
var composes = map[string]string{
	"plugin": "exec docker compose \"$@\"\n",
	"python": "exec docker-compose \"$@\"\n",
}

// TestCompose runs each script of testdata/compose with docker's plugin, and those below testdata/compose/both with the older program too.
// Scripts call `compose`.
func TestCompose(t *testing.T) {
	t.Run("plugin", func(t *testing.T) { runComposeScripts(t, "testdata/compose", "plugin") })
	for name := range composes {
		t.Run("both/"+name, func(t *testing.T) { runComposeScripts(t, "testdata/compose/both", name) })
	}
}

func runComposeScripts(t *testing.T, dir, program string) {
	runScripts(t, dir, "docker", func(env *testscript.Env) error {
		bin := filepath.Join(env.WorkDir, ".bin")
		if err := os.Mkdir(bin, 0o700); err != nil {
			return err
		}
		env.Setenv("PATH", bin+":"+env.Getenv("PATH"))
		env.Setenv("PROGRAM", program)
		if err := os.WriteFile(filepath.Join(bin, "compose"), []byte("#!/bin/sh\n"+composes[program]), 0o700); err != nil {
			return err
		}
		return os.Symlink(filepath.Join(clientsDir(), "cli-plugins"), filepath.Join(env.WorkDir, ".docker/cli-plugins"))
	})
}
