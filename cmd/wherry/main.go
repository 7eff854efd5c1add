// Command wherry is the command line: it parses what it was told, asks the engine, and prints the answer.
//
// The number of processors is the machine's: to learn a quota of the control group would cost each start ten system calls.
//
//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0
package main

import (
	"context"
	"os"

	"wherry.dev/wherry/internal/cli"
)

func main() {
	os.Exit(cli.Main(context.Background(), os.Args[1:], cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}))
}
