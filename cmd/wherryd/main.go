// Command wherryd is the engine: it keeps all state and serves the Docker Engine API on unix sockets. It is no container's parent, so it
// may end at any moment without touching one.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"wherry.dev/wherry/internal/version"
)

func main() {
	o, err := parse(os.Args[1:], os.Stdout)
	switch {
	case errors.Is(err, errHelp):
		return
	case err != nil:
		fail(os.Stderr, 2, err)
	case o.version:
		fmt.Println("wherryd", version.Version)
		return
	case o.check:
		if err := o.set.Write(os.Stdout); err != nil {
			fail(os.Stderr, 1, err)
		}
		return
	}
	frugal()
	signal.Ignore(syscall.SIGHUP, syscall.SIGPIPE) // the first has the rules of access read again, once there is something to have them
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: o.level}))
	if err := run(ctx, o, log); err != nil {
		fail(os.Stderr, 1, err)
	}
}

func fail(w io.Writer, code int, err error) {
	fmt.Fprintf(w, "wherryd: %v\n", err)
	os.Exit(code)
}
