// Command mkimage packs directories into an image archive that any engine loads: an OCI layout with a docker-archive manifest beside it.
//
//	mkimage -o OUT.tar -t NAME [-t NAME] [-config CONFIG.json] [-gzip=false] DIR...
//
// Each directory becomes a layer, lowest first. Device nodes 0:0 (overlay whiteouts) become OCI whiteouts.
package main

import (
	"flag"
	"fmt"
	"os"
	"strings"
)

type names []string

func (n *names) String() string     { return strings.Join(*n, ",") }
func (n *names) Set(s string) error { *n = append(*n, s); return nil }

func main() {
	var a archive
	flag.StringVar(&a.out, "o", "", "the archive to write")
	flag.Var((*names)(&a.names), "t", "a full name (registry/name:tag) for the image")
	flag.StringVar(&a.config, "config", "", "a file with the OCI image config's \"config\" object")
	flag.BoolVar(&a.gzip, "gzip", true, "compress the layers")
	flag.Parse()
	a.dirs = flag.Args()
	if err := a.write(); err != nil {
		fmt.Fprintf(os.Stderr, "mkimage: %v\n", err)
		os.Exit(1)
	}
}
