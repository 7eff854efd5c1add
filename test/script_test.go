package test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestBoth runs each script of testdata/both twice: with wherry and with the unmodified docker command line.
func TestBoth(t *testing.T) {
	for _, client := range []string{"wherry", "docker"} {
		t.Run(client, func(t *testing.T) { runScripts(t, "testdata/both", client) })
	}
}

// TestWherry runs the scripts about what only Wherry has or says.
func TestWherry(t *testing.T) { runScripts(t, "testdata/wherry", "wherry") }

func runScripts(t *testing.T, dir, client string, setup ...func(*testscript.Env) error) {
	work, err := os.MkdirTemp(shared.dir, client+"-")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 dir,
		WorkdirRoot:         work,
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			docker := filepath.Join(env.WorkDir, ".docker")
			if err := os.MkdirAll(docker, 0o700); err != nil {
				return err
			}
			env.Vars = append(env.Vars, shared.engine.environment()...)
			env.Setenv("CLIENT", client)
			env.Setenv("DOCKER_CONFIG", docker)
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("REGISTRY", registryAddress)
			env.Setenv("IMAGES", shared.images)
			env.Setenv("BIN", shared.bin)
			env.Setenv("REPO", repository())
			env.Setenv("PATH", shared.bin+":"+os.Getenv("PATH"))
			if client == "docker" && dir == "testdata/both" {
				bin, err := dockerCalls.note()
				if err != nil {
					return err
				}
				env.Setenv("PATH", bin+":"+shared.bin+":"+os.Getenv("PATH"))
			}
			for _, f := range setup {
				if err := f(env); err != nil {
					return err
				}
			}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":      cmdExits,
			"eventually": cmdEventually,
			"engine":     cmdEngine,
			"setenv":     cmdSetenv,
			"sign":       cmdSign,
		},
	})
}

// cmdExits: `exits CODE command args…` runs a command that must end with just that code; its output can be matched afterwards.
func cmdExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE command args…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit code %d, not %d", got, want)
	}
}

// cmdEventually: `eventually [-match TEXT] command args…` repeats a command until it succeeds (and prints TEXT).
func cmdEventually(ts *testscript.TestScript, neg bool, args []string) {
	match := ""
	if len(args) > 2 && args[0] == "-match" {
		match, args = args[1], args[2:]
	}
	err := eventually(30*time.Second, func() error {
		err := ts.Exec(args[0], args[1:]...)
		if out := ts.ReadFile("stdout") + ts.ReadFile("stderr"); err == nil && !strings.Contains(out, match) {
			err = fmt.Errorf("no %q in its output", match)
		}
		if neg {
			if err == nil {
				return errors.New("it still succeeds")
			}
			return nil
		}
		return err
	})
	if err != nil {
		ts.Fatalf("%s: %v", strings.Join(args, " "), err)
	}
}

// cmdSetenv: `setenv NAME command args…` puts a command's trimmed output into a variable.
func cmdSetenv(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: setenv NAME command args…")
	}
	ts.Check(ts.Exec(args[1], args[2:]...))
	ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile("stdout")))
}

type engineKey struct{ ts *testscript.TestScript }

var (
	enginesMu sync.Mutex // guards engines: scripts run side by side
	engines   = map[engineKey]*engine{}
)

// cmdEngine: `engine new [flags…]` starts an engine of the script's own (with the busybox image) and points the clients at it;
// `engine kill` is kill -9, `engine stop` SIGTERM, `engine start` starts it again, `engine load NAME` loads an image archive.
func cmdEngine(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: engine new|kill|stop|start|load")
	}
	enginesMu.Lock()
	e := engines[engineKey{ts}]
	enginesMu.Unlock()
	if e == nil && args[0] != "new" {
		ts.Fatalf("engine %s before engine new", args[0])
	}
	switch args[0] {
	case "new":
		dir, err := os.MkdirTemp(shared.dir, "engine-")
		ts.Check(err)
		e = newEngine(shared, dir)
		e.args = args[1:]
		ts.Check(e.start())
		enginesMu.Lock()
		engines[engineKey{ts}] = e
		enginesMu.Unlock()
		ts.Defer(func() {
			if err := e.shutdown(); err != nil {
				ts.Fatalf("%v", err)
			}
		})
		for _, variable := range e.environment() {
			name, value, _ := strings.Cut(variable, "=")
			ts.Setenv(name, value)
		}
		ts.Setenv("ENGINE", e.dir)
		ts.Setenv("ENGINE_PID", strconv.Itoa(e.cmd.Process.Pid))
		ts.Check(e.load("busybox-1"))
	case "kill":
		ts.Check(e.kill())
	case "stop":
		ts.Check(e.stop())
	case "start":
		ts.Check(e.start())
		ts.Setenv("ENGINE_PID", strconv.Itoa(e.cmd.Process.Pid))
	case "load":
		for _, name := range args[1:] {
			ts.Check(e.load(name))
		}
	default:
		ts.Fatalf("engine %s: unknown", args[0])
	}
}
