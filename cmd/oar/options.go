package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"wherry.dev/wherry/internal/ociruntime"
)

// store holds the options that stand before the command.
type store struct {
	logger
	root    string // one folder per container, 0700
	given   bool   // --root was
	systemd bool
	manager string // of control groups, as crun's callers name it
	criu    string // for checkpoint and restore

	rootless string // "true", "false", "auto": control groups are optional
	inside   string // the user whose command this process runs in a user namespace that was made for it
	nested   bool   // this process is in a user namespace other than the machine's
}

// defaultRoot is where containers' states lie when --root does not say.
const defaultRoot = "/run/oar"

// define names runc's global options, and crun's word for one of them.
func (r *store) define(f flags) {
	f.text(&r.root, "root", defaultRoot, "where the containers' states lie: a `FOLDER`, best on a tmpfs")
	f.text(&r.file, "log", "", "the `FILE` to write errors, warnings and details to (standard error unless given)")
	f.text(&r.format, "log-format", "text", "the form of the log's lines: text or json")
	f.yes(&r.debug, "debug", "tell each step")
	f.yes(&r.systemd, "systemd-cgroup", "have systemd make the control groups, as scopes")
	f.text(&r.manager, "cgroup-manager", "", hidden)
	f.text(&r.rootless, "rootless", "auto", "whether containers do without control groups where none can be made: true, false or auto (for who is not root)")
	f.text(&r.inside, "inside", "", hidden)
	f.text(&r.criu, "criu", "criu", "the `PROGRAM` that writes containers to disk and back")
	f.text(new(string), "log-level", "", hidden)
}

// parse takes the global options and returns the command with its arguments.
func (r *store) parse(args []string) ([]string, error) {
	f := newFlags(command{}, args)
	f.ends = true
	r.define(f)
	var version bool
	f.yes(&version, "version v", "print the version")
	err := f.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		return []string{"help"}, nil
	}
	if err == nil {
		err = r.check()
	}
	if err != nil {
		return nil, err
	}
	f.Visit(func(o *flag.Flag) { r.given = r.given || o.Name == "root" })
	if r.given {
		if r.root, err = filepath.Abs(r.root); err != nil {
			return nil, err
		}
		if r.root == "/" {
			return nil, errors.New("--root must name a folder for the containers' states, not /")
		}
	}
	r.nested, _ = ociruntime.Nested() // without a procfs there are no containers to make either
	switch {
	case r.inside != "" && !r.nested:
		return nil, errors.New("--inside is what oar tells itself in a user namespace: leave it out")
	case r.rootless != "auto" && r.rootless != "true" && r.rootless != "false":
		return nil, fmt.Errorf("--rootless %q: it is true, false or auto", r.rootless)
	case r.manager == "systemd":
		r.systemd = true
	case r.manager != "" && r.manager != "cgroupfs":
		return nil, fmt.Errorf("--cgroup-manager %q: it is cgroupfs or systemd", r.manager)
	}
	switch {
	case version:
		return []string{"version"}, nil
	case f.NArg() == 0:
		return []string{"help"}, nil
	}
	return f.Args(), nil
}

// flags are a command's options and arguments.
type flags struct {
	*flag.FlagSet
	command command
	args    []string // as given
	ends    bool     // options end at the first argument: what follows is another program's
}

// hidden is said of options that are accepted for the sake of callers and of no use to people.
const hidden = "-"

func newFlags(c command, args []string) flags {
	f := flag.NewFlagSet(c.name, flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.Usage = func() {}
	return flags{FlagSet: f, command: c, args: args}
}

// parse reads the options, which may stand before and after the arguments (unless another program's follow), and answers --help.
func (f *flags) parse() error {
	var rest []string
	for args := f.args; ; {
		err := f.Parse(args)
		if errors.Is(err, flag.ErrHelp) {
			f.explain()
			return exitCode(0)
		}
		if err != nil {
			return f.wrong(err.Error())
		}
		read := len(args) - f.NArg()
		if f.ends || f.NArg() == 0 || read > 0 && args[read-1] == "--" {
			rest = append(rest, f.Args()...)
			break
		}
		rest, args = append(rest, f.Arg(0)), f.Args()[1:]
	}
	return f.Parse(append([]string{"--"}, rest...))
}

// wrong says what was wrong with a command's line, and what is right.
func (f *flags) wrong(what string) error {
	c := f.command
	return fmt.Errorf("%s; usage: %s", what, strings.TrimSpace(strings.Join([]string{programName(), c.name, "[OPTIONS]", c.takes}, " ")))
}

// parseCount parses the line of a command that takes so many arguments.
func (f *flags) parseCount(atLeast, atMost int) error {
	if err := f.parse(); err != nil {
		return err
	}
	n, name := f.NArg(), f.command.name
	switch {
	case n == atLeast || n > atLeast && n <= atMost:
		return nil
	case atLeast == atMost:
		return f.wrong(fmt.Sprintf("%q requires exactly %d argument(s)", name, atLeast))
	case n < atLeast:
		return f.wrong(fmt.Sprintf("%q requires a minimum of %d argument(s)", name, atLeast))
	}
	return f.wrong(fmt.Sprintf("%q requires a maximum of %d argument(s)", name, atMost))
}

// id parses the line of a command that takes a container's id and nothing else.
func (f *flags) id() (string, error) {
	if err := f.parseCount(1, 1); err != nil {
		return "", err
	}
	return f.Arg(0), checkID(f.Arg(0))
}

// text defines an option; names are its long and its short one.
func (f *flags) text(p *string, names, value, says string) {
	for name := range strings.FieldsSeq(names) {
		f.StringVar(p, name, value, says)
	}
}

func (f *flags) yes(p *bool, names, says string) {
	for name := range strings.FieldsSeq(names) {
		f.BoolVar(p, name, false, says)
	}
}

// many defines an option that may be given several times.
func (f *flags) many(p *texts, names, says string) {
	for name := range strings.FieldsSeq(names) {
		f.Var(p, name, says)
	}
}

// texts collects the values of an option.
type texts []string

func (t *texts) String() string     { return strings.Join(*t, ",") }
func (t *texts) Set(v string) error { *t = append(*t, v); return nil }

// checkID refuses names that are no folder of their own.
func checkID(id string) error {
	if id == "" {
		return errors.New("container id cannot be empty")
	}
	for _, c := range id {
		ok := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune("_+-.", c)
		if !ok {
			return fmt.Errorf("invalid container ID format: %q may have letters, digits and _ + - . only", id)
		}
	}
	if id == "." || id == ".." || len(id) > 255 {
		return fmt.Errorf("invalid container ID format: %q is not usable as a name", id)
	}
	return nil
}
