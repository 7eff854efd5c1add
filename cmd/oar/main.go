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
func commands(r *store) map[string]func(context.Context, []string) error {
	return map[string]func(context.Context, []string) error{
		"create": r.create, "start": r.start, "run": r.run, "state": r.state, "kill": r.kill, "delete": r.delete, "exec": r.exec, "list": r.list, "ps": r.ps,
		"pause": r.pause, "resume": r.resume, "update": r.update, "events": r.events, "spec": writeSpec, "features": printFeatures,
		"checkpoint": refuseCheckpoint, "restore": refuseCheckpoint,
		"shim": runShim, "init": runInit, "hello": hello, "version": printVersion,
	}
}

// exitCode ends the process with a container's exit code and no message.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

func main() {
	r := &store{}
	args, err := r.parse(os.Args[1:])
	if err == nil {
		command, ok := commands(r)[args[0]]
		if err = noCommand(args[0]); ok {
			err = command(context.Background(), args[1:])
		}
	}
	var code exitCode
	if errors.As(err, &code) {
		os.Exit(int(code))
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "oar: %s\n", strings.TrimSpace(err.Error()))
		r.logError(err)
		var program interface{ ExitCode() int }
		if errors.As(err, &program) { // it was not found, or is none
			os.Exit(program.ExitCode())
		}
		os.Exit(1)
	}
}
