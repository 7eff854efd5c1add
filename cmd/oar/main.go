// Command oar is Wherry's runtime: it runs OCI bundles, stands beside containers as their shim, and is the program of the built-in image.
//
//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"

	"wherry.dev/wherry/internal/criu"
)

// exitCode ends the process with a container's exit code and no message.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

func main() {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(1) // a command does one thing after another; to wake a second thread for each costs more than it gains
	}
	if hook := os.Getenv(criu.HookVariable); hook != "" {
		os.Exit(criu.Hooked(hook))
	}
	r := &store{}
	args, err := r.parse(os.Args[1:])
	if err == nil {
		err = r.command(context.Background(), args[0], args[1:])
	}
	var code exitCode
	if errors.As(err, &code) {
		os.Exit(int(code))
	}
	if err != nil {
		r.fail(err)
		os.Exit(1)
	}
}
