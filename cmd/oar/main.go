// Command oar is Wherry's runtime: it runs OCI bundles, stands beside containers as their shim, and is the program of the built-in image.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
)

// commands by name.
func commands() map[string]func(context.Context, []string) error {
	return map[string]func(context.Context, []string) error{
		"run": run, "shim": runShim, "init": runInit, "hello": hello, "version": printVersion, "--version": printVersion,
	}
}

// exitCode ends the process with a container's exit code and no message.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: oar run|shim|init|hello|version …")
		os.Exit(2)
	}
	command, ok := commands()[os.Args[1]]
	if !ok {
		fmt.Fprintf(os.Stderr, "oar: there is no command %q\n", os.Args[1])
		os.Exit(2)
	}
	err := command(context.Background(), os.Args[2:])
	var code exitCode
	if errors.As(err, &code) {
		os.Exit(int(code))
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "oar: %s\n", strings.TrimSpace(err.Error()))
		os.Exit(1)
	}
}
