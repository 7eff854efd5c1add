// Command wherry is the command line: it parses what it was told, asks the engine, and prints the answer.
//
//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0
package main

import (
	"context"
	"os"

	"wherry.dev/wherry/internal/cli"
	"wherry.dev/wherry/internal/threads"
)

func main() {
	threads.Calm()
	os.Exit(cli.Main(context.Background(), os.Args[1:], cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}))
}
