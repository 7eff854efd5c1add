// Command frontend is a frontend for builds that stands in an image of its own, as the end-to-end tests need one. Each line of what it is given
// is a word and its argument: `file NAME TEXT` makes a file, `run COMMAND` runs one in busybox:1, `self` makes a file of what the frontend sees of
// its own rights, `die` ends it without an answer.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"

	"github.com/moby/buildkit/frontend/gateway/grpcclient"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := grpcclient.RunFromEnvironment(ctx, build); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
