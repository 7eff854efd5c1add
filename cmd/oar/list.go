package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"text/tabwriter"
	"time"
)

// list prints the containers below --root.
func (r *store) list(_ context.Context, f flags) error {
	var format string
	var quiet bool
	f.text(&format, "format f", "table", "`table or json`")
	f.yes(&quiet, "quiet q", "ids only")
	if err := f.parseCount(0, 0); err != nil {
		return err
	}
	if format != "table" && format != "json" {
		return fmt.Errorf("invalid format option: %q is neither table nor json", format)
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
		return json.NewEncoder(os.Stdout).Encode(all)
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
	if errors.Is(err, fs.ErrNotExist) && !r.given {
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
			r.warn("%v", err)
			continue
		}
		out = append(out, c.output())
	}
	return out, nil
}
