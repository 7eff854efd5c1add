// Command wherry-verify judges the signatures of one image: the engine starts it with a question on standard input and reads the answer from
// its standard output. It confines itself before it reads anything.
package main

import (
	"context"
	"fmt"
	"os"

	"wherry.dev/wherry/internal/verify"
	"wherry.dev/wherry/internal/version"
)

func main() {
	if len(os.Args) == 2 && os.Args[1] == "--version" {
		fmt.Println("wherry-verify", version.Version)
		return
	}
	err := verify.Confine()
	if err == nil {
		err = verify.Main(context.Background(), os.Stdin, os.Stdout)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "wherry-verify: %v\n", err)
		os.Exit(1)
	}
}
