// Command reaper is what testcontainers expects in the image testcontainers/ryuk: it listens on port 8080 of its container, is told by its
// clients which labels their things carry, and removes all that carries them when the last client has gone and none has come back. It
// reaches the engine by the socket that is mounted at /var/run/docker.sock. The real one can be had from no package registry.
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"

	"github.com/moby/moby/client"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "reaper:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	engine, err := client.New(client.WithHost("unix:///var/run/docker.sock"))
	if err != nil {
		return err
	}
	defer engine.Close()
	if _, err := engine.Ping(ctx, client.PingOptions{}); err != nil {
		return fmt.Errorf("speak to the engine by the mounted socket: %w", err)
	}
	listener, err := net.Listen("tcp", ":8080")
	if err != nil {
		return err
	}
	defer listener.Close()
	first, again, err := limits()
	if err != nil {
		return err
	}
	fmt.Println("Started")
	wanted := watch(ctx, listener, first, again)
	return reap(context.WithoutCancel(ctx), engine, wanted)
}
