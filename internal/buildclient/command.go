package buildclient

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/sirupsen/logrus"
	"github.com/spf13/pflag"

	"wherry.dev/wherry/internal/buildopt"
	"wherry.dev/wherry/internal/client"
	"wherry.dev/wherry/internal/login"
)

// Main runs a command line that `wherry` passed on: --host, --config, then a command and its words. It gives the exit status.
func Main(ctx context.Context, args []string) int {
	logrus.SetFormatter(lines{})
	err := run(ctx, args)
	var exit *ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit) && exit.Cause == nil:
		return exit.Code
	}
	fmt.Fprintf(os.Stderr, "wherry: %s\n", strings.TrimSpace(err.Error()))
	return ExitCode(err)
}

func run(ctx context.Context, args []string) error {
	fs := pflag.NewFlagSet("wherry-build", pflag.ContinueOnError)
	fs.SetInterspersed(false)
	host := fs.String("host", "", "Engine to speak to")
	config := fs.String("config", "", "Directory of config.json")
	if err := fs.Parse(args); err != nil {
		return &ExitError{Code: 125, Cause: err}
	}
	if fs.NArg() == 0 {
		return &ExitError{Code: 125, Cause: errors.New("this program builds images for wherry: run wherry build")}
	}
	if in := fs.Args(); len(in) == 3 && in[0] == "cache-pack" {
		return pack(ctx, in[1], in[2])
	} else if len(in) == 3 && in[0] == "cache-unpack" {
		return unpack(ctx, in[1], in[2])
	}
	engine, err := client.New(*host)
	if err != nil {
		return err
	}
	logins, err := login.Read(*config)
	if err != nil {
		return err
	}
	c, err := New(ctx, engine.Dial)
	if err != nil {
		return err
	}
	defer c.Close()
	c.Login = logins
	return c.command(ctx, fs.Arg(0), fs.Args()[1:])
}

// command runs one of the commands by its name.
func (c *Client) command(ctx context.Context, name string, args []string) error {
	fs := pflag.NewFlagSet(name, pflag.ContinueOnError)
	parse := func() error {
		if err := fs.Parse(args); err != nil {
			return &ExitError{Code: 125, Cause: err}
		}
		return nil
	}
	switch name {
	case "build":
		var o buildopt.Options
		o.Register(fs)
		if err := parse(); err != nil {
			return err
		}
		if o.Context = fs.Arg(0); fs.NArg() != 1 {
			return &ExitError{Code: 125, Cause: errors.New("build wants one context: a directory, - or an address")}
		}
		if err := o.Validate(); err != nil {
			return err
		}
		return c.Build(ctx, &o)
	case "du":
		var u buildopt.Usage
		u.Register(fs)
		if err := parse(); err != nil {
			return err
		}
		return c.Usage(ctx, u)
	case "prune":
		var p buildopt.Prune
		p.Register(fs)
		if err := parse(); err != nil {
			return err
		}
		return c.Prune(ctx, p)
	case "cache":
		var m buildopt.Mounts
		m.Register(fs)
		if err := parse(); err != nil {
			return err
		}
		if err := m.Take(fs.Args()); err != nil {
			return err
		}
		return c.Mounts(ctx, m)
	}
	return &ExitError{Code: 125, Cause: fmt.Errorf("there is no command %s", name)}
}

// lines is how warnings of the libraries are printed.
type lines struct{}

// Format makes a line of a warning; what only says that the file system is an older one is none.
func (lines) Format(e *logrus.Entry) ([]byte, error) {
	if strings.Contains(e.Message, "fsverity") {
		return nil, nil
	}
	return fmt.Appendf(nil, "%s: %s\n", e.Level, e.Message), nil
}
