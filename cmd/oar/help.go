package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// command is one of oar's: what the help says of it, and what it does.
type command struct {
	name  string
	takes string // what stands after its options
	does  string // empty: not for people
	run   func(context.Context, flags) error
}

// commands in the order of the help.
func (r *store) commands() []command {
	return []command{
		{"create", "ID", "create a container, which then waits for start", r.create},
		{"start", "ID", "let a created container's program run", r.start},
		{"run", "ID", "create and start a container and wait for its end", r.run},
		{"exec", "ID COMMAND [ARGUMENT …], or --process FILE ID", "run one more process in a container", r.exec},
		{"state", "ID", "print a container's state as JSON", r.state},
		{"kill", "ID [SIGNAL]", "send a signal, TERM unless another is named, to a container's first process", r.kill},
		{"delete", "ID", "remove what is left of a container", r.delete},
		{"list", "", "list the containers below --root", r.list},
		{"ps", "ID [OPTIONS OF ps(1)]", "list a container's processes", r.ps},
		{"pause", "ID", "freeze all processes of a container", r.pause},
		{"resume", "ID", "let a paused container go on", r.resume},
		{"update", "ID", "change a container's limits", r.update},
		{"events", "ID", "print a container's counters at intervals, and kills for want of memory", r.events},
		{"checkpoint", "ID", "write a running container to disk, with criu", imager{r}.checkpoint},
		{"restore", "ID", "let a container go on that was written to disk, with criu", imager{r}.restore},
		{"spec", "", "write a configuration to begin with", writeSpec},
		{"explain", "[BUNDLE]", "say what a bundle isolates and how, each line with the command that proves it", r.explain},
		{"features", "", "print what this runtime can do as JSON", printFeatures},
		{"version", "", "print the version", printVersion},
		{"help", "[COMMAND]", "print this, or what a command takes", r.help},
		{"shim", "", "", runShim},
		{"init", "-- COMMAND [ARGUMENT …]", "", runInit},
		{"hello", "[--wait]", "", hello},
	}
}

// command runs one by its name.
func (r *store) command(ctx context.Context, name string, args []string) error {
	c, err := r.find(name)
	if err != nil {
		return err
	}
	if !r.given && !slices.Contains(aboutNoContainer(), name) {
		if r.root, err = userRoot(r.nested); err != nil {
			return err
		}
	}
	return c.run(ctx, newFlags(c, args))
}

// aboutNoContainer are the commands that look for no container's state.
func aboutNoContainer() []string {
	return []string{"spec", "features", "explain", "version", "help", "shim", "init", "hello"}
}

// find returns the command of a name.
func (r *store) find(name string) (command, error) {
	for _, c := range r.commands() {
		if c.name == name {
			return c, nil
		}
	}
	return command{}, fmt.Errorf("No help topic for '%[1]s': there is no command %[1]q; %[2]s help lists them", name, programName()) //nolint:staticcheck // runc's words
}

// programName is the name that this was called by: installed as runc, it says so.
func programName() string { return filepath.Base(os.Args[0]) }

const description = "Open Container Initiative runtime"

// help prints what there is, or what one command takes.
func (r *store) help(ctx context.Context, f flags) error {
	if len(f.args) == 0 {
		return r.overview(newFlags(command{}, nil))
	}
	c, err := r.find(f.args[0])
	if err != nil {
		return err
	}
	return c.run(ctx, newFlags(c, []string{"--help"}))
}

// overview is the help of oar itself.
func (r *store) overview(f flags) error {
	r.define(f)
	name := programName()
	fmt.Printf("NAME:\n   %s - %s\n\nUSAGE:\n   %s [OPTIONS] COMMAND [OPTIONS OF THE COMMAND] …\n\n", name, description, name)
	fmt.Print("   A container is made from a bundle: a folder with config.json and a root file system.\n\n",
		"      # ", name, " spec -b BUNDLE\n      # ", name, " run -b BUNDLE ID\n\nCOMMANDS:\n")
	for _, c := range r.commands() {
		if c.does != "" {
			fmt.Printf("   %-12s %s\n", c.name, c.does)
		}
	}
	fmt.Print("\nOPTIONS:\n")
	f.describe(os.Stdout)
	return nil
}

// explain is the help of one command.
func (f *flags) explain() {
	name := programName() + " " + f.command.name
	usage := name
	f.VisitAll(func(*flag.Flag) { usage = name + " [OPTIONS]" })
	fmt.Printf("NAME:\n   %s - %s\n\nUSAGE:\n   %s\n", name, f.command.does, strings.TrimSpace(usage+" "+f.command.takes))
	if usage != name {
		fmt.Print("\nOPTIONS:\n")
		f.describe(os.Stdout)
	}
}

// describe prints the options, an option's names on one line.
func (f *flags) describe(w io.Writer) {
	var all []*flag.Flag
	f.VisitAll(func(o *flag.Flag) { all = append(all, o) })
	slices.SortStableFunc(all, func(a, b *flag.Flag) int { return min(len(b.Name), 2) - min(len(a.Name), 2) })
	seen := map[flag.Value]bool{}
	for _, o := range all {
		if seen[o.Value] || o.Usage == hidden {
			continue
		}
		seen[o.Value] = true
		value, says := flag.UnquoteUsage(o)
		var names []string
		for _, other := range all {
			if other.Value == o.Value {
				names = append(names, strings.TrimSpace(dashes(other.Name)+" "+value))
			}
		}
		if o.DefValue != "" && o.DefValue != "false" && o.DefValue != "0" {
			says += fmt.Sprintf(" (%s unless given)", o.DefValue)
		}
		fmt.Fprintf(w, "   %-36s %s\n", strings.Join(names, ", "), says)
	}
}

func dashes(name string) string {
	if len(name) == 1 {
		return "-" + name
	}
	return "--" + name
}
