// Package cli is the command line: one file for each command or small group of them, each of which parses, calls the engine and prints.
//
// Starting fast is a feature. Main looks at the words first and builds only the command that they choose; nothing is made at package level,
// and the engine is not dialled before a command asks for it. Nothing here lives longer than one call of Main.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"wherry.dev/wherry/internal/client"
	"wherry.dev/wherry/internal/version"
)

// Streams of the process. In, Out and Err are terminals where they are *os.File and the kernel says so.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
}

// App is what commands work with.
type App struct {
	Streams
	Client func() (*client.Client, error) // made at the first call, then the same one
	Choice client.Choice                  // of Client
	Config string                         // directory of config.json
	Debug  bool
}

// exitError ends the program with a status of its own. A nil err says nothing: what is to be said was said.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit status %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// Main runs a command line and gives its exit status.
func Main(ctx context.Context, args []string, s Streams) int {
	err := run(ctx, args, s)
	var exit *exitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		if exit.err != nil {
			printError(s.Err, exit.err)
		}
		return exit.code
	}
	printError(s.Err, err)
	return 1
}

func printError(w io.Writer, err error) {
	fmt.Fprintf(w, "wherry: %s\n", printable(shortenIDs(withoutPreamble(strings.TrimSpace(err.Error())))))
}

func run(ctx context.Context, args []string, s Streams) error {
	g, rest, err := parseGlobals(args)
	if err != nil {
		return &exitError{125, err}
	}
	if g.version {
		_, err := fmt.Fprintf(s.Out, "Wherry version %s\n", version.Version)
		return err
	}
	app := newApp(g, s)
	if len(rest) > 0 && rest[0] == "help" {
		g.help, rest = true, rest[1:]
	}
	if len(rest) == 0 {
		return printHelp(s.Out, commands())
	}
	if strings.HasPrefix(rest[0], cobra.ShellCompRequestCmd) || rest[0] == "completion" {
		return complete(ctx, app, rest)
	}
	name, cmd, rest, err := choose(rest)
	switch {
	case err != nil:
		return err
	case cmd == nil:
		return printGroup(s.Out, name)
	case g.help:
		rest = []string{"--help"}
	}
	c := cmd.build(app)
	frame(c, "wherry "+name, cmd)
	return execute(ctx, app, c, rest)
}

// complete answers shells, which put what was typed so far behind a word of their own.
func complete(ctx context.Context, app *App, words []string) error {
	if words[0] == "completion" {
		shell := words[min(1, len(words)-1)]
		if len(words) == 1 || slices.Contains(words, "--help") || slices.Contains(words, "-h") {
			_, err := io.WriteString(app.Out, fold(completionHelp, helpWidth(app.Out)))
			return err
		} else if shells := []string{"bash", "zsh", "fish", "powershell"}; !slices.Contains(shells, shell) {
			return fmt.Errorf("completion: unknown shell %q: it can be bash, zsh or fish", shell)
		}
	}
	g, typed, err := parseGlobals(words[1:])
	if err == nil && words[0] != "completion" && len(typed) > 0 {
		app.Client = newApp(g, app.Streams).Client
		words = append(words[:1:1], typed...)
	}
	return execute(ctx, app, wholeTree(app), words)
}

func newApp(g globals, s Streams) *App {
	app := &App{Streams: s, Config: g.config, Debug: g.debug,
		Choice: client.Choice{Host: g.host, Context: g.context, TLS: g.tls, Config: g.config}}
	var c *client.Client
	app.Client = func() (_ *client.Client, err error) {
		if c == nil {
			c, err = client.Find(app.Choice)
			if err == nil && g.debug {
				c.Trace = func(method, path string, status int, took time.Duration) {
					fmt.Fprintf(s.Err, "debug: %s %s: %d after %s\n", method, path, status, took.Round(10*time.Microsecond))
				}
			}
		}
		return c, err
	}
	return app
}

func execute(ctx context.Context, app *App, c *cobra.Command, args []string) error {
	c.SetArgs(args)
	c.SetIn(app.In)
	c.SetOut(app.Out)
	c.SetErr(app.Err)
	return suggest(ctx, app, c.ExecuteContext(ctx))
}

// globals are the flags before the command.
type globals struct {
	host, context        string
	config               string
	level                string // Docker's client has a log; this one has warnings, which are always said
	tls                  client.TLS
	debug, version, help bool
}

// parseGlobals reads flags up to the first word that is none.
func parseGlobals(args []string) (g globals, rest []string, err error) {
	g.config = configDir()
	for len(args) > 0 && strings.HasPrefix(args[0], "-") && args[0] != "-" {
		flag, value, has := strings.Cut(args[0], "=")
		args = args[1:]
		if !strings.HasPrefix(flag, "--") && len(flag) > 2 && strings.ContainsRune("Hcl", rune(flag[1])) {
			flag, value, has = flag[:2], flag[2:]+strings.Repeat("=", btoi(has))+value, true
		}
		var into *string
		switch flag {
		case "-H", "--host":
			into = &g.host
		case "-c", "--context":
			into = &g.context
		case "--config":
			into = &g.config
		case "--tlscacert":
			into = &g.tls.CA
		case "--tlscert":
			into = &g.tls.Cert
		case "--tlskey":
			into = &g.tls.Key
		case "-l", "--log-level":
			into = &g.level
		case "--tls", "--tlsverify": // there is no other way
		case "-D", "--debug":
			g.debug = true
		case "-v", "--version":
			g.version = true
		case "-h", "--help":
			g.help = true
		case "--":
			return g, args, nil
		default:
			return g, nil, unknownFlag(flag, []string{"--host", "--context", "--config", "--debug", "--version", "--help", "--tlscacert", "--tlscert", "--tlskey"}, "wherry --help")
		}
		if into == nil {
			continue
		}
		if !has {
			if len(args) == 0 {
				return g, nil, fmt.Errorf("flag %s needs a value", flag)
			}
			value, args = args[0], args[1:]
		}
		*into = value
	}
	if levels := []string{"", "debug", "info", "warn", "error", "fatal"}; !slices.Contains(levels, g.level) {
		return g, nil, fmt.Errorf("--log-level %s: it can be %s", g.level, strings.Join(levels[1:], ", "))
	}
	return g, args, nil
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// configDir is where docker keeps config.json too, so that a login counts for both.
func configDir() string {
	if dir := os.Getenv("DOCKER_CONFIG"); dir != "" {
		return dir
	}
	home, err := os.UserHomeDir()
	if err != nil {
		home = "/root"
	}
	return filepath.Join(home, ".docker")
}
