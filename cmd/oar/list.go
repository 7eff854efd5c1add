package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"text/tabwriter"
	"time"
)

// list prints the containers below --root.
func (r *store) list(_ context.Context, args []string) error {
	f := newFlags("list", "usage: oar list [--format table|json] [--quiet]")
	var format string
	var quiet bool
	f.both(&format, "format", "f", "table")
	f.bothBool(&quiet, "quiet", "q")
	if err := f.parse(args); err != nil {
		return err
	}
	if f.NArg() > 0 || format != "table" && format != "json" {
		return errors.New(f.usage)
	}
	all, err := r.all()
	if err != nil {
		return err
	}
	switch {
	case quiet:
		for _, c := range all {
			fmt.Println(c.ID)
		}
		return nil
	case format == "json":
		return printJSON(all)
	}
	w := tabwriter.NewWriter(os.Stdout, 12, 1, 3, ' ', 0)
	fmt.Fprint(w, "ID\tPID\tSTATUS\tBUNDLE\tCREATED\tOWNER\n")
	for _, c := range all {
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\n", c.ID, c.Pid, c.Status, c.Bundle, c.Created.Format(time.RFC3339Nano), c.Owner)
	}
	return w.Flush()
}

// all reads every container; one whose record cannot be read is named and hides no other.
func (r *store) all() ([]stateOutput, error) {
	out := []stateOutput{}
	entries, err := os.ReadDir(r.root)
	if errors.Is(err, fs.ErrNotExist) {
		return out, nil
	}
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		c, err := r.load(e.Name())
		if errors.Is(err, fs.ErrNotExist) { // deleted meanwhile
			continue
		}
		if err != nil {
			warn("%v", err)
			continue
		}
		out = append(out, c.output())
	}
	return out, nil
}
