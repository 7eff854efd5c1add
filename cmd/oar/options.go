package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

const usage = `usage: oar [--root FOLDER] [--log FILE] [--log-format text|json] COMMAND …
commands: create start run exec state kill delete list ps pause resume update events spec features version; shim init hello`

// store holds the options that stand before the command.
type store struct {
	root      string // one folder per container, 0700
	log       string
	logFormat string
	systemd   bool
}

// defaultRoot is where containers' states lie when --root does not say.
const defaultRoot = "/run/oar"

// parse takes runc's global options and returns the command with its arguments.
func (r *store) parse(args []string) ([]string, error) {
	f := newFlags("oar", usage)
	f.StringVar(&r.root, "root", defaultRoot, "")
	f.StringVar(&r.log, "log", "", "")
	f.StringVar(&r.logFormat, "log-format", "text", "")
	f.BoolVar(&r.systemd, "systemd-cgroup", false, "")
	f.Bool("debug", false, "")
	f.String("criu", "", "")
	f.String("rootless", "auto", "")
	version := f.Bool("version", false, "")
	f.BoolVar(version, "v", false, "")
	if err := f.parse(args); err != nil {
		return nil, err
	}
	switch {
	case *version:
		return []string{"version"}, nil
	case f.NArg() == 0:
		return nil, errors.New(usage)
	case r.logFormat != "text" && r.logFormat != "json":
		return nil, fmt.Errorf("--log-format %q: it is text or json", r.logFormat)
	}
	return f.Args(), nil
}

func noCommand(name string) error { return fmt.Errorf("there is no command %q; %s", name, usage) }

// logError writes what ended the command where the caller reads it: a line as runc writes it.
func (r *store) logError(err error) {
	if r.log == "" {
		return
	}
	f, e := os.OpenFile(r.log, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if e != nil {
		return
	}
	defer f.Close()
	now, text := time.Now().Format(time.RFC3339), strings.TrimSpace(err.Error())
	if r.logFormat == "text" {
		fmt.Fprintf(f, "time=%q level=error msg=%q\n", now, text)
		return
	}
	_ = json.NewEncoder(f).Encode(map[string]string{"level": "error", "msg": text, "time": now})
}

// warn tells of something that did not stop the command.
func warn(format string, args ...any) { fmt.Fprintf(os.Stderr, "oar: warning: "+format+"\n", args...) }

// flags are a command's options; what is wrong with them is said in one line.
type flags struct {
	*flag.FlagSet
	usage string
}

func newFlags(name, usage string) flags {
	f := flag.NewFlagSet(name, flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.Usage = func() {}
	return flags{f, usage}
}

func (f flags) parse(args []string) error {
	err := f.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Println(f.usage)
		return exitCode(0)
	}
	if err != nil {
		return fmt.Errorf("%w; %s", err, f.usage)
	}
	return nil
}

// id parses the options of a command that takes a container's id and nothing else.
func (f flags) id(args []string) (string, error) {
	if err := f.parse(args); err != nil {
		return "", err
	}
	if f.NArg() != 1 {
		return "", errors.New(f.usage)
	}
	return f.Arg(0), checkID(f.Arg(0))
}

// both defines an option's long and short name.
func (f flags) both(p *string, long, short, value string) {
	f.StringVar(p, long, value, "")
	f.StringVar(p, short, value, "")
}

func (f flags) bothBool(p *bool, long, short string) {
	f.BoolVar(p, long, false, "")
	f.BoolVar(p, short, false, "")
}

// texts collects an option that may be given several times.
type texts []string

func (t *texts) String() string     { return strings.Join(*t, ",") }
func (t *texts) Set(v string) error { *t = append(*t, v); return nil }

// checkID refuses names that are no folder of their own.
func checkID(id string) error {
	for _, c := range id {
		ok := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune("_+-.", c)
		if !ok {
			return fmt.Errorf("container id %q: it may have letters, digits and _ + - . only", id)
		}
	}
	if id == "" || id == "." || id == ".." || len(id) > 255 {
		return fmt.Errorf("container id %q is not usable as a name", id)
	}
	return nil
}
