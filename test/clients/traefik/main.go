// Command traefik is Traefik's provider for Docker and its matcher of rules, unmodified, with a plain reverse proxy behind them. All of
// Traefik cannot be had: modules that its middlewares and certificate providers need are on no proxy.
//
// It serves on port 8000 what containers ask for by their labels, and finds the engine at /var/run/docker.sock.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "traefik:", err)
		os.Exit(1)
	}
}
