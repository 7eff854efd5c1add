package cli

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"wherry.dev/wherry/internal/client"
	"wherry.dev/wherry/internal/contexts"
)

// contextCommands give engines names.
func contextCommands() []command {
	line := func(name, short string, build func(*App) *cobra.Command, also ...string) command {
		return command{name: name, also: also, group: groupOther, short: short, build: build}
	}
	return []command{
		line("context create", "Give an engine a name", contextCreateCommand),
		line("context update", "Change what a name stands for", contextUpdateCommand),
		line("context ls", "List the engines that have names", contextListCommand, "context list"),
		line("context inspect", "Print all about names of engines", contextInspectCommand),
		line("context use", "Choose the engine that commands speak to", contextUseCommand),
		line("context show", "Print the name of the engine that commands speak to", contextShowCommand),
		line("context rm", "Remove names of engines", contextRemoveCommand, "context remove"),
		line("context export", "Write a name with its address and certificates to a file", contextExportCommand),
		line("context import", "Take a name from such a file", contextImportCommand),
	}
}

// addressOf reads the value of --docker: host=…,ca=FILE,cert=FILE,key=FILE,skip-tls-verify=true, or from=CONTEXT.
func addressOf(app *App, text string, c *contexts.Context) error {
	fields, err := csv.NewReader(strings.NewReader(text)).Read()
	if err != nil {
		return fmt.Errorf("--docker %s: %w", text, err)
	}
	for _, f := range fields {
		key, value, ok := strings.Cut(f, "=")
		if !ok || value == "" {
			return fmt.Errorf("--docker %s: %q is no key=value", text, f)
		}
		switch key {
		case "host":
			c.Host = value
			if u, err := url.Parse(value); err != nil || u.Scheme == "" {
				return fmt.Errorf("--docker host=%s: give an address such as unix:///path, ssh://user@host or tcp://host:port", value)
			}
		case "ca", "cert", "key":
			b, err := os.ReadFile(value)
			if err != nil {
				return fmt.Errorf("--docker %s: %w", f, err)
			}
			c.TLS[key+".pem"] = b
		case "skip-tls-verify":
			if c.SkipVerify, err = strconv.ParseBool(value); err != nil {
				return fmt.Errorf("--docker %s: true or false", f)
			}
		case "from":
			if err := copyContext(app, value, c); err != nil {
				return err
			}
		default:
			return fmt.Errorf("--docker %s: there is host, ca, cert, key, skip-tls-verify and from, not %q", text, key)
		}
	}
	return nil
}

// copyContext takes the address of another one.
func copyContext(app *App, name string, into *contexts.Context) error {
	if name == contexts.Default {
		cl, err := client.New("")
		if err != nil {
			return err
		}
		into.Host = cl.Host()
		return nil
	}
	from, err := contexts.Store{Dir: app.Config}.Get(name)
	if err != nil {
		return err
	}
	into.Host, into.SkipVerify, into.TLS = from.Host, from.SkipVerify, from.TLS
	if into.Description == "" {
		into.Description = from.Description
	}
	return nil
}

func contextCreateCommand(app *App) *cobra.Command {
	var description, docker, from string
	c := &cobra.Command{Use: "create [OPTIONS] CONTEXT", Args: exactly(1), RunE: func(_ *cobra.Command, args []string) error {
		s := contexts.Store{Dir: app.Config}
		if err := contexts.CheckName(args[0]); err != nil {
			return err
		}
		if _, err := s.Get(args[0]); err == nil {
			return fmt.Errorf("context %q already exists: context update changes it", args[0])
		}
		one := contexts.Context{Name: args[0], Description: description, TLS: map[string][]byte{}}
		switch {
		case docker != "" && from != "":
			return errors.New("context create: --docker and --from both give an address: leave one of them out")
		case docker != "":
			if err := addressOf(app, docker, &one); err != nil {
				return err
			}
		default:
			if from == "" {
				from = client.CurrentContext(app.Choice)
			}
			if err := copyContext(app, from, &one); err != nil {
				return err
			}
		}
		return putContext(app, one, "created")
	}}
	c.Flags().StringVar(&description, "description", "", "What it is")
	c.Flags().StringVar(&docker, "docker", "", "Address: host=unix:///path or tcp://host:port or ssh://user@host; for TLS ca=FILE, cert=FILE, key=FILE")
	c.Flags().StringVar(&from, "from", "", "Take the address of another context")
	return c
}

func putContext(app *App, c contexts.Context, done string) error {
	if err := (contexts.Store{Dir: app.Config}).Put(c); err != nil {
		return err
	}
	fmt.Fprintf(app.Err, "Successfully %s context %q\n", done, c.Name)
	_, err := fmt.Fprintln(app.Out, c.Name)
	return err
}

func contextUpdateCommand(app *App) *cobra.Command {
	var description, docker string
	c := &cobra.Command{Use: "update [OPTIONS] CONTEXT", Args: exactly(1), RunE: func(cmd *cobra.Command, args []string) error {
		one, err := contexts.Store{Dir: app.Config}.Get(args[0])
		if err != nil {
			return err
		}
		if cmd.Flags().Changed("description") {
			one.Description = description
		}
		if docker != "" {
			one.Host, one.SkipVerify, one.TLS = "", false, map[string][]byte{}
			if err := addressOf(app, docker, &one); err != nil {
				return err
			}
		}
		return putContext(app, one, "updated")
	}}
	c.Flags().StringVar(&description, "description", "", "What it is")
	c.Flags().StringVar(&docker, "docker", "", "Address, as of context create")
	return c
}

func contextRemoveCommand(app *App) *cobra.Command {
	var force bool
	c := &cobra.Command{Use: "rm [OPTIONS] CONTEXT...", Args: atLeast(1), RunE: func(cmd *cobra.Command, args []string) error {
		s := contexts.Store{Dir: app.Config}
		return each(cmd.Context(), app, args, func(name string) error {
			if name == contexts.Default {
				return errors.New("context default cannot be removed: it is what no name stands for")
			}
			used := client.CurrentContext(app.Choice) == name
			if used && !force {
				return fmt.Errorf("context %s is in use: choose another one (context use default), or give --force", name)
			}
			if err := s.Remove(name); err != nil {
				return err
			}
			if used {
				if err := chooseContext(app, contexts.Default); err != nil {
					return err
				}
			}
			_, err := fmt.Fprintln(app.Out, name)
			return err
		})
	}}
	c.Flags().BoolVarP(&force, "force", "f", false, "Remove it even where it is in use")
	return c
}

func contextExportCommand(app *App) *cobra.Command {
	return &cobra.Command{Use: "export CONTEXT [FILE|-]", Args: between(1, 2), RunE: func(_ *cobra.Command, args []string) error {
		s := contexts.Store{Dir: app.Config}
		file := args[0] + ".dockercontext"
		if len(args) == 2 {
			file = args[1]
		}
		if file == "-" {
			if _, ok := terminal(app.Out); ok {
				return errors.New("an archive is nothing for a terminal: give a file, or send the output on")
			}
			return s.Export(args[0], app.Out)
		}
		if _, err := s.Get(args[0]); err != nil {
			return err
		}
		f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600) // there may be a key in it
		if err != nil {
			return fmt.Errorf("export the context %s: %w", args[0], err)
		}
		if err := errors.Join(s.Export(args[0], f), f.Close()); err != nil {
			return err
		}
		fmt.Fprintf(app.Err, "Written file %q\n", file)
		return nil
	}}
}

func contextImportCommand(app *App) *cobra.Command {
	return &cobra.Command{Use: "import CONTEXT FILE|-", Args: exactly(2), RunE: func(_ *cobra.Command, args []string) error {
		in := app.In
		if args[1] != "-" {
			f, err := os.Open(args[1])
			if err != nil {
				return err
			}
			defer f.Close()
			in = io.Reader(f)
		}
		if err := (contexts.Store{Dir: app.Config}).Import(args[0], in); err != nil {
			return err
		}
		fmt.Fprintf(app.Err, "Successfully imported context %q\n", args[0])
		_, err := fmt.Fprintln(app.Out, args[0])
		return err
	}}
}
