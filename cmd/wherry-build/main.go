// Command wherry-build builds images for `wherry build` and `wherry builder`, which start it: it links BuildKit's client, and wherry stays small.
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"wherry.dev/wherry/internal/buildclient"
	"wherry.dev/wherry/internal/threads"
	"wherry.dev/wherry/internal/version"
)

func main() {
	if len(os.Args) == 2 && os.Args[1] == "--version" {
		fmt.Println("wherry-build", version.Version)
		return
	}
	debug.SetGCPercent(400) // it lives for one command
	threads.Calm()
	log.SetOutput(io.Discard) // libraries tell of broken connections there; what a person is to know is an error
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // who asks twice is not kept waiting
	os.Exit(buildclient.Main(ctx, os.Args[1:]))
}
